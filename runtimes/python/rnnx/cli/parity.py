"""`rnnx parity`: a model beside its reference, step by step."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnx.cli.console import Json, Quiet, bold, table
from rnnx.errors import UsageError

if TYPE_CHECKING:
    from rnnx.compare import Comparison, Reference
    from rnnx.session import Session

_FREE_SIZE = 5  # of free dimensions that are not named


def parity(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="An ONNX file written by rnnx.", metavar="MODEL")],
    against: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="The network: a checkpoint (.safetensors), or file.py:Name."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A state dict for file.py:Name.")] = None,
    kwargs: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Arguments of its class or factory.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SPEC", help="As it was exported with; else as in MODEL.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SPEC", help="As it was exported with; else as in MODEL.")
    ] = None,
    constants: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="As it was exported with.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="A recorded trace, instead of the network.")] = None,
    steps: Annotated[int, typer.Option(help="Number of steps.", min=1)] = 64,
    batch: Annotated[int | None, typer.Option(help="Rows; 2 where the model has a batch.", min=1)] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(help=f"Size of a free dimension; {_FREE_SIZE} unless given.", metavar="NAME=N"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random inputs.", min=0)] = 0,
    provider: Annotated[str, typer.Option(help="cpu, cuda, native or auto.")] = "cpu",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a model with its reference, outputs and every state, at every step.

    Each step runs from the reference's states (fed), then all of them from the model's own (free), then in
    chunks. Exits with 0 if all agree, with 1 if not, with 2 if it cannot be compared.

    Example:

        rnnx parity poet.onnx --against poet.safetensors
        rnnx parity poet.onnx --trace poet.trace.safetensors --json
    """
    import rnnx

    if (against is None) == (trace is None):
        raise UsageError(
            "arguments",
            expected="one of --against SOURCE and --trace FILE",
            found="neither" if trace is None else "both",
            fix="add --against with the checkpoint the model was exported from",
        )
    sizes = _sizes(dim or [])
    session = rnnx.load(model, provider)
    if trace is not None:
        from rnnx.compare import compare_trace
        from rnnx.trace_file import read_trace

        result = compare_trace(session, read_trace(trace, session.contract, model_id=session.id))
    else:
        assert against is not None
        from rnnx.cli.source import open_network, open_reference

        network = open_network(
            against, weights=weights, kwargs=kwargs, inputs=inputs, state=state, constants=constants
        )
        reference = open_reference(network, session.contract)
        result = _compare(session, reference, steps=steps, batch=batch, sizes=sizes, seed=seed)
    if json:
        typer.echo(result.to_json())
    elif not quiet:
        typer.echo(report(result))
    if not result.agrees:
        if json:
            raise typer.Exit(1)
        result.require(reproduce=_command(context))


def _compare(
    session: Session,
    reference: Reference,
    *,
    steps: int,
    batch: int | None,
    sizes: dict[str, int],
    seed: int,
) -> Comparison:
    from rnnx.compare import compare_steps
    from rnnx.synthetic import random_inputs

    contract = session.contract
    rows = batch or (2 if contract.has_batch else 1)
    sizes = {**dict.fromkeys(contract.free_dimensions, _FREE_SIZE), **sizes, "batch": rows}
    inputs = random_inputs(contract, steps=steps, sizes=sizes, seed=seed)
    return compare_steps(session, reference, inputs=inputs, sizes=sizes, seed=seed)


def _sizes(pairs: list[str]) -> dict[str, int]:
    sizes = {}
    for pair in pairs:
        name, _, size = pair.partition("=")
        if not (name.isidentifier() and size.isdecimal() and int(size)):
            raise UsageError("arguments", expected="--dim NAME=N", found=pair, fix="as in --dim memory=37")
        sizes[name] = int(size)
    return sizes


def report(result: Comparison) -> str:
    """Return the largest errors as a table for people."""
    ways = list(result.max_errors)
    tensors = list(dict.fromkeys(tensor for errors in result.max_errors.values() for tensor in errors))
    rows = [["", *ways]]
    for tensor in tensors:
        errors = [result.max_errors[way].get(tensor) for way in ways]
        rows.append([tensor, *("-" if error is None else f"{error:.1e}" for error in errors)])
    verdict = "agrees with" if result.agrees else "DISAGREES with"
    head = f"{verdict} {result.reference}: {result.steps} steps, batch {result.batch}, on {result.provider}"
    return "\n".join([bold(head), "largest errors, relative to 1 + |expected|:", table(rows)])


def _command(context: typer.Context) -> str:
    """Return the command line as it was given: what it leaves open has a fixed default."""
    parts = ["rnnx", "parity", str(context.params["model"])]
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if name == "model" or source is None or source.name != "COMMANDLINE":
            continue
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, (list, tuple)) else [value]
        parts += [flag] if value is True else [part for each in values for part in (flag, str(each))]
    return shlex.join(parts)
