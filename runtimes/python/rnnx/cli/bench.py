"""`rnnx bench`: what a step costs, several candidates side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnx.cli.comparison import Constants, Inputs, Kwargs, Returns, Source, State, Weights
from rnnx.cli.console import Json, Quiet, bold, progress, table
from rnnx.cli.flags import MaxBytes, providers, refuse
from rnnx.errors import UsageError

if TYPE_CHECKING:
    from rnnx.bench.candidates import Candidate
    from rnnx.bench.measure import Bench, Timing


_MOST_STREAMS = 1_000_000


def bench(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="An ONNX file written by rnnx.", metavar="MODEL")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="The network, to measure PyTorch too: a checkpoint, or file.py:Name."
        ),
    ] = None,
    weights: Weights = None,
    kwargs: Kwargs = None,
    inputs: Inputs = None,
    state: State = None,
    constants: Constants = None,
    returns: Returns = None,
    runtimes: Annotated[str, typer.Option(metavar="LIST", help="Providers: cpu,cuda,native.")] = "cpu",
    without: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Candidates to leave out, such as torch.compile, by their names."),
    ] = None,
    streams: Annotated[
        str, typer.Option(metavar="LIST", help="Numbers of streams to advance by a step.")
    ] = "1,16,64,256",
    seconds: Annotated[
        float, typer.Option(help="To measure, for each candidate and number of streams.", min=0.01, max=3600)
    ] = 1.0,
    floor: Annotated[
        bool, typer.Option("--floor", help="Add the least time that this machine allows (one core, float32).")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the result: .png, .svg or .pdf.")] = None,
    max_bytes: MaxBytes = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a step of MODEL: rnnx, ONNX Runtime called the ordinary way, and PyTorch with --against.

    The candidates take turns in short rounds, and ratios are taken within rounds: trust the ratios. Many
    streams are stepped as a pool by rnnx and as one batch by the others. Memory and the first step are
    measured in a process each. The floor is the time to read the weights of all matrices in order, or to
    multiply by them, if that is longer.

    Example:

        rnnx bench poet.onnx --against poet.safetensors --without torch.compile
        rnnx bench poet.onnx --runtimes native,cpu --floor
        rnnx bench poet.onnx --streams 1,8 --seconds 0.1 --json
    """
    from rnnx.bench.measure import measure, parts
    from rnnx.files import check_output
    from rnnx.model.onnx_file import read_contract, read_model

    if against is None:
        refuse(
            context,
            *("weights", "kwargs", "inputs", "state", "constants", "returns"),
            expected="--against SOURCE beside flags that say how the network is made",
            fix="add --against, or leave it out",
        )
    names = list(dict.fromkeys(providers(runtimes)))
    if plot is not None:
        check_output(plot, inputs=(model,))
        _check_format(plot)
        from rnnx.bench.plot import draw  # here, since it needs matplotlib
    counts = _counts(streams)
    contract = read_contract(read_model(model))
    if contract.whole_only is not None:
        raise UsageError(
            "whole-only",
            expected="a model that can be stepped",
            found=contract.whole_only,
            fix="choose another model: there is no step to measure",
        )
    network = (
        Source(against, weights, kwargs, inputs, state, constants, returns) if against is not None else None
    )
    candidates = _candidates(model, names, network)
    if floor:
        from rnnx_native.roofline import RooflineCandidate

        candidates.append(RooflineCandidate(model))
    candidates = _left(candidates, without)
    with progress("measuring", parts(candidates, counts), unit="parts", quiet=quiet) as bar:
        found = measure(model, candidates, streams=counts, seconds=seconds, advanced=bar.update)
    if plot is not None:
        draw(found, plot)
    if json:
        typer.echo(found.to_json())
    elif not quiet:
        typer.echo(show(found))


def _candidates(model: Path, names: list[str], network: Source | None) -> list[Candidate]:
    from rnnx.bench.candidates import OrtCandidate, RnnxCandidate

    candidates: list[Candidate] = [RnnxCandidate(model, name, f"rnnx {name}") for name in names]
    candidates.append(OrtCandidate(model))
    if network is not None:
        from rnnx_export.proof.bench_torch import TorchCandidate

        candidates.append(TorchCandidate(model, network.open))
        candidates.append(TorchCandidate(model, network.open, "torch.compile", compiled=True, optional=True))
    return candidates


def _left(candidates: list[Candidate], without: str | None) -> list[Candidate]:
    """Return the candidates but those in a list of names."""
    names = [name.strip() for name in (without or "").split(",") if name.strip()]
    known = [candidate.name for candidate in candidates]
    unknown = [name for name in names if name not in known]
    left = [candidate for candidate in candidates if candidate.name not in names]
    if unknown or not left:
        raise UsageError(
            "arguments",
            expected=f"--without as some of {', '.join(known)}",
            found=", ".join(unknown or names),
            fix="leave out one of these; PyTorch is measured with --against",
        )
    return left


def _counts(text: str) -> list[int]:
    counts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 0 < int(part) <= _MOST_STREAMS for part in counts):
        raise UsageError(
            "arguments",
            expected=f"--streams as numbers in 1..{_MOST_STREAMS:,}",
            found=repr(text),
            fix="as in 1,16,64",
        )
    return list(dict.fromkeys(map(int, counts)))


def _check_format(plot: Path) -> None:
    if plot.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(
            "arguments", expected="--plot as .png, .svg or .pdf", found=plot.name, fix="rename it"
        )


def show(found: Bench) -> str:
    """Return the result as tables for people."""
    lines = [bold(f"{found.model} on {found.machine}")]
    for count in dict.fromkeys(timing.streams for timing in found.timings):
        timings = [timing for timing in found.timings if timing.streams == count]
        rows = [["", "ratio", "steps/s", "us min", "median", "p99", "p99.9"], *map(_row, timings)]
        lines += [f"{count} stream{'s' * (count > 1)}:", table(rows)]
    rows = [["", "first step", "memory"]]
    for first in found.first:
        memory = "-" if first.memory_mb is None else f"{first.memory_mb:.0f} MiB"
        rows.append([first.contender, f"{first.seconds:.2f} s", memory])
    lines += ["from a new process:", table(rows)]
    lines += [f"not run: {name} ({why})" for name, why in found.not_run.items()]
    return "\n".join(lines)


def _row(timing: Timing) -> list[str]:
    figures = [timing.min_us, timing.median_us, timing.p99_us, timing.p99_9_us]
    shown = ["-" if value is None else f"{value:.1f}" for value in figures]
    return [timing.contender, f"{timing.ratio:.2f}x", f"{timing.steps_per_second:,.0f}", *shown]
