"""`rnnx trace`: a recording of a network, as a test for any language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnx.cli.comparison import Constants, Inputs, Kwargs, Returns, State, Weights
from rnnx.cli.console import Quiet, progress
from rnnx.cli.flags import MaxBytes
from rnnx.errors import UsageError


def trace(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="The network: a checkpoint (.safetensors), or file.py:Name."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The trace to write (.safetensors).")],
    model: Annotated[
        Path, typer.Option(metavar="MODEL", help="The model exported from it: the trace is for that file.")
    ],
    weights: Weights = None,
    kwargs: Kwargs = None,
    inputs: Inputs = None,
    state: State = None,
    constants: Constants = None,
    returns: Returns = None,
    steps: Annotated[int, typer.Option(help="Number of steps.", min=1)] = 64,
    batch: Annotated[int | None, typer.Option(help="Rows; 2 where the model has a batch.", min=1)] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(help="Size of a free dimension; 5 unless given.", metavar="NAME=N"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random inputs.", min=0)] = 0,
    input: Annotated[
        Path | None, typer.Option(help="Recorded inputs: .npy, .npz or .safetensors, as for 'rnnx run'.")
    ] = None,
    max_bytes: MaxBytes = None,
    quiet: Quiet = False,
) -> None:
    """Record what a network takes, gives and carries, step by step.

    The trace is made by PyTorch; 'rnnx parity MODEL --trace FILE' replays it where there is no PyTorch, and
    so does every other language.

    Example:

        rnnx trace poet.safetensors --model poet.onnx -o t.safetensors --steps 100
    """
    from rnnx.cli.comparison import Source
    from rnnx.cli.parity import parse_sizes, refuse_sizes
    from rnnx.cli.source import open_reference
    from rnnx.files import check_output
    from rnnx.formats.array_files import read_arrays
    from rnnx.formats.trace_file import write_trace
    from rnnx.model.inspection import inspect_model
    from rnnx.parity.check import make_request
    from rnnx.parity.record_trace import record_trace

    refuse_sizes(context, input, "seed")
    read = tuple(path for path in (model, Path(source), weights, input) if path is not None)
    check_output(output, inputs=read)
    if output.suffix != ".safetensors":
        raise UsageError("arguments", expected="--output as .safetensors", found=output.name, fix="rename it")
    if source.endswith(".onnx"):
        raise UsageError(
            "arguments",
            expected="the network as SOURCE, and the model with --model",
            found=source,
            fix=f"rnnx trace NETWORK --model {source} -o {output}",
        )
    found = inspect_model(model)
    recorded = None if input is None else read_arrays(input)
    sizes = parse_sizes(dim or [])
    request = make_request(found.contract, steps=steps, batch=batch, dims=sizes, seed=seed, recorded=recorded)
    network = Source(source, weights, kwargs, inputs, state, constants, returns).open()
    reference = open_reference(network, found.contract)
    with progress("recording", request.steps, quiet=quiet) as bar:
        made = record_trace(
            reference,
            found.contract,
            request.rows(found.contract),
            sizes=request.sizes,
            model_id=found.model.id,
            advanced=bar.update,
        )
    write_trace(output, made)
    if not quiet:
        typer.echo(f"wrote {output}: {made.steps} steps of {made.reference}, batch {request.sizes['batch']}")
