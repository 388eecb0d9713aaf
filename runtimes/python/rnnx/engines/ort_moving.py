"""Rows of states, moved between a pool's table and the batch that computes.

On the CPU NumPy copies them. On a device two small graphs do, Gather and ScatterND, so that no state visits
the host; only the row numbers travel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnx.model import protobuf
from rnnx.model.contract import Contract, axis_index
from rnnx.model.onnx_file import ELEMENT_TYPES
from rnnx.model.shapes import Array

# What a mover works on, by state name: made once for each buffer by the mover's `view`.
Buffers = Mapping[str, Any]
State = tuple[int, int, int]  # batch axis, number of axes, ONNX element type
Value = tuple[str, int, int]  # name, number of axes, ONNX element type
_INT64 = 7


def batch_axes(contract: Contract) -> dict[str, int]:
    """Return where each state that has a batch has it."""
    axes = {state.name: axis_index(state.shape, "batch") for state in contract.states}
    return {name: axis for name, axis in axes.items() if axis is not None}


class GraphMover:
    """Moves rows by ONNX graphs that run where the model does.

    Args:
        contract: of the model.
        load: returns an InferenceSession on the right provider.
    """

    def __init__(self, contract: Contract, load: Callable[[bytes], Any]) -> None:
        self._axes = batch_axes(contract)
        states = [
            (self._axes[state.name], len(state.shape), _ELEMENTS[state.dtype])
            for state in contract.states
            if state.name in self._axes
        ]
        self._gather = load(gather_model(states)) if states else None
        self._scatter = load(scatter_model(states)) if states else None

    def view(self, name: str, value: Any, array: Array | None) -> Any:
        """Return ONNX Runtime's own view of a state."""
        return value

    def gather(self, table: Buffers, rows: Array, buffer: Buffers) -> None:
        """Overwrite the states of `buffer` with `rows` of `table`."""
        if self._gather is None:
            return
        binding = self._gather.io_binding()
        binding.bind_cpu_input("rows", np.ascontiguousarray(rows, np.int64))
        for index, name in enumerate(self._axes):
            binding.bind_ortvalue_input(f"table{index}", table[name])
            binding.bind_ortvalue_output(f"buffer{index}", buffer[name])
        self._gather.run_with_iobinding(binding)

    def scatter(self, buffer: Buffers, rows: Array, table: Buffers) -> None:
        """Write the states of `buffer` to `rows` of `table`, in place: what is bound twice is not copied."""
        if self._scatter is None:
            return
        binding = self._scatter.io_binding()
        for index, (name, axis) in enumerate(self._axes.items()):
            places = _places(tuple(buffer[name].shape()[:axis]), rows)
            binding.bind_cpu_input(f"places{index}", places)
            binding.bind_ortvalue_input(f"buffer{index}", buffer[name])
            binding.bind_ortvalue_input(f"old{index}", table[name])
            binding.bind_ortvalue_output(f"table{index}", table[name])
        self._scatter.run_with_iobinding(binding)


def _places(leading: tuple[int, ...], rows: Array) -> Array:
    """Return int64 [*leading, rows, axis + 1]: where in the table each block behind the batch axis goes."""
    grid = np.indices((*leading, len(rows)), np.int64)
    grid[-1] = rows
    return np.ascontiguousarray(np.moveaxis(grid, 0, -1))


_ELEMENTS = {name: number for number, name in ELEMENT_TYPES.items()}


def gather_model(states: list[State]) -> bytes:
    """Return an ONNX model: buffer[i] = the given rows of table[i] along the batch axis.

    Args:
        states: (batch axis, number of axes, ONNX element type) of each.
    """
    nodes, takes, gives = b"", [("rows", 1, _INT64)], []
    for index, (axis, rank, kind) in enumerate(states):
        takes.append((f"table{index}", rank, kind))
        gives.append((f"buffer{index}", rank, kind))
        nodes += _node("Gather", [f"table{index}", "rows"], f"buffer{index}", axis=axis)
    return _model(nodes, takes, gives)


def scatter_model(states: list[State]) -> bytes:
    """Return an ONNX model: table[i] = old[i] with buffer[i] at places[i]. `states` as for `gather_model`."""
    nodes, takes, gives = b"", [], []
    for index, (axis, rank, kind) in enumerate(states):
        takes += [(f"old{index}", rank, kind), (f"buffer{index}", rank, kind)]
        takes.append((f"places{index}", axis + 2, _INT64))
        gives.append((f"table{index}", rank, kind))
        nodes += _node("ScatterND", [f"old{index}", f"places{index}", f"buffer{index}"], f"table{index}")
    return _model(nodes, takes, gives)


def _node(operator: str, takes: list[str], gives: str, **attributes: int) -> bytes:
    body = b"".join(protobuf.encode_bytes(1, name.encode()) for name in takes)
    body += protobuf.encode_bytes(2, gives.encode()) + protobuf.encode_bytes(4, operator.encode())
    for name, value in attributes.items():
        body += protobuf.encode_bytes(
            5,
            protobuf.encode_bytes(1, name.encode())
            + protobuf.encode_int(3, value)
            + protobuf.encode_int(20, 2),
        )
    return protobuf.encode_bytes(1, body)


def _model(nodes: bytes, takes: list[Value], gives: list[Value]) -> bytes:
    """Return a model of operator set 17 whose tensors have any sizes."""
    graph = nodes + protobuf.encode_bytes(2, b"rows")
    for number, values in ((11, takes), (12, gives)):
        for name, rank, kind in values:
            shape = protobuf.encode_bytes(2, protobuf.encode_bytes(1, b"") * rank)
            tensor = protobuf.encode_bytes(2, protobuf.encode_bytes(1, protobuf.encode_int(1, kind) + shape))
            graph += protobuf.encode_bytes(number, protobuf.encode_bytes(1, name.encode()) + tensor)
    return (
        protobuf.encode_int(1, 8)
        + protobuf.encode_bytes(7, graph)
        + protobuf.encode_bytes(8, protobuf.encode_int(2, 17))
    )
