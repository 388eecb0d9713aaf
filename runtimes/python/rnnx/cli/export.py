"""`rnnx export`: from a checkpoint or a module to a proved ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnx.cli.console import Json, Quiet, remark, stages
from rnnx.errors import UsageError
from rnnx.files import check_output

if TYPE_CHECKING:
    from rnnx_export.api import Exported


def export(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A checkpoint (.safetensors), or a module: file.py:Name.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The ONNX file to write; none with --explain.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="A state dict, .safetensors or .pt; ck.pt:model takes one under a key."),
    ] = None,
    kwargs: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Arguments of the module's class or factory."),
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SPEC", help="An input: 'x=float32[batch, time, 257]'.")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SPEC", help="A parameter that carries state; repeatable."),
    ] = None,
    returns: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Names of the parts of the result: 'y, (h, c)'.")
    ] = None,
    constants: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter with a fixed value.")
    ] = None,
    time: Annotated[
        bool, typer.Option("--time", help="Give a step model a time axis, for whole chunks.")
    ] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Say nothing of weights that are new and random.")
    ] = False,
    longest: Annotated[
        int | None,
        typer.Option(help="The most steps of a sequence that forward takes; found if left out.", min=1),
    ] = None,
    delay: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS", help="How late outputs may come where forward looks ahead; 'auto' finds it."
        ),
    ] = None,
    steps_per_second: Annotated[
        float | None, typer.Option(help="How fast time runs; kept for people.")
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set.", min=18)] = 18,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="List states, outputs and what they could be; write nothing."),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a network into ONNX with explicit state, proved against PyTorch before it is written.

    States are found wherever they are: arguments, buffers, attributes, recurrent layers, causal padding.
    A trace, the model's own test in any language, is written beside it. A spec is dtype[dim, ...]: numbers,
    batch, time, N*time or any other name; with a range where values matter: 'int64[batch, time] in 0..95'.

    Example:

        rnnx export poet.safetensors -o poet.onnx
        rnnx export mymodel.py:Denoiser --weights ckpt.pt \\
            --inputs 'x=float32[batch, time, 257]' -o denoiser.onnx
        rnnx export mymodel.py:Denoiser --inputs 'x=float32[batch, time, 257]' --explain
    """
    from rnnx.cli.source import files_of, has_random_weights, open_network

    if (output is None) != explain:
        raise UsageError(
            "arguments",
            expected="one of --output and --explain",
            found="both" if explain else "neither",
            fix="leave --output out: --explain writes nothing" if explain else "name the file: -o NAME.onnx",
        )
    for path in () if output is None else (output, output.with_suffix(".trace.safetensors")):
        check_output(path, inputs=files_of(source, weights))
    network = open_network(
        source,
        weights=weights,
        kwargs=kwargs,
        inputs=inputs,
        state=state,
        constants=constants,
        returns=returns,
    )
    late = int(delay) if delay is not None and delay.isdecimal() else delay
    if output is None:
        from rnnx.cli.explanation import tell

        tell(network, time=time, longest=longest, delay=late, json=json)
        return
    from rnnx_export.api import export as export_module

    with stages(f"exporting {source}", quiet=quiet) as told:
        made = export_module(
            network.module,
            output,
            time=time,
            longest=longest,
            delay=late,
            steps_per_second=steps_per_second,
            opset=opset,
            told=told,
            **network.arguments,
        )
    chance = not quiet and not random_weights and has_random_weights(network, source, weights)
    if json:
        from rnnx.model.contract import to_json

        typer.echo(to_json(made.contract, indent=2))
    elif not quiet:
        _show(made)
    if not quiet:
        _warn(made.notes, chance)


def _show(made: Exported) -> None:
    from rnnx_export.diagnostics import Caution

    for note in made.notes:
        if not isinstance(note, Caution):
            remark(f"note: {note}")
    proof = made.contract.proof
    assert proof is not None
    states = ", ".join(state.name for state in made.contract.states) or "none"
    typer.echo(f"wrote {made.path} (id {made.contract.id[:19]}...) and {made.trace}")
    typer.echo(f"states: {states}")
    typer.echo(f"way: {proof.way}" + (f" (not direct: {proof.not_direct})" if proof.not_direct else ""))
    if made.contract.whole_only is not None:
        typer.echo(f"whole sequences only: {made.contract.whole_only}")
    typer.echo(
        f"proved against {proof.reference}: {proof.steps} steps, batches "
        f"{' and '.join(str(batch) for batch in proof.batches)}, largest error {proof.max_error:g}"
    )


def _warn(notes: Sequence[str], chance: bool) -> None:
    """Say last what the file may not be, so that it is read."""
    from rnnx_export.diagnostics import Caution

    for note in notes:
        if isinstance(note, Caution):
            remark(f"warning: {note}")
    if chance:
        remark(
            "warning: these weights are random, as the module was made: nothing was loaded; "
            "give --weights, or --random-weights if that is meant"
        )
