"""Cells no kernel has: other activations, clip, peepholes, a reset gate before the product."""

from __future__ import annotations

import numpy as np

from rnnx_native.lowering.lower import Lowering
from rnnx_native.lowering.ops.layer import Layer
from rnnx_native.lowering.ops.linear import dense
from rnnx_native.program.loop_nests import nest, view
from rnnx_native.program.values import Value, literal


def plain_step(
    low: Lowering, layer: Layer, h: Value, c: Value | None, h_old: Value, c_old: Value | None, x: Value
) -> None:
    """Emit one step: gates [batch, gates * units] by dense layers, then the equations in a loop.

    Args:
        h, c: where the new state goes, [batch, units].
        h_old, c_old: the state before.
        x: [1, batch, features].
    """
    if layer.node.op == "LSTM":
        assert c is not None
        assert c_old is not None
        _lstm(low, layer, h, c, h_old, c_old, x)
    elif layer.node.op == "GRU":
        _gru(low, layer, h, h_old, x)
    else:
        _rnn(low, layer, h, h_old, x)


def _product(low: Lowering, layer: Layer, value: Value, gates: slice, *, of: str, bias: bool = True) -> Value:
    """Return weights times `value`, [batch, gates * units]."""
    weights, biases = (layer.w, layer.wb) if of == "input" else (layer.r, layer.rb)
    chosen = weights[gates].reshape(-1, weights.shape[2])
    flat = view(low.program.placed(value), (layer.x.shape[1], chosen.shape[1]))
    label = f"{layer.label}_{of}"
    start = biases[gates].reshape(-1) if bias else np.zeros(len(chosen), chosen.dtype)
    return dense(low, flat, chosen.T, start, f"{label}.gates", learned=layer.learned, label=label)


def _loop(low: Lowering, layer: Layer, lines: list[str], reads: list[Value], writes: list[Value]) -> None:
    low.program.emit(nest([layer.x.shape[1], layer.units], lambda names: ["{", *lines, "}"]), reads, writes)


def _function(layer: Layer, index: int, argument: str) -> str:
    return "(" + layer.functions[index].replace("{0}", f"({argument})") + ")"


def _clipped(layer: Layer, name: str) -> list[str]:
    """Return lines that hold a gate within the node's clip."""
    if "clip" not in layer.node.attributes:
        return []
    bound = literal(layer.node.attributes["clip"], layer.x.dtype)
    return [f"  {name} = {name} > {bound} ? {bound} : {name} < -{bound} ? -{bound} : {name};"]


def _gate(low: Lowering, value: Value, index: int, gates: int, units: int) -> str:
    return low.program.at(value, f"i0 * {gates * units} + {index * units} + i1")


def _rnn(low: Lowering, layer: Layer, h: Value, h_old: Value, x: Value) -> None:
    from_x = _product(low, layer, x, slice(None), of="input")
    from_h = _product(low, layer, h_old, slice(None), of="hidden")
    units, kind = layer.units, h.ctype
    total = f"{_gate(low, from_x, 0, 1, units)} + {_gate(low, from_h, 0, 1, units)}"
    target = low.program.at(h, f"i0 * {units} + i1")
    lines = [f"  {kind} a = {total};", *_clipped(layer, "a"), f"  {target} = {_function(layer, 0, 'a')};"]
    _loop(low, layer, lines, [from_x, from_h], [h])


def _gru(low: Lowering, layer: Layer, h: Value, h_old: Value, x: Value) -> None:
    """h' = (1 - z) * n + z * h; the reset gate multiplies h, or the product of h if linear_before_reset."""
    program, units, kind = low.program, layer.units, h.ctype
    after = bool(layer.node.attributes.get("linear_before_reset", 0))
    from_x = _product(low, layer, x, slice(None), of="input")
    from_h = _product(low, layer, h_old, slice(None) if after else slice(0, 2), of="hidden")
    wide = 3 if after else 2
    here = f"i0 * {units} + i1"
    z = program.new(f"{layer.label}.z", layer.x.dtype, h.shape)
    reset = program.new(f"{layer.label}.reset", layer.x.dtype, h.shape)
    lines = []
    for index, target in ((0, z), (1, reset)):
        total = f"{_gate(low, from_x, index, 3, units)} + {_gate(low, from_h, index, wide, units)}"
        name = f"a{index}"
        lines += [f"  {kind} {name} = {total};", *_clipped(layer, name)]
        end = "" if after or index == 0 else f" * {program.at(h_old, here)}"
        lines.append(f"  {program.at(target, here)} = {_function(layer, 0, name)}{end};")
    _loop(low, layer, lines, [from_x, from_h, h_old], [z, reset])
    if after:
        last, product = f"{program.at(reset, here)} * {_gate(low, from_h, 2, 3, units)}", from_h
    else:
        product = _product(low, layer, reset, slice(2, 3), of="hidden")
        last = program.at(product, here)
    lines = [f"  {kind} a = {_gate(low, from_x, 2, 3, units)} + {last};", *_clipped(layer, "a")]
    keep = program.at(z, here)
    lines.append(f"  {kind} n = {_function(layer, 1, 'a')};")
    lines.append(f"  {program.at(h, here)} = (1 - {keep}) * n + {keep} * {program.at(h_old, here)};")
    _loop(low, layer, lines, [from_x, product, reset, z, h_old], [h])


def _lstm(low: Lowering, layer: Layer, h: Value, c: Value, h_old: Value, c_old: Value, x: Value) -> None:
    """i, f see the old cell through their peepholes, o the new one."""
    program, units, kind = low.program, layer.units, h.ctype
    from_x = _product(low, layer, x, slice(None), of="input")
    from_h = _product(low, layer, h_old, slice(None), of="hidden")
    here, reads = f"i0 * {units} + i1", [from_x, from_h, c_old]
    lines = [
        f"  {kind} {name} = {_gate(low, from_x, index, 4, units)} + {_gate(low, from_h, index, 4, units)};"
        for index, name in enumerate(("i", "o", "f", "g"))
    ]
    lines.append(f"  {kind} old = {program.at(c_old, here)}, cell;")
    peeps = ["", "", ""]
    if layer.p is not None:
        held = program.constant(layer.p, f"{layer.label}_peepholes", learned=layer.learned)
        peeps = [f"{held.token}[{index * units} + i1]" for index in range(3)]
        lines += [f"  i += {peeps[0]} * old;", f"  f += {peeps[2]} * old;"]
    for name in ("i", "f", "g"):
        lines += _clipped(layer, name)
    lines += [f"  i = {_function(layer, 0, 'i')};", f"  g = {_function(layer, 1, 'g')};"]
    coupled = layer.node.attributes.get("input_forget", 0)
    lines.append("  f = 1 - i;" if coupled else f"  f = {_function(layer, 0, 'f')};")
    lines.append("  cell = f * old + i * g;")
    if layer.p is not None:
        lines.append(f"  o += {peeps[1]} * cell;")
    lines += [*_clipped(layer, "o"), f"  o = {_function(layer, 0, 'o')};"]
    lines.append(f"  {program.at(c, here)} = cell;")
    lines.append(f"  {program.at(h, here)} = o * {_function(layer, 2, 'cell')};")
    _loop(low, layer, lines, reads, [h, c])
    if layer.p is not None:
        program.use(held)
