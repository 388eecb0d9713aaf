"""A model at one batch and one number of steps, as a program: ports bound, nodes lowered, results placed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

import rnnx_native.lowering.ops  # noqa: F401  registers the operators' writers
from rnnx.errors import ModelError
from rnnx.model.contract import Contract, OutputSpec, StateSpec, resolve
from rnnx_native.lowering.lower import Lowering
from rnnx_native.onnx_graph.read import Graph
from rnnx_native.program.loop_nests import copy_strided
from rnnx_native.program.ports import PORT_TYPES
from rnnx_native.program.program import Program, Weights
from rnnx_native.program.values import Shape, Value, contiguous


@dataclasses.dataclass(frozen=True)
class Built:
    """A program and the buffers through which it is called.

    Attributes:
        batch, time: the sizes it is for; time is 1 in a step model.
        program: its statements.
        parameters: names of the function's parameters in order, `input.NAME`, `state.NAME`, `output.NAME` and
            `next.NAME`, with the buffer of each.
        gives: shape of each output in the graph.
    """

    batch: int
    time: int
    program: Program
    parameters: dict[str, int]
    gives: dict[str, Shape]


def build(
    graph: Graph, contract: Contract, sizes: Mapping[str, int], weights: Weights, *, batch: int, time: int
) -> Built:
    """Lower a model.

    Args:
        graph: as read.
        contract: of the model.
        sizes: of the free dimensions.
        weights: shared by all programs of the model.
        batch, time: what it is for.

    Raises:
        ModelError: `cannot-compile`.
    """
    program = Program(f"rows_{batch}_steps_{time}", weights)
    dims = {**sizes, "batch": batch, "time": time}
    parameters: dict[str, int] = {}
    bound: dict[str, Value] = {}
    for spec in contract.inputs:
        shape = resolve(spec.shape, dims)
        bound[spec.name] = _bound_input(program, f"input.{spec.name}", spec.dtype, shape, parameters)
    for state in contract.states:
        shape = resolve(state.shape, dims)
        bound[state.input] = _bound_input(program, f"state.{state.name}", state.dtype, shape, parameters)
    values = Lowering(program).run(graph, bound)
    gives: dict[str, Shape] = {}
    for output in contract.outputs:
        value = _result(values, output.name)
        _check(output, value, dims)
        _bound_output(program, f"output.{output.name}", output.dtype, value, parameters)
        gives[output.name] = value.shape
    for state in contract.states:
        value = _result(values, state.output)
        _check(state, value, dims)
        _bound_output(program, f"next.{state.name}", state.dtype, value, parameters)
    return Built(batch, time, program, parameters, gives)


def _result(values: Mapping[str, Value], name: str) -> Value:
    if name not in values:
        raise ModelError(
            "cannot-compile",
            expected=f"a node that gives the graph's output {name!r}",
            found="none",
            fix="export the model again",
        )
    return values[name]


def _bound_input(program: Program, name: str, dtype: str, shape: Shape, parameters: dict[str, int]) -> Value:
    """Return what comes in: float16 widened to float, everything else as it lies there."""
    buffer = program.buffer("input", PORT_TYPES[dtype], shape, name)
    parameters[name] = buffer.number
    if dtype != "float16":
        return Value(name, np.dtype(dtype), shape, buffer=buffer)
    wide = program.new(f"{name}.wide", np.float32, shape)
    call = f"rnnx_widen({program.ref(wide)}, {buffer.token}, {math.prod(shape)});"
    program.emit([call], [], [wide])
    program.use(buffer)
    return wide


def _bound_output(program: Program, name: str, dtype: str, value: Value, parameters: dict[str, int]) -> None:
    """Let a result be computed in the caller's memory; copy it there where it cannot be."""
    if dtype == "float16":
        value = program.placed(value)
        target = program.buffer("output", "uint16_t", value.shape, name)
        program.emit([f"rnnx_narrow({target.token}, {program.ref(value)}, {value.size});"], [value], [])
        program.statements[-1].writes.append(target)
        parameters[name] = target.number
        return
    own = value.buffer
    alone = own is not None and own.kind == "scratch" and own.parent is None
    if own is not None and alone and value.offset == "0" and value.size == own.size:
        own.kind, own.label = "output", name
        parameters[name] = own.number
        return
    target = program.buffer("output", PORT_TYPES[dtype], value.shape, name)
    parameters[name] = target.number
    out = Value(name, value.dtype, value.shape, buffer=target)
    copy_strided(program, out, value, value.shape, contiguous(value.shape), 0)


def _check(spec: OutputSpec | StateSpec, value: Value, dims: Mapping[str, int]) -> None:
    """A result whose type or shape is not the contract's would be read wrongly by the caller."""
    dtype, name = spec.dtype, spec.name
    wide = "float32" if dtype == "float16" else dtype
    try:
        expected = resolve(spec.shape, dims)
    except KeyError:
        expected = value.shape
    if value.dtype.name != wide or value.shape != expected:
        raise ModelError(
            "cannot-compile",
            expected=f"{name!r} as {dtype}{list(expected)}",
            found=f"{value.dtype}{list(value.shape)} after lowering the graph",
            fix="run this model with provider cpu",
        )
