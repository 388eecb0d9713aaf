"""`rnnx embed`: a small complete program around a model, in another language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnx.cli.console import Quiet, remark


def embed(
    language: Annotated[str, typer.Argument(metavar="LANGUAGE", help="c, cpp, go, java, node, rust or web.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model (.onnx).")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The program's folder; not there yet.")
    ],
    quiet: Quiet = False,
) -> None:
    """Write a small complete program around a model, in another language.

    The program proves the model on its trace, then runs it over frames of raw values, or writes text; the
    runtime's source lies beside it, so that nothing of rnnx has to be installed. Its README says how it is
    built and run.

    Example:

        rnnx embed c poet.onnx -o poet-in-c
    """
    from rnnx.scaffold import LANGUAGES, embed, trace_beside

    embed(language, model, output)
    if not quiet and trace_beside(model) is None:
        remark(
            f"warning: there is no trace beside {model}, so that the program proves nothing; 'rnnx trace "
            f"NETWORK --model {model} -o {model.with_suffix('.trace.safetensors')}' records one"
        )
    if not quiet:
        typer.echo(f"wrote {output}: see {output / 'README.md'}; then, in that folder,")
        typer.echo(f"  {LANGUAGES[language].command}")
