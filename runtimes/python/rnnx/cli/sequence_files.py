"""Recorded sequences: a folder with a file for each, or JSON lines; results are written the same way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnnx.errors import FileError, InputError
from rnnx.files import read_lines
from rnnx.formats.array_files import SUFFIXES, read_arrays, write_arrays
from rnnx.model.contract import Contract, axis_index
from rnnx.model.shapes import Array, chunk_shape, has_steps
from rnnx.pool.input_checks import named
from rnnx.runtime import input_buffers

LINES = ".jsonl"


def sequence_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files of arrays in a folder, in the order of their names.

    Raises:
        FileError: `no-sequences` if there are none, or two that differ in their ending alone.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise _no_sequences(
            f"files ending in {', '.join(SUFFIXES)} in {folder}", "none", "name another folder"
        )
    stems = [path.stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise _no_sequences(
            f"one file for each sequence in {folder}", f"several called {twice!r}", "rename one"
        )
    return paths


def folder_sequences(paths: list[Path]) -> Iterator[tuple[Path, Any]]:
    """Yield each file with what it holds. Raises as `rnnx.formats.array_files.read_arrays`."""
    for path in paths:
        yield path, read_arrays(path)


def write_sequence(folder: Path, source: Path, outputs: Mapping[str, Array]) -> Path:
    """Write the outputs of one sequence to `folder`, under the name of the file that its inputs are from.

    A `.npy` becomes a `.npz` where there are several outputs. Raises as `rnnx.files.writing`.
    """
    suffix = source.suffix.lower()
    path = folder / f"{source.stem}{'.npz' if suffix == '.npy' and len(outputs) > 1 else suffix}"
    write_arrays(path, outputs)
    return path


def count_sequences(path: str | os.PathLike[str]) -> int:
    """Return how many sequences a file of JSON lines has: lines that are not blank.

    Raises:
        FileError: `file-missing` or `cannot-read`, or `no-sequences` if there are none.
    """
    count = sum(bool(line.strip()) for line in read_lines(path, what="sequences"))
    if not count:
        raise _no_sequences(f"sequences in {path}", "none", "name another file")
    return count


def line_sequences(path: str | os.PathLike[str], contract: Contract) -> Iterator[tuple[str, Any]]:
    """Yield the sequences in a file of JSON lines, which is read as they are asked for.

    A line is an object of inputs by name, or bare lists for a model that needs one input. Values are nested
    lists in the shape of a chunk without its batch axis, since a line is one sequence.

    Yields:
        A name for messages, and the inputs in the shape of a chunk, for each line that is not blank.

    Raises:
        FileError: `file-missing`, `cannot-read` or `not-json-lines`.
        InputError: as `Stream.run`, with the line.
    """
    for number, line in enumerate(read_lines(path, what="sequences"), 1):
        if not line.strip():
            continue
        name = f"line {number} of {path}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FileError(
                "not-json-lines",
                expected=f"a JSON object or list as {name}",
                found=str(error),
                fix='write one sequence a line, as {"x": [[...], ...]}',
            ) from None
        try:
            yield name, _with_batch(contract, content)
        except InputError as error:
            raise named(error, name) from None


def encode_line(contract: Contract, outputs: Mapping[str, Array]) -> str:
    """Return the outputs of one sequence as a line of JSON: nested lists without the batch axis, by name.

    What is not finite stands as the strings "inf", "-inf" and "nan".
    """
    values = {}
    for spec in contract.outputs:
        axis = axis_index(chunk_shape(contract, spec), "batch")
        array = outputs[spec.name] if axis is None else outputs[spec.name].squeeze(axis)
        values[spec.name] = _plain(array)
    return json.dumps(values, allow_nan=False)


def _plain(array: Array) -> Any:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _told(array.tolist())
    return array.tolist()


def _told(value: Any) -> Any:
    if isinstance(value, list):
        return [_told(entry) for entry in value]
    return value if np.isfinite(value) else str(value)


def _with_batch(contract: Contract, content: Any) -> Any:
    """Return values with a batch axis of 1 put in where the model's inputs have theirs."""
    named = input_buffers.name_inputs(contract.inputs, content)
    inputs = {}
    for spec in contract.inputs:
        if named.get(spec.name) is not None:
            array = input_buffers.to_array(spec, named[spec.name])
            if array.shape == (0,) and has_steps(contract, spec):  # nested lists lose their other axes then
                raise InputError(
                    "empty-time",
                    expected=f"{spec.name!r} of at least one step",
                    found="an empty list",
                    fix="leave the line out: there is nothing to run",
                )
            axis = axis_index(chunk_shape(contract, spec), "batch")
            if axis is not None and axis <= array.ndim:
                array = np.expand_dims(array, axis)
            inputs[spec.name] = array
    return inputs


def _no_sequences(expected: str, found: str, fix: str) -> FileError:
    return FileError("no-sequences", expected=expected, found=found, fix=fix)
