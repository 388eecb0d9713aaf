"""Scan: a body that runs once a step, its states carried from one iteration to the next."""

from __future__ import annotations

import dataclasses

from rnnx_native.lowering.lower import Inputs, Lowering, op
from rnnx_native.onnx_graph.read import Graph, Node
from rnnx_native.program.loop_nests import copy_strided, permuted, view
from rnnx_native.program.program import Program
from rnnx_native.program.values import Value, contiguous


@op(
    "Scan 9-25 body num_scan_inputs scan_input_axes scan_input_directions scan_output_axes "
    "scan_output_directions"
)
def scan(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a Scan: the body itself for a single iteration, else a loop around it."""
    body: Graph = node.attributes["body"]
    present = [value for value in inputs if value is not None]
    count = node.attributes["num_scan_inputs"]
    carried, scanned = present[: len(present) - count], present[len(present) - count :]
    directions = node.attributes.get("scan_input_directions") or [0] * count
    axes = node.attributes.get("scan_input_axes") or [0] * count
    rows = [_time_first(low, value, axis) for value, axis in zip(scanned, axes, strict=True)]
    iterations = rows[0].shape[0]
    made = len(body.outputs) - len(carried)
    back = node.attributes.get("scan_output_directions") or [0] * made
    out_axes = node.attributes.get("scan_output_axes") or [0] * made
    around = dict(low.scope)
    if iterations == 1:
        finals, stacked = _once(low, body, around, carried, rows)
    else:
        finals, stacked = _loop(low, node, body, around, carried, rows, directions, back, iterations)
    results = [
        _time_to(low, value, axis, name)
        for value, axis, name in zip(stacked, out_axes, node.outputs[len(carried) :], strict=True)
    ]
    return [*finals, *results]


def _once(
    low: Lowering, body: Graph, around: dict[str, Value], carried: list[Value], rows: list[Value]
) -> tuple[list[Value], list[Value]]:
    bound = dict(zip(body.inputs, [*carried, *(view(row, row.shape[1:]) for row in rows)], strict=True))
    values = low.run(body, around | bound)
    found = [values[name] for name in body.outputs]
    finals = found[: len(carried)]
    return finals, [view(value, (1, *value.shape)) for value in found[len(carried) :]]


def _loop(
    low: Lowering,
    node: Node,
    body: Graph,
    around: dict[str, Value],
    carried: list[Value],
    rows: list[Value],
    directions: list[int],
    back: list[int],
    iterations: int,
) -> tuple[list[Value], list[Value]]:
    program = low.program
    states = [_own_copy(program, value, f"{node.name}.{body.inputs[i]}") for i, value in enumerate(carried)]
    stacked: list[Value] = []
    with program.loop(iterations) as iteration:
        parts = []
        for row, direction in zip(rows, directions, strict=True):
            place = f"({iterations - 1} - {iteration})" if direction else iteration
            part = _part(program, row, place)
            token_ids = None if row.token_ids is None else _part(program, row.token_ids, place)
            parts.append(dataclasses.replace(part, token_ids=token_ids))
        values = low.run(body, around | dict(zip(body.inputs, [*states, *parts], strict=True)))
        found = [values[name] for name in body.outputs]
        for value, name, direction in zip(
            found[len(carried) :], node.outputs[len(carried) :], back, strict=True
        ):
            whole = program.new(name or f"{node.name}.unused", value.dtype, (iterations, *value.shape))
            assert whole.buffer is not None
            whole.buffer.outside = True
            place = (
                f"({iterations - 1} - {iteration}) * {value.size}"
                if direction
                else f"{iteration} * {value.size}"
            )
            target = view(whole, value.shape, offset=place)
            copy_strided(program, target, value, value.shape, contiguous(value.shape), 0)
            stacked.append(whole)
        _hand_on(program, states, found[: len(carried)])
    return states, stacked


def _part(program: Program, row: Value, place: str) -> Value:
    """Return element `place` of the first axis."""
    return view(program.placed(row), row.shape[1:], offset=f"{place} * {row.size // row.shape[0]}")


def _own_copy(program: Program, value: Value, name: str) -> Value:
    """Return a copy of a state that the loop may overwrite."""
    out = program.new(name, value.dtype, value.shape)
    assert out.buffer is not None
    out.buffer.fixed = True
    copy_strided(program, out, value, value.shape, contiguous(value.shape), 0)
    return out


def _hand_on(program: Program, states: list[Value], finals: list[Value]) -> None:
    """Emit the copies that make each iteration's results the next iteration's states."""
    held = {state.buffer for state in states}
    safe = []
    for state, final in zip(states, finals, strict=True):
        if final.buffer in held and final.buffer is not state.buffer:
            # It is another state, which an earlier copy may overwrite.
            final = _own_copy(program, final, f"{final.name}.kept")
        safe.append(final)
    for state, final in zip(states, safe, strict=True):
        if final.buffer is not state.buffer:
            copy_strided(program, state, final, state.shape, contiguous(state.shape), 0)


def _time_first(low: Lowering, value: Value, axis: int) -> Value:
    axis %= len(value.shape)
    order = [axis, *(other for other in range(len(value.shape)) if other != axis)]
    return permuted(low.program, value, order, value.name)


def _time_to(low: Lowering, value: Value, axis: int, name: str) -> Value:
    axis %= len(value.shape)
    order = list(range(1, len(value.shape)))
    order.insert(axis, 0)
    return permuted(low.program, value, order, name)
