"""The command line: a verb a file.

A verb is imported when it is called, not before, so that `rnnx --help` answers at once. A command parses
its arguments, calls a public function that a Python user can call too, and prints.

Importing it changes one thing in the process: OMP_WAIT_POLICY, unless it is set already (why, see below).
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

try:
    import typer

    from rnnx.cli.group import CONTEXT, Group, Verb
except KeyboardInterrupt:  # before there is anything that could say so
    print("rnnx: interrupted", file=sys.stderr)
    raise SystemExit(130) from None

VERBS = {
    "train": Verb("rnnx.cli.train", "train", "Train a character network on text."),
    "export": Verb("rnnx.cli.export", "export", "Turn a network into ONNX with explicit state, proved."),
    "inspect": Verb("rnnx.cli.inspect", "inspect", "Show what a model takes, gives and carries."),
    "run": Verb("rnnx.cli.run", "run", "Run a model: generate text, or stream arrays through it."),
    "parity": Verb("rnnx.cli.parity", "parity", "Compare a model with its reference, step by step."),
    "trace": Verb("rnnx.cli.trace", "trace", "Record a trace of a network: a test for any language."),
    "bench": Verb("rnnx.cli.bench", "bench", "Measure what a step costs, beside PyTorch and ONNX Runtime."),
    "compile": Verb("rnnx.cli.compile", "compile", "Write a model as plain C that needs no runtime."),
    "embed": Verb(
        "rnnx.cli.embed", "embed", "Write a program around a model: C, C++, Go, Java, Node, Rust, web."
    ),
    "doctor": Verb("rnnx.cli.doctor", "doctor", "Show what is installed and which providers work."),
}


# PyTorch's threads wait for each other in a busy loop; where another program uses a core too, training gets
# thirty times slower (1.0 against 0.03 s a step). Read when torch is loaded, which is after this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Rnnx(Group):
    verbs = VERBS


app = typer.Typer(
    name="rnnx",
    cls=_Rnnx,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)


def _version(wanted: bool) -> None:
    if wanted:
        import rnnx

        typer.echo(f"rnnx {rnnx.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from (allowed after the verb too).")
    ] = False,
) -> None:
    """PyTorch networks with memory, as ONNX files whose memory is explicit.

    Example:

        rnnx train texts/ -o poet.safetensors
        rnnx export poet.safetensors -o poet.onnx
        rnnx run poet.onnx --prompt "def " --length 400

    Each verb has its own help: 'rnnx run --help'.
    """
