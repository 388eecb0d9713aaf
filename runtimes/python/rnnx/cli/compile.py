"""`rnnx compile`: from an ONNX file to plain C."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rnnx.cli.console import Json, Quiet
from rnnx.cli.flags import MaxBytes


def compile(
    model: Annotated[Path, typer.Argument(help="An ONNX file written by rnnx.", metavar="MODEL")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.", metavar="FOLDER")],
    name: Annotated[
        str | None, typer.Option(help="Prefix of all names in C; the model file's own name unless given.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows that one state steps side by side.", min=1)] = 1,
    dim: Annotated[
        list[str] | None, typer.Option(help="Size of a free dimension; repeatable.", metavar="NAME=N")
    ] = None,
    chunk: Annotated[
        int, typer.Option(help="Steps that a chunk computes at once; more takes more memory.", min=1)
    ] = 16,
    weights: Annotated[str, typer.Option(help="What matrices are stored in: f32, f16 or int8.")] = "f32",
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Take f16 or int8 even where it costs more than the tolerances allow."),
    ] = False,
    max_bytes: MaxBytes = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model as C99 that needs nothing but a C compiler.

    The folder gets the network, its weights as an array and as a file, an example, and a test that replays
    the model's trace. What C does not have yet is refused before anything is written.

    Example:

        rnnx compile poet.onnx -o poet_c/
        cc -O3 poet_c/poet.c poet_c/poet_weights.c poet_c/poet_test.c -lm -o poet_test
        ./poet_test poet_c/poet.trace.safetensors
    """
    from rnnx.cli.parity import parse_sizes
    from rnnx_native.compile import compile_model

    made = compile_model(
        model,
        output,
        name=name,
        batch=batch,
        dims=parse_sizes(dim or []),
        chunk=chunk,
        weights=weights,
        accept=accept,
    )
    if json:
        facts = {"folder": str(made.folder), "name": made.name, "files": list(made.files)}
        sizes = {name: getattr(made, name) for name in ("weight_bytes", "state_bytes", "scratch_bytes")}
        cost = None if made.cost is None else {**asdict(made.cost), "largest": made.cost.largest}
        typer.echo(json_module.dumps({**facts, **sizes, "cost": cost}))
        return
    if quiet:
        return
    shown = dict.fromkeys("kernels/" if name.startswith("kernels/") else name for name in made.files)
    typer.echo(f"wrote {made.folder}: {', '.join(shown)}")
    room = f"{made.scratch_bytes:,} of them room for intermediate results"
    typer.echo(f"weights: {made.weight_bytes:,} bytes; a stream's state: {made.state_bytes:,} bytes, {room}")
    if made.cost is not None:
        typer.echo(str(made.cost))
    if not made.has_trace:
        typer.echo(f"no trace beside {model}: {made.name}_test.c needs one ('rnnx trace' records it)")
