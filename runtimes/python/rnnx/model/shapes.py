"""The shapes a caller sees: of one step, of a chunk of steps, and how one becomes the other.

A step has no `time` axis (an `N*time` axis has N entries there); a chunk has it. A model whose inputs
have no `time` is a step model: in a chunk of it, time stands right after the batch (first without one).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.model.contract import Axis, Contract, Dimension, InputSpec, OutputSpec, axis_index

Array = npt.NDArray[Any]


def chunk_shape(contract: Contract, spec: InputSpec | OutputSpec) -> list[Dimension]:
    """Return the shape of `spec` in a chunk: its own, or with `time` put in if this is a step model.

    The length input of a step model keeps its shape: it counts the valid steps of the whole chunk.
    """
    if contract.has_time or (isinstance(spec, InputSpec) and spec.role == "length"):
        return list(spec.shape)
    shape = list(spec.shape)
    batch = axis_index(shape, "batch")
    shape.insert(0 if batch is None else batch + 1, "time")
    return shape


def fit(shape: Sequence[Dimension], actual: Sequence[int], dims: Mapping[str, int]) -> dict[str, int] | None:
    """Return `dims` with the names that `actual` settles, or None where it contradicts shape or dims.

    Args:
        shape: as in the contract, `["batch", "4*time", 3]`.
        actual: the sizes of an array, `(2, 12, 3)`.
        dims: sizes known already, `{"batch": 2}`; the result adds `{"time": 3}`.
    """
    if len(shape) != len(actual):
        return None
    known = dict(dims)
    for dimension, size in zip(shape, actual, strict=True):
        axis = Axis.parse(dimension)
        if not axis.name:
            if size != axis.factor:
                return None
        elif size % axis.factor or known.setdefault(axis.name, size // axis.factor) * axis.factor != size:
            return None
    return known


def filled(shape: Sequence[Dimension], dims: Mapping[str, int]) -> str:
    """Return a shape for a message, with the sizes that are known: `[batch=2, 4*time, 3]`."""
    parts = []
    for dimension in shape:
        axis = Axis.parse(dimension)
        known = axis.name in dims
        parts.append(f"{dimension}={axis.factor * dims[axis.name]}" if known else str(dimension))
    return f"[{', '.join(parts)}]"


def to_steps(chunk: Array, shape: Sequence[Dimension]) -> Array:
    """Return `chunk`, of `shape`, as [step, ...]: row t is exactly what step t takes or gives. A view."""
    index = axis_index(shape, "time")
    assert index is not None
    factor = Axis.parse(shape[index]).factor
    if shape[index] != "time":
        sizes = chunk.shape
        chunk = chunk.reshape(*sizes[:index], sizes[index] // factor, factor, *sizes[index + 1 :])
    return np.moveaxis(chunk, index, 0)


def from_steps(rows: Array, shape: Sequence[Dimension]) -> Array:
    """Return `rows`, [step, ...], as a contiguous chunk of `shape`: the inverse of `to_steps`."""
    index = axis_index(shape, "time")
    assert index is not None
    chunk = np.moveaxis(rows, 0, index)
    if shape[index] != "time":
        sizes = chunk.shape
        chunk = chunk.reshape(*sizes[:index], sizes[index] * sizes[index + 1], *sizes[index + 2 :])
    return np.ascontiguousarray(chunk) if chunk.ndim else chunk


def has_steps(contract: Contract, spec: InputSpec | OutputSpec) -> bool:
    """Whether each step of a chunk has its own value of `spec`; else one value holds for the whole chunk."""
    return axis_index(chunk_shape(contract, spec), "time") is not None


def empty(shape: tuple[int, ...], dtype: str | np.dtype[Any]) -> Array:
    """Return an uninitialised array whose data begins at a cache line, for vector loads."""
    kind = np.dtype(dtype)
    size = kind.itemsize
    for extent in shape:
        size *= extent
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(kind).reshape(shape)
