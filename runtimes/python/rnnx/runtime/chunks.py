"""Long inputs in chunks: the same results, in bounded memory, with progress on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from rnnx.arguments import number
from rnnx.errors import InputError, UsageError
from rnnx.model.contract import Axis, Contract, InputSpec, axis_index, describe, resolve, step_shape
from rnnx.model.shapes import Array, chunk_shape, fit, from_steps, has_steps
from rnnx.runtime import input_buffers
from rnnx.runtime.stream import Stream
from rnnx.runtime.waiting import Waiting


def input_sizes(contract: Contract, inputs: Any) -> dict[str, int]:
    """Return what the shapes of a chunk's inputs settle: time, batch and free dimensions.

    Raises:
        InputError: inputs that do not fit the contract or each other.
    """
    sizes: dict[str, int] = {}
    named = input_buffers.name_inputs(contract.inputs, inputs)
    for spec in contract.inputs:
        if named.get(spec.name) is not None:
            shape = chunk_shape(contract, spec)
            actual = input_buffers.to_array(spec, named[spec.name]).shape
            fitted = fit(shape, actual, sizes)
            if fitted is None or 0 in actual:
                raise input_buffers.misfit(spec, shape, actual, sizes, whole=True)
            sizes = fitted
    return sizes


def run_chunks(stream: Stream, inputs: Any, *, chunk: int) -> Iterator[tuple[int, dict[str, Array]]]:
    """Run inputs of any length through `stream`, at most `chunk` steps at a time.

    Args:
        stream: what to run; a whole-only model takes everything at once.
        inputs: as `Stream.run` takes them.
        chunk: steps at a time, 1 or more.

    Yields:
        The number of steps done so far, and the outputs of the latest chunk.

    Raises:
        UsageError: `chunk-invalid`.
        InputError, StreamError, ModelError: as `Stream.run`.
    """
    chunk = number(chunk, "a chunk of 1 step or more", least=1, code="chunk-invalid")
    contract = stream.session.contract
    named = input_buffers.name_inputs(contract.inputs, inputs)
    steps = input_sizes(contract, named)["time"]
    for begin in range(0, steps, steps if contract.whole_only is not None else chunk):
        end = min(begin + (steps if contract.whole_only is not None else chunk), steps)
        yield end, stream.run(part_of(contract, named, begin, end))


def raw_chunks(
    stream: Stream, file: BinaryIO, *, chunk: int, pad: bool = False
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Run raw little-endian values from `file` through `stream`, one step after the other, as they come.

    Args:
        stream: of batch 1, of a model that needs one input.
        file: values in the dtype of that input; row after row of what one step takes.
        chunk: most steps that run at a time.
        pad: whether a last step that is not whole is filled up with zeros, and its outputs cut to its share.

    Yields:
        The number of steps done so far, and the outputs of the latest chunk.

    Raises:
        UsageError: `chunk-invalid`, or `raw-input` for a model that needs several inputs or other sizes.
        InputError: `raw-input` if the values end within a step, or there are none; all whole steps ran.
    """
    contract = stream.session.contract
    needed = [spec for spec in contract.inputs if spec.name in input_buffers.required(contract.inputs)]
    if len(needed) != 1 or not has_steps(contract, needed[0]) or contract.free_dimensions:
        raise UsageError(
            "raw-input",
            expected="a model that needs one input with time, and no dims, to take raw values",
            found=", ".join(spec.name for spec in needed) or "none",
            fix="give a .npy, .npz or .safetensors",
        )
    spec = needed[0]
    row = resolve(step_shape(spec), {"batch": 1})
    size = np.dtype(spec.dtype).itemsize * math.prod(row)
    most = 1 << 62 if contract.whole_only is not None else chunk
    done, rest = 0, b""
    while True:
        # One read gives what is there, so that a live source is answered at once.
        data = file.read() if contract.whole_only is not None else file.read1(size * most - len(rest))  # type: ignore[attr-defined]
        rest += data
        steps = len(rest) // size
        if steps:
            rows = np.frombuffer(rest, np.dtype(spec.dtype).newbyteorder("<"), steps * math.prod(row))
            chunked = from_steps(rows.reshape(steps, *row), chunk_shape(contract, spec))
            done, rest = done + steps, rest[steps * size :]
            yield done, stream.run({spec.name: chunked})
        if not data:
            break
    entry = size // _entries_of(contract, spec)
    if pad and rest and len(rest) % entry == 0:
        share = Fraction(len(rest), size)
        row_values = np.frombuffer(rest.ljust(size, b"\0"), np.dtype(spec.dtype).newbyteorder("<"))
        chunked = from_steps(row_values.reshape(1, *row), chunk_shape(contract, spec))
        yield done + 1, cut_off(contract, stream.run({spec.name: chunked}), share)
        return
    if rest or not done:
        raise InputError(
            "raw-input",
            expected=f"whole steps of {size} bytes, {describe(spec.dtype, row)} each",
            found=f"{len(rest)} bytes after {done} steps",
            fix="check dtype and shape of what is sent; --pad fills up a last step that is not whole",
        )


def _entries_of(contract: Contract, spec: InputSpec) -> int:
    """Return how many entries along time a step takes."""
    shape = chunk_shape(contract, spec)
    time = axis_index(shape, "time")
    assert time is not None
    return Axis.parse(shape[time]).factor


def filled_up(contract: Contract, inputs: Any) -> tuple[dict[str, Array], Fraction]:
    """Return inputs of any length filled up to whole steps with zeros, and how many steps they had.

    Args:
        contract: of the model.
        inputs: as `Stream.run` takes them, with any number of entries along time.

    Raises:
        InputError: as `Stream.feed`.
    """
    waiting = Waiting(contract).joined(inputs, {})
    return waiting.first(waiting.steps_to_flush()), waiting.steps


def cut_off(contract: Contract, outputs: Mapping[str, Array], steps: Fraction) -> dict[str, Array]:
    """Return the outputs of whole steps without what belongs to entries that were filled up.

    Args:
        contract: of the model.
        outputs: of a chunk.
        steps: how many of its steps are real, such as 7.3: of M entries a step so many are kept, rounded up.
    """
    kept = {}
    for spec in contract.outputs:
        shape = chunk_shape(contract, spec)
        time = axis_index(shape, "time")
        value = outputs[spec.name]
        if time is not None:
            count = math.ceil(steps * Axis.parse(shape[time]).factor)
            value = value[(slice(None),) * time + (slice(count),)]
        kept[spec.name] = value
    return kept


def join_chunks(contract: Contract, chunks: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the outputs of several chunks as those of one: joined along time, without one the last."""
    parts = list(chunks)
    joined = {}
    for spec in contract.outputs:
        time = axis_index(chunk_shape(contract, spec), "time")
        values = [part[spec.name] for part in parts]
        joined[spec.name] = values[-1] if time is None else np.concatenate(values, axis=time)
    return joined


def part_of(contract: Contract, named: Mapping[str, Any], begin: int, end: int) -> dict[str, Array]:
    """Return the inputs of steps begin..end-1 of a chunk; a length becomes what is left of it."""
    part = {}
    for spec in contract.inputs:
        if named.get(spec.name) is None:
            continue
        value = input_buffers.to_array(spec, named[spec.name])
        shape = chunk_shape(contract, spec)
        time = axis_index(shape, "time")
        if spec.role == "length":
            value = np.clip(value - begin, 0, end - begin)
        elif time is not None:
            factor = Axis.parse(shape[time]).factor
            value = value[(slice(None),) * time + (slice(begin * factor, end * factor),)]
        part[spec.name] = value
    return part
