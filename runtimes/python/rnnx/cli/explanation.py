"""`rnnx export --explain`: what an export would take for what, as tables for people."""

from __future__ import annotations

import dataclasses
import json as json_text
from typing import TYPE_CHECKING

import typer

from rnnx.cli.console import bold, remark, table

if TYPE_CHECKING:
    from rnnx.cli.source import Network


def tell(network: Network, *, time: bool, longest: int | None, delay: int | str | None, json: bool) -> None:
    """Print what a network's inputs, states and outputs would be; raise the refusal if it is none.

    Raises:
        RnnxError: as `rnnx_export.explain.explain`, and the refusal that it found.
    """
    from rnnx_export.explain import explain

    found = explain(network.module, time=time, longest=longest, delay=delay, **network.arguments)
    groups = {
        "inputs": found.inputs,
        "states": found.states,
        "outputs": found.outputs,
        "result": found.result,
    }
    if json:
        lists = {name: [dataclasses.asdict(part) for part in parts] for name, parts in groups.items()}
        typer.echo(json_text.dumps({**lists, "notes": [str(note) for note in found.notes]}))
    else:
        for name, parts in groups.items():
            if found.refusal is not None and name in ("states", "outputs"):
                continue
            typer.echo(bold(name))
            typer.echo(table([[part.name, part.spec, part.place] for part in parts] or [["none"]]))
        for note in found.notes:
            remark(f"note: {note}")
    if found.refusal is not None:
        raise found.refusal
