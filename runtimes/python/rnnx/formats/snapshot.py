"""Snapshots: all that is needed to continue a stream elsewhere, in one layout for all languages.

safetensors with the metadata (all text)

    format      "rnnx-snapshot"
    version     "1"
    model       the id of the model file, compared as a string
    position    number of steps done, in decimal

and the tensors

    state.NAME              each state of the contract, in its dtype and its shape with the sizes filled in

and, if symbols are being sampled, one row for each row of the batch:

    sampling.generator      uint64  [batch]           state of splitmix64
    sampling.temperature    float64 [batch]
    sampling.scores         float32 [batch, symbols]  scores of the latest step, from which nothing is drawn
                                                      yet; in the dtype of the vocabulary's output

A reader ignores metadata and tensors that it does not know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from rnnx.arguments import instance, shown
from rnnx.errors import FileError
from rnnx.formats.safetensors_file import check_format, decimal, decode_tensors, encode_tensors
from rnnx.model.contract import Contract, StateSpec, describe
from rnnx.model.contract_values import value_array
from rnnx.model.shapes import Array, fit

VERSION = 1
_POSITIONS = 1 << 62  # what 64 bits count, with room for all steps to come


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Where sampling stopped.

    Attributes:
        generator: states of splitmix64, uint64 [batch].
        temperature: float64 [batch].
        scores: what the next symbols are drawn from, float [batch, symbols].
    """

    generator: Array
    temperature: Array
    scores: Array


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The content of a snapshot.

    Attributes:
        model_id: identity of the model file.
        position: number of steps done.
        states: by name, in full shape.
        sampling: where sampling stopped, None if nothing is sampled.
    """

    model_id: str
    position: int
    states: Mapping[str, Array]
    sampling: Sampling | None = None


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return a snapshot as bytes; equal snapshots give equal bytes."""
    tensors = {f"state.{name}": value for name, value in snapshot.states.items()}
    if snapshot.sampling is not None:
        instance("sampling", snapshot.sampling, Sampling, "a rnnx.formats.snapshot.Sampling")
        tensors["sampling.generator"] = np.asarray(snapshot.sampling.generator, np.uint64)
        tensors["sampling.temperature"] = np.asarray(snapshot.sampling.temperature, np.float64)
        tensors["sampling.scores"] = snapshot.sampling.scores
    metadata = {
        "format": "rnnx-snapshot",
        "version": str(VERSION),
        "model": snapshot.model_id,
        "position": str(snapshot.position),
    }
    return encode_tensors(tensors, metadata)


def decode_snapshot(
    data: bytes, contract: Contract, *, model_id: str, sizes: Mapping[str, int] | None = None
) -> Snapshot:
    """Return the content of a snapshot, checked against the model it is for.

    Args:
        data: the bytes.
        contract: of the model.
        model_id: of the model file, which the snapshot's must equal.
        sizes: of batch and free dimensions, which the states must have; None lets the states tell them.

    Raises:
        FileError: `not-safetensors`, `not-a-snapshot`, `snapshot-newer`, `snapshot-of-another-model` or
            `snapshot-invalid` for states that are missing or of another dtype or shape, or hold NaN.
    """
    content = instance("a snapshot", data, (bytes, bytearray, memoryview), "the bytes that snapshot() gave")
    tensors, metadata = decode_tensors(bytes(content), what="a snapshot")
    check_format(metadata, what="a snapshot", name="snapshot", version=VERSION, model_id=model_id)
    position = decimal(metadata.get("position", ""))
    if position is None:
        raise _invalid("a position in decimal", shown(metadata.get("position", "")))
    if position >= _POSITIONS:
        raise _invalid("a position below 2^62", str(position))
    known = dict(sizes or {})
    states = {}
    for spec in contract.states:
        value = tensors.get(f"state.{spec.name}")
        if value is None:
            raise _invalid(f"a tensor 'state.{spec.name}'", f"{', '.join(tensors) or 'no tensors'}")
        fitted = fit(spec.shape, value.shape, known) if value.dtype == np.dtype(spec.dtype) else None
        if fitted is None:
            wanted = describe(spec.dtype, [_size(dimension, known) for dimension in spec.shape])
            raise _invalid(f"state {spec.name!r} as {wanted}", describe(str(value.dtype), value.shape))
        _require_numbers(spec, value)
        states[spec.name], known = value, fitted
    return Snapshot(model_id, position, states, _sampling(tensors, contract, known))


def _size(dimension: int | str, sizes: Mapping[str, int]) -> int | str:
    return sizes.get(dimension, dimension) if isinstance(dimension, str) else dimension


def _sampling(tensors: Mapping[str, Array], contract: Contract, sizes: Mapping[str, int]) -> Sampling | None:
    names = ("sampling.generator", "sampling.temperature", "sampling.scores")
    if names[0] not in tensors or contract.vocabulary is None:
        return None
    batch = sizes.get("batch", 1)
    count = len(contract.vocabulary.symbols)
    shapes: dict[str, tuple[int, ...]] = {names[0]: (batch,), names[1]: (batch,), names[2]: (batch, count)}
    kinds = {names[0]: "u", names[1]: "f", names[2]: "f"}
    for name in names:
        value = tensors.get(name)
        if value is None or value.shape != shapes[name] or value.dtype.kind != kinds[name]:
            found = "none" if value is None else describe(str(value.dtype), value.shape)
            raise _invalid(f"a tensor {name!r} of shape {list(shapes[name])}", found)
    return Sampling(*(tensors[name] for name in names))


def _require_numbers(spec: StateSpec, value: Array) -> None:
    """Refuse NaN in a state that does not start so: one engine keeps it, another takes it for a number."""
    if value.dtype.kind != "f" or not np.isnan(value).any():
        return
    if not np.isnan(value_array(spec.initial, spec.dtype)).any():
        index = [int(entry) for entry in np.argwhere(np.isnan(value))[0]]
        fix = "take an earlier snapshot: when this one was written, the network had overflowed already"
        raise _invalid(f"state {spec.name!r} without NaN", f"nan at index {index}", fix)


_SIZES = "open the stream with the batch and dims that the snapshot was made with"


def _invalid(expected: str, found: str, fix: str = _SIZES) -> FileError:
    return FileError("snapshot-invalid", expected=f"a snapshot with {expected}", found=found, fix=fix)
