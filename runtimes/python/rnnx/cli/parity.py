"""`rnnx parity`: a model beside its reference, step by step."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnx.cli.comparison import Constants, Inputs, Kwargs, Returns, State, Weights
from rnnx.cli.console import Json, Quiet, bold, remark, table
from rnnx.cli.flags import MaxBytes, providers, refuse
from rnnx.errors import ParityError, UsageError

if TYPE_CHECKING:
    from rnnx.parity.check import Request
    from rnnx.parity.verdict import Parity
    from rnnx.session import Session

_DRIVES = ("random", "own")
# What the command that shows a failure again leaves out: MODEL stands in front, the others only write.
_NO_PART = ("model", "record", "report", "json", "quiet")


def parity(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="An ONNX file written by rnnx.", metavar="MODEL")],
    against: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="The network: a checkpoint (.safetensors), or file.py:Name."),
    ] = None,
    weights: Weights = None,
    kwargs: Kwargs = None,
    inputs: Inputs = None,
    state: State = None,
    constants: Constants = None,
    returns: Returns = None,
    trace: Annotated[Path | None, typer.Option(help="A recorded trace, instead of the network.")] = None,
    runtimes: Annotated[
        str | None, typer.Option(metavar="LIST", help="Providers to compare: cpu,cuda,native.")
    ] = None,
    provider: Annotated[str, typer.Option(help="One provider, instead of --runtimes.")] = "cpu",
    steps: Annotated[int, typer.Option(help="Number of steps.", min=1)] = 64,
    batch: Annotated[int | None, typer.Option(help="Rows; 2 where the model has a batch.", min=1)] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(help="Size of a free dimension; 5 unless given.", metavar="NAME=N"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random inputs and lengths of chunks.", min=0)] = 0,
    input: Annotated[
        Path | None, typer.Option(help="Recorded inputs: .npy, .npz or .safetensors, as for 'rnnx run'.")
    ] = None,
    drive: Annotated[
        str, typer.Option(help="Without --input: random inputs, or 'own': the output fed back.")
    ] = "random",
    text: Annotated[Path | None, typer.Option(help="Held-out text, for models over symbols.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report for people: one HTML file.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the verdict in MODEL, bound to its id.")
    ] = False,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Where they disagree, find the first node and its module.")
    ] = False,
    max_bytes: MaxBytes = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a model with its reference, outputs and every state, at every step.

    Each step runs teacher-forced, from the reference's states (fed), then all free-running, from the model's
    own (free), then in chunks; where the network runs in float64, errors are measured against that, in units
    of PyTorch's own. Then its invariants: chunkings, resets, batches, snapshots, extreme inputs. Exits with 0
    if all agree, with 1 if not, with 2 if it cannot be compared, with 130 if it was interrupted, after saying
    what was found until then.

    Example:

        rnnx parity poet.onnx --against poet.safetensors --text a.txt
        rnnx parity poet.onnx --against poet.safetensors --runtimes cpu --steps 300 --report report.html
        rnnx parity poet.onnx --trace poet.trace.safetensors --json
    """
    _check_arguments(context, model, against, trace, drive, input, record, bisect)
    names = [provider] if runtimes is None else providers(runtimes)
    if report is not None:
        from rnnx.cli.source import files_of
        from rnnx.files import check_output

        read = (model, trace, input, text, *(() if against is None else files_of(against, weights)))
        check_output(report, inputs=tuple(path for path in read if path is not None))
    import rnnx

    sessions = [rnnx.load(model, name) for name in names]
    command = _command(context)
    if trace is not None:
        found = _replay(sessions, trace, command)
    else:
        from rnnx.cli.comparison import Source, compare_network

        found = compare_network(
            sessions,
            Source(against or "", weights, kwargs, inputs, state, constants, returns),
            _request(sessions[0], steps, batch, parse_sizes(dim or []), seed, input, drive, text),
            command=command,
            bisect=bisect,
            quiet=quiet,
        )
    _tell(found, report=report, json=json, quiet=quiet)
    if record and not found.interrupted:
        from rnnx.parity.store_proof import record_parity

        contract = record_parity(model, found)
        remark(f"recorded in {model}, for id {contract.id[:19]}... (tamper-evident, not signed)", quiet=quiet)
    if found.interrupted:
        raise typer.Exit(130)
    if not found.agrees:
        _fail(found, command, _hint(against, weights), json=json)


