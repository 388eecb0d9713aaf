"""`rnnx inspect`: what a model takes, gives and carries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rnnx.cli.console import Json, bold, table
from rnnx.model.contract import Contract, OutputSpec, StateSpec, describe, input_text, to_json
from rnnx.model.inspection import Inspection, inspect_model


def inspect(
    model: Annotated[Path, typer.Argument(help="An ONNX file written by rnnx.", metavar="MODEL")],
    json: Json = False,
) -> None:
    """Show what a model takes, gives and carries, and what was proved about it.

    With --json, print the contract inside the file.

    Example:

        rnnx inspect poet.onnx
        rnnx inspect poet.onnx --json
    """
    found = inspect_model(model)
    if json:
        typer.echo(to_json(found.contract, indent=2))
    else:
        typer.echo(report(found))


def report(found: Inspection) -> str:
    """Return the inspection as text for people."""
    contract = found.contract
    sections = [
        bold(f"{found.model.label}  {contract.name}".rstrip()),
        *_signature(contract),
        bold("model"),
        table([*_facts(found), *_vocabulary(contract)]),
        bold("proof"),
        table(_proof(found)),
    ]
    return "\n".join(sections)


def _signature(contract: Contract) -> list[str]:
    lines = []
    if contract.inputs:
        rows = [(spec.name, input_text(spec), _remark(spec)) for spec in contract.inputs]
        lines += [bold("inputs"), table(rows)]
    if contract.outputs:
        rows = [(spec.name, describe(spec.dtype, spec.shape), late(spec)) for spec in contract.outputs]
        lines += [bold("outputs"), table(rows)]
    if not contract.states:
        return [*lines, bold("states"), "  none: each call stands for itself"]
    rows = [(state.name, describe(state.dtype, state.shape), _start(state)) for state in contract.states]
    return [*lines, bold("states"), table(rows)]


def _remark(spec: Any) -> str:
    if spec.role == "length":
        order = "" if spec.order is None else ", longest first"
        return f"valid steps per row{order}, all unless given"
    return "" if spec.default is None else f"optional, {_value(spec.default)} unless given"


def late(spec: OutputSpec) -> str:
    """Return how many steps late an output is, empty if it is not."""
    return "" if not spec.delay else f"{spec.delay} step{'s' if spec.delay > 1 else ''} late"


def _start(state: StateSpec) -> str:
    if state.role == "ended":
        return f"1 says that the sequence is over  {state.input} -> {state.output}"
    return f"starts as {_value(state.initial)}  {state.input} -> {state.output}"


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return f"{value:g}" if isinstance(value, float) else str(value)
    sizes = []
    while isinstance(value, list):
        sizes.append(str(len(value)))
        value = value[0] if value else 0
    return f"given values ({' x '.join(sizes)})"


def _facts(found: Inspection) -> list[tuple[str, str]]:
    model, contract = found.model, found.contract
    opsets = ", ".join(f"{domain or 'ONNX'} {version}" for domain, version in model.opsets.items())
    operators = ", ".join(f"{name} {count}" for name, count in model.operators.items())
    rows = [
        ("runs", _runs(contract)),
        ("size", f"{len(model.data):,} bytes, {model.parameters:,} parameters"),
        ("operators", operators or "none"),
        ("format", f"IR {model.ir_version}, operator sets {opsets}"),
        ("made by", ", ".join(f"{name} {version}" for name, version in contract.producer.items())),
        ("id", model.id),
    ]
    if contract.longest is not None:
        rows.insert(1, ("longest", f"{contract.longest:,} steps from the start of a sequence"))
    if contract.steps_per_second:
        rows.insert(1, ("rate", f"{contract.steps_per_second:g} steps per second"))
    if contract.user:
        rows.append(("user fields", ", ".join(contract.user)))
    return [row for row in rows if row[1]]


def _runs(contract: Contract) -> str:
    if contract.whole_only is not None:
        return f"only whole sequences: {contract.whole_only}"
    time = "step by step or in chunks" if contract.has_time else "step by step"
    return f"{time}, {'any batch' if contract.has_batch else 'one sequence at a time'}"


def _vocabulary(contract: Contract) -> list[tuple[str, str]]:
    vocabulary = contract.vocabulary
    if vocabulary is None:
        return []
    shown = "".join(vocabulary.symbols[:60])
    more = " ..." if len(vocabulary.symbols) > 60 else ""
    return [("vocabulary", f"{len(vocabulary.symbols)} symbols: {shown!r}{more}")]


def _proof(found: Inspection) -> list[tuple[str, str]]:
    proof = found.contract.proof
    if proof is None:
        return [("none", "nobody has compared this file with its network")]
    batches = ", ".join(map(str, proof.batches))
    rows = [
        ("against", proof.reference),
        ("compared", f"{proof.steps} steps at batches {batches}, tolerance {proof.tolerance}"),
    ]
    if proof.max_error is not None:
        rows.append(("max error", f"{proof.max_error:.2g}"))
    if proof.runtimes:
        rows.append(("on", ", ".join(proof.runtimes)))
    if proof.way:
        reason = f" (not direct: {proof.not_direct})" if proof.not_direct else ""
        rows.append(("way", proof.way + reason))
    if found.is_as_proved:
        return [*rows, ("holds", "yes: the file has the id it was proved with")]
    return [*rows, ("holds", f"NO: the file has changed; it was proved as {found.proved_id or 'nothing'}")]
