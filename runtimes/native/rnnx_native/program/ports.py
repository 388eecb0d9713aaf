"""What a compiled model takes, gives and carries, as C sees it: ports, each an array with a shape."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnx.model.contract import (
    Axis,
    Contract,
    Dimension,
    InputSpec,
    OutputSpec,
    StateSpec,
    axis_index,
    default_array,
    initial_array,
    range_text,
    resolve,
    step_shape,
)
from rnnx_native.program.c_names import distinct
from rnnx_native.program.values import C_TYPES, Array, Shape

PORT_TYPES = {**C_TYPES, "float16": "uint16_t"}
# Members of the structs that are no ports.
_MEMBERS = ("weights", "kernels", "work", "buffer_index", "position", "step", "single")


@dataclasses.dataclass(frozen=True)
class Port:
    """An input, an output or a state.

    Attributes:
        kind: `input`, `output` or `state`.
        name: in the contract.
        c_name: in the struct it is a member of.
        dtype: in the contract; float16 is `uint16_t` in C.
        axes: its shape in the graph, as the contract has it.
        step: shape of one step, batch and free dimensions filled in.
        start: what a state starts as, what an optional input takes unless given; of the step's shape.
        is_length: whether it counts the valid steps of a call.
        varies: whether `start` differs from element to element: it then belongs to the weights.
        remark: what else one has to know: an input's range, how late an output is; "" for nothing.
        start_name: what `start` is called among the weights where it varies.
    """

    kind: str
    name: str
    c_name: str
    dtype: str
    axes: tuple[Dimension, ...]
    step: Shape
    start: Array | None
    is_length: bool = False
    varies: bool = False
    remark: str = ""
    start_name: str = ""

    @property
    def ctype(self) -> str:
        """C type of an element."""
        return PORT_TYPES[self.dtype]

    @property
    def size(self) -> int:
        """Number of elements in one step."""
        return math.prod(self.step)

    @property
    def has_batch(self) -> bool:
        """Whether each row of the batch has its own."""
        return axis_index(self.axes, "batch") is not None

    @property
    def has_time(self) -> bool:
        """Whether each step of a chunk has its own."""
        return axis_index(self.axes, "time") is not None

    @property
    def shown(self) -> str:
        """The shape as a comment shows it: `[batch=1, 257]`."""
        axes = [Axis.parse(axis) for axis in self.axes if axis != "time"]
        parts = [
            f"{axis.name}={size}" if axis.name not in ("", "time") else str(size)
            for axis, size in zip(axes, self.step, strict=True)
        ]
        return f"[{', '.join(parts)}]"

    def lies(self, axis: str) -> tuple[int, int, int]:
        """Return (before, elements, after) around `axis` in one step's shape.

        A chunk of T steps or a batch of B rows is `before` times T (or B) times `elements * after` elements.
        For the batch `elements` is 1 whatever this model was compiled for.
        """
        index = axis_index(self.axes, axis)
        assert index is not None
        sizes = list(self.step)
        if axis == "time":
            factor = Axis.parse(self.axes[index]).factor
            if self.axes[index] == "time":
                sizes.insert(index, 1)
            return math.prod(sizes[:index]), factor, math.prod(sizes[index + 1 :])
        time = axis_index(self.axes, "time")
        index -= int(time is not None and time < index and self.axes[time] == "time")
        return math.prod(sizes[:index]), 1, math.prod(sizes[index + 1 :])


@dataclasses.dataclass(frozen=True)
class Signature:
    """All ports of a model at one batch.

    Attributes:
        contract: that it follows.
        sizes: of batch and the free dimensions.
        inputs, outputs, states: in the order of the contract.
    """

    contract: Contract
    sizes: Mapping[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...]

    @property
    def ports(self) -> tuple[Port, ...]:
        """All of them."""
        return (*self.inputs, *self.outputs, *self.states)

    @property
    def has_free_rows(self) -> bool:
        """Whether rows of a batch share nothing, so that streams can be put together as one batch."""
        return has_free_rows(self.contract)

    @property
    def has_time(self) -> bool:
        """Whether the graph has a time axis; else it is a step model."""
        return self.contract.has_time

    def shape(self, port: Port, batch: int, time: int) -> Shape:
        """Return the shape of a port in the graph."""
        return resolve(port.axes, {**self.sizes, "batch": batch, "time": time})


def has_free_rows(contract: Contract) -> bool:
    """Whether rows of a batch share nothing, so that streams can be put together as one batch."""
    shapes = [spec.shape for spec in contract.inputs] + [spec.shape for spec in contract.outputs]
    shapes += [state.shape for state in contract.states]
    return all(axis_index(shape, "batch") is not None for shape in shapes)


def signature(contract: Contract, sizes: Mapping[str, int], gives: Mapping[str, Shape]) -> Signature:
    """Return the ports of a model.

    Args:
        contract: of the model.
        sizes: of batch and all free dimensions.
        gives: shapes of one step, by output name, for outputs whose shape the contract leaves open.
    """
    names = {
        kind: dict(zip([s.name for s in specs], distinct([s.name for s in specs], _MEMBERS), strict=True))
        for kind, specs in (
            ("input", contract.inputs),
            ("output", contract.outputs),
            ("state", contract.states),
        )
    }

    def port(kind: str, spec: Any) -> Port:
        step = (
            gives[spec.name] if kind == "output" and spec.name in gives else resolve(step_shape(spec), sizes)
        )
        start, varies = _start(spec, step, sizes)
        return Port(
            kind,
            spec.name,
            names[kind][spec.name],
            spec.dtype,
            tuple(spec.shape),
            step,
            start,
            isinstance(spec, InputSpec) and spec.role == "length",
            varies,
            _remark(spec),
        )

    return Signature(
        contract,
        dict(sizes),
        tuple(port("input", spec) for spec in contract.inputs),
        tuple(port("output", spec) for spec in contract.outputs),
        tuple(port("state", spec) for spec in contract.states),
    )


def _remark(spec: InputSpec | OutputSpec | StateSpec) -> str:
    if isinstance(spec, InputSpec):
        return range_text(spec)
    if isinstance(spec, OutputSpec):
        return f", {spec.delay} step{'s' if spec.delay > 1 else ''} late" if spec.delay else ""
    return ", 1 says that the sequence is over" if spec.role == "ended" else ""


def _start(
    spec: InputSpec | OutputSpec | StateSpec, step: Shape, sizes: Mapping[str, int]
) -> tuple[Array | None, bool]:
    if isinstance(spec, StateSpec):
        return initial_array(spec, sizes), isinstance(spec.initial, list)
    if isinstance(spec, InputSpec) and spec.default is not None:
        return default_array(spec, step), False
    if isinstance(spec, InputSpec) and spec.role == "length":
        return np.ones(step, np.int64), False
    return None, False