def _check_arguments(
    context: typer.Context,
    model: Path,
    against: str | None,
    trace: Path | None,
    drive: str,
    input: Path | None,
    record: bool,
    bisect: bool,
) -> None:
    """Refuse what cannot end well before anything is loaded or computed."""
    from rnnx.files import check_output

    if (against is None) == (trace is None):
        raise UsageError(
            "arguments",
            expected="one of --against SOURCE and --trace FILE",
            found="neither" if trace is None else "both",
            fix="add --against with the checkpoint the model was exported from",
        )
    if drive not in _DRIVES or (drive != "random" and input is not None):
        found = f"--drive {drive}" + (" with --input" if input is not None else "")
        raise UsageError(
            "arguments", expected="--drive random, --drive own, or --input", found=found, fix="choose one"
        )
    if bisect and against is None:
        raise UsageError(
            "arguments", expected="--against with --bisect", found="--trace", fix="name the network"
        )
    if trace is not None:
        refuse(
            context,
            *("weights", "kwargs", "inputs", "state", "constants", "returns"),
            *("steps", "batch", "dim", "seed", "input", "drive", "text"),
            expected="--trace without flags that choose inputs or a network",
            fix="leave it out: a trace holds its inputs, sizes and steps",
        )
    refuse_sizes(context, input)
    if context.params["runtimes"] is not None:
        refuse(context, "provider", expected="--runtimes or --provider", fix="name all of them in --runtimes")
    if record:
        check_output(model)


def refuse_sizes(context: typer.Context, input: Path | None, *more: str) -> None:
    """Refuse flags that recorded inputs have settled already. Raises UsageError `arguments`."""
    if input is not None:
        refuse(
            context,
            *("steps", "batch", *more),
            expected="--input without flags that say what random inputs are like",
            fix="leave it out: recorded inputs have steps and batch of their own",
        )


def _replay(sessions: list[Session], path: Path, command: str) -> Parity:
    from rnnx.formats.trace_file import read_trace, trace_sizes
    from rnnx.parity.check import Request, check_parity
    from rnnx.parity.reference import TraceReference
    from rnnx.tolerance import Level

    contract = sessions[0].contract
    found = read_trace(path, contract, model_id=sessions[0].id)
    levels = {name: Level("trace", bound, bound, "") for name, bound in found.tolerances.items()}
    request = Request(
        steps=found.steps,
        sizes={"batch": 1, **trace_sizes(found, contract)},
        inputs=found.inputs,
        inputs_label="the trace's",
        initial={name: rows[0] for name, rows in found.states.items()},
        levels=[levels] * len(sessions),
        invariants=False,
    )
    return check_parity(sessions, TraceReference(found), request, command=command)


def _request(
    session: Session,
    steps: int,
    batch: int | None,
    dims: dict[str, int],
    seed: int,
    input: Path | None,
    drive: str,
    text: Path | None,
) -> Request:
    import dataclasses

    from rnnx.files import read_bytes
    from rnnx.formats.array_files import read_arrays
    from rnnx.parity.check import make_request
    from rnnx.parity.lazy_inputs import loops

    contract = session.contract
    recorded = None if input is None else read_arrays(input)
    request = make_request(contract, steps=steps, batch=batch, dims=dims, seed=seed, recorded=recorded)
    if drive == "own":
        request = dataclasses.replace(request, loops=loops(contract), inputs_label="its own outputs as")
    if text is not None:
        if contract.vocabulary is None:
            raise UsageError(
                "not-symbols",
                expected="a model with a vocabulary for --text",
                found="one without",
                fix="leave --text out",
            )
        if contract.whole_only is not None:
            raise UsageError(
                "whole-only",
                expected="a model that can be stepped for --text",
                found=contract.whole_only,
                fix="leave --text out",
            )
        request = dataclasses.replace(request, text=read_bytes(text, what="text").decode("utf-8", "replace"))
    return request


