"""The part of `rnnx run` that streams arrays: from a file or standard input, to a file or standard output."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnnx.cli.console import progress
from rnnx.errors import UsageError
from rnnx.files import writing
from rnnx.formats.array_files import NUMPY_STARTS, check_suffix, decode_numpy, encode_arrays, read_arrays
from rnnx.model.contract import Contract
from rnnx.model.shapes import Array, chunk_shape, has_steps, to_steps
from rnnx.runtime.chunks import input_sizes, join_chunks, raw_chunks, run_chunks
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
        quiet: show no progress.
    """
    contract = session.contract
    _check_output(contract, output)
    inputs = _read(source)
    sizes = {"batch": 1} if inputs is None else input_sizes(contract, inputs)
    dims = {name: sizes[name] for name in contract.free_dimensions if name in sizes}
    with session.stream(batch=sizes.get("batch", 1), dims=dims) as stream:
        if saved is not None:
            stream.restore(saved)
        parts = (
            raw_chunks(stream, sys.stdin.buffer, chunk=chunk)
            if inputs is None
            else run_chunks(stream, inputs, chunk=chunk)
        )
        kept = []
        with progress("running", sizes.get("time"), quiet=quiet) as bar:
            for done, part in parts:
                if output == _STANDARD:
                    _print_raw(contract, part)
                else:
                    kept.append(part)
                bar.update(done)
        _finish(stream, output, kept, save_state)


def _check_output(contract: Contract, output: str) -> None:
    if output != _STANDARD:
        check_suffix(output, count=len(contract.outputs))
    elif len(contract.outputs) > 1:
        raise UsageError(
            "arguments",
            expected="--output FILE for a model with several outputs",
            found=", ".join(spec.name for spec in contract.outputs),
            fix="name a .npz or .safetensors",
        )


def _read(source: str) -> Array | dict[str, Array] | None:
    """Return the input arrays, or None if standard input holds raw values."""
    if source != _STANDARD:
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
        value = part[spec.name]
        if has_steps(contract, spec):
            value = to_steps(value, chunk_shape(contract, spec))
        sys.stdout.buffer.write(value.astype(value.dtype.newbyteorder("<")).tobytes())
    sys.stdout.buffer.flush()


def _finish(stream: Stream, output: str, kept: list[dict[str, Array]], save_state: Path | None) -> None:
    """Write results and state; both are whole beside their places before either takes its place."""
    with contextlib.ExitStack() as stack:
        for path, data in _files(stream, output, kept, save_state):
            stack.enter_context(writing(path)).write_bytes(data)


def _files(
    stream: Stream, output: str, kept: list[dict[str, Array]], save_state: Path | None
) -> Iterator[tuple[str | Path, Any]]:
    if output != _STANDARD:
        yield output, encode_arrays(output, join_chunks(stream.session.contract, kept))
    if save_state is not None:
        yield save_state, stream.snapshot()
