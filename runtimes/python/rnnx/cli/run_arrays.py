"""The part of `rnnx run` that streams arrays: from a file or standard input, to a file or standard output."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rnnx.audio import to_input, to_sound
from rnnx.cli.console import progress
from rnnx.errors import InputError, UsageError
from rnnx.files import writing
from rnnx.formats.array_files import (
    NUMPY_STARTS,
    SUFFIXES,
    check_suffix,
    decode_numpy,
    encode_arrays,
    read_arrays,
)
from rnnx.formats.sound_file import SUFFIXES as SOUNDS
from rnnx.formats.sound_file import Sound, encode_sound, is_sound, read_sound
from rnnx.model.contract import Axis, Contract, OutputSpec, axis_index
from rnnx.model.shapes import Array, chunk_shape, has_steps, to_steps
from rnnx.runtime.chunks import cut_off, filled_up, input_sizes, join_chunks, raw_chunks, run_chunks
from rnnx.runtime.stream import Stream
from rnnx.session import Session

_STANDARD = "-"


def run_arrays(
    session: Session,
    source: str,
    output: str,
    chunk: int,
    saved: bytes | None,
    save_state: Path | None,
    *,
    pad: bool,
    quiet: bool,
) -> None:
    """Run the arrays in `source` through the model and write what comes out to `output`.

    Args:
        session: the model.
        source: a file, or "-" for standard input.
        output: a file, or "-" for raw values on standard output, written as they are made.
        chunk: steps at a time.
        saved: a snapshot to continue from.
        save_state: where to write the snapshot of the end.
        pad: whether a last step that is not whole is filled up with zeros, and its outputs cut to its share.
        quiet: show no progress.
    """
    contract = session.contract
    _check_output(contract, output)
    sound = read_sound(source) if is_sound(source) else None
    inputs = _read(source) if sound is None else to_input(contract, sound)
    inputs, steps = _whole_steps(contract, inputs, pad=pad)
    sizes = {"batch": 1} if inputs is None else input_sizes(contract, inputs)
    dims = {name: sizes[name] for name in contract.free_dimensions if name in sizes}
    with session.stream(batch=sizes.get("batch", 1), dims=dims) as stream:
        if saved is not None:
            stream.restore(saved)
        parts = (
            raw_chunks(stream, sys.stdin.buffer, chunk=chunk, pad=pad)
            if inputs is None
            else run_chunks(stream, inputs, chunk=chunk)
        )
        kept, before = [], 0
        with progress("running", sizes.get("time"), quiet=quiet) as bar:
            for done, part in parts:
                if steps is not None and done > steps:
                    part = cut_off(contract, part, steps - before)
                before = done
                if output == _STANDARD:
                    _print_raw(contract, part)
                else:
                    kept.append(part)
                bar.update(done)
        _finish(stream, output, kept, save_state, sound)


def _whole_steps(
    contract: Contract, inputs: Array | dict[str, Array] | None, *, pad: bool
) -> tuple[Array | dict[str, Array] | None, Fraction | None]:
    """Return inputs of whole steps, and how many steps are real where the last one was filled up."""
    factors = [Axis.parse(dim).factor for spec in contract.inputs for dim in spec.shape if "*" in str(dim)]
    if inputs is None or not factors:
        return inputs, None
    filled, steps = filled_up(contract, inputs)
    if steps.denominator == 1:
        return inputs, None
    if not pad:
        raise InputError(
            "wrong-shape",
            expected=f"whole steps of {' and '.join(map(str, dict.fromkeys(factors)))} entries each",
            found=f"{float(steps):g} steps",
            fix="--pad fills the last one up with zeros, and cuts the outputs to its share",
        )
    return filled, steps


def _check_output(contract: Contract, output: str) -> None:
    if is_sound(output):
        return
    if output != _STANDARD:
        _check_name(output, "--output", ">")
        check_suffix(output, count=len(contract.outputs))
    elif len(contract.outputs) > 1:
        raise UsageError(
            "arguments",
            expected="--output FILE for a model with several outputs",
            found=", ".join(spec.name for spec in contract.outputs),
            fix="name a .npz or .safetensors",
        )


def _check_name(path: str, flag: str, sign: str) -> None:
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(
            "array-format",
            expected=f"{flag} with a name ending in {', '.join((*SUFFIXES, *SOUNDS))}",
            found=path,
            fix=f"choose one of these endings; for raw values '{flag} - {sign} {path}'",
        )


def _read(source: str) -> Array | dict[str, Array] | None:
    """Return the input arrays, or None if standard input holds raw values."""
    if source != _STANDARD:
        _check_name(source, "--input", "<")
        return read_arrays(source)
    head = sys.stdin.buffer.peek(10)[:10]  # type: ignore[union-attr]
    if head[8:] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        raise UsageError(
            "raw-input",
            expected="raw values, or a .npy",
            found="what begins like a .safetensors",
            fix="name the file: --input FILE.safetensors",
        )
    if not head.startswith(NUMPY_STARTS):
        return None
    return decode_numpy(sys.stdin.buffer.read(), label="standard input")


def _print_raw(contract: Contract, part: dict[str, Array]) -> None:
    for spec in contract.outputs:
        for value in _rows(contract, spec, part[spec.name]):
            sys.stdout.buffer.write(value.astype(value.dtype.newbyteorder("<")).tobytes())
    sys.stdout.buffer.flush()


def _rows(contract: Contract, spec: OutputSpec, value: Array) -> list[Array]:
    """Return an output in the order of its steps, the part of a last step that was cut off by itself."""
    if not has_steps(contract, spec):
        return [value]
    shape = chunk_shape(contract, spec)
    time = axis_index(shape, "time")
    assert time is not None
    factor = Axis.parse(shape[time]).factor
    whole = value.shape[time] // factor * factor
    before, after = np.split(value, [whole], time)
    return [*([to_steps(before, shape)] if whole else []), after]


def _finish(
    stream: Stream, output: str, kept: list[dict[str, Array]], save_state: Path | None, sound: Sound | None
) -> None:
    """Write results and state; both are whole beside their places before either takes its place."""
    with contextlib.ExitStack() as stack:
        for path, data in _files(stream, output, kept, save_state, sound):
            stack.enter_context(writing(path)).write_bytes(data)


def _files(
    stream: Stream, output: str, kept: list[dict[str, Array]], save_state: Path | None, sound: Sound | None
) -> Iterator[tuple[str | Path, Any]]:
    contract = stream.session.contract
    if is_sound(output):
        yield output, encode_sound(output, to_sound(contract, join_chunks(contract, kept), sound))
    elif output != _STANDARD:
        yield output, encode_arrays(output, join_chunks(contract, kept))
    if save_state is not None:
        yield save_state, stream.snapshot()