def _tell(found: Parity, *, report: Path | None, json: bool, quiet: bool) -> None:
    """Write and print the verdict in every form that was asked for."""
    if report is not None:
        from rnnx.files import write_bytes
        from rnnx.parity.report import to_html

        write_bytes(report, to_html(found).encode())
    if json:
        typer.echo(found.to_json())
    elif not quiet:
        typer.echo(show(found))


def show(found: Parity) -> str:
    """Return the verdict as a line and a table for people."""
    from rnnx.parity.report import growth, horizon

    rows = [["", "verdict", "start", "fed", "free", "chunks", "PyTorch's", "grows", "leaves tolerance"]]
    for runtime in found.runtimes:
        routes = [runtime.max_errors.get(route) for route in ("start", "fed", "free", "chunks")]
        errors = ["-" if not errors else f"{max(errors.values()):.1e}" for errors in routes]
        ratio = "-" if runtime.ratio is None else f"{runtime.ratio:.2g}x of {runtime.allowed_ratio:g}x"
        word = "agrees" if runtime.agrees else "DISAGREES"
        rows.append(
            [runtime.provider, word, *errors, ratio, growth(runtime.drift.values()), horizon(runtime)]
        )
    lines = [bold(found.summary), "largest errors, relative to 1 + |expected|:", table(rows)]
    if any(runtime.ratio is not None for runtime in found.runtimes):
        lines.append(
            "PyTorch's: the error against float64 in units of PyTorch's own, and how many are allowed"
        )
    for runtime in found.runtimes:
        held = [check.name for check in runtime.checks if check.holds]
        if held:
            lines.append(f"{runtime.provider} also holds: {', '.join(held)}")
        lines += [
            f"{runtime.provider} FAILS {check.name}: {check.detail}"
            for check in runtime.checks
            if check.holds is False
        ]
        lines += [
            f"{runtime.provider} was not checked for {check.name}: {check.detail}"
            for check in runtime.checks
            if check.holds is None
        ]
    if found.finding is not None:
        lines.append(f"begins at {found.finding}")
    return "\n".join(lines)


def _hint(against: str | None, weights: Path | None) -> str:
    """Return what is most often the cause for a network that was given no weights."""
    from rnnx.cli.source import maybe_random

    if against is None or not maybe_random(against, weights):
        return ""
    return f"; unless {against} loads its weights, they are random, and others each time: give --weights"


def _fail(found: Parity, command: str, hint: str, *, json: bool) -> None:
    from rnnx.parity.verdict import why

    if json:
        raise typer.Exit(1)
    where = f"; begins at {found.finding}" if found.finding is not None else ""
    raise ParityError(
        "parity",
        expected=f"the model to agree with {found.reference}",
        found=why(found) + where,
        fix=f"find the cause; '{command}' shows it again{hint}",
    )


def parse_sizes(pairs: list[str]) -> dict[str, int]:
    """Return sizes by name from `NAME=N` texts. Raises UsageError `arguments`."""
    sizes = {}
    for pair in pairs:
        name, _, size = pair.partition("=")
        if not (name.isidentifier() and size.isdecimal() and int(size)):
            raise UsageError("arguments", expected="--dim NAME=N", found=pair, fix="as in --dim memory=37")
        if name in ("batch", "time"):
            raise UsageError(
                "arguments",
                expected="--dim with a free dimension of the model",
                found=repr(name),
                fix="leave it out: --batch says the batch, and the inputs the time",
            )
        if name in sizes:
            raise UsageError(
                "arguments", expected="each --dim once", found=f"{name!r} twice", fix="leave one out"
            )
        sizes[name] = int(size)
    return sizes


def _command(context: typer.Context) -> str:
    """Return the command line as it was given: what it leaves open has a fixed default."""
    parts = ["rnnx", "parity", str(context.params["model"])]
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if name in _NO_PART or source is None or source.name != "COMMANDLINE":
            continue
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, (list, tuple)) else [value]
        parts += [flag] if value is True else [part for each in values for part in (flag, str(each))]
    return shlex.join(parts)
