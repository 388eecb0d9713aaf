"""Images of another size: each axis by itself, its elements weighted sums of a few old ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, need, op
from rnnx_native.lowering.ops.shapes import first, take
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.loop_nests import nest
from rnnx_native.program.values import Array, Value
from rnnx_native.refusals import refuse

# How a place that lies between two elements becomes one of them.
_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@op(
    "Resize 11-19 antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside "
    "extrapolation_value keep_aspect_ratio_policy mode nearest_mode"
)
def resize(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a change of size, nearest, linear or cubic, along one axis after the other."""
    value, name = first(inputs), node.outputs[0]
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refuse(node, "keep_aspect_ratio_policy")
    scales, sizes = (
        need(node, tensor, what).reshape(-1).tolist() if tensor is not None else []
        for tensor, what in zip([*inputs[2:], None, None][:2], ("scales", "sizes"), strict=True)
    )
    axes = node.attributes.get("axes", list(range(len(value.shape))))
    for place, axis in enumerate(axes):
        old = value.shape[axis]
        new = int(sizes[place]) if sizes else math.floor(old * scales[place])
        scale = new / old if sizes else scales[place]
        if scale != 1:
            value = _weighted(low, value, axis, *_taps(node, old, new, scale), name)
    return [value]


def _taps(node: Node, old: int, new: int, scale: float) -> tuple[Array, Array]:
    """Return which old elements each new one is made of, and their weights: both [new, taps]."""
    x = _places(node, old, new, scale)
    mode = node.attributes.get("mode", "nearest")
    if mode == "nearest":
        chosen = _NEAREST[node.attributes.get("nearest_mode", "round_prefer_floor")](x)
        return chosen.clip(0, old - 1).astype(np.int64)[:, None], np.ones((new, 1))
    if node.attributes.get("antialias", 0) and scale < 1:
        raise refuse(node, "antialias")
    whole = np.floor(x)
    rest = (x - whole)[:, None]
    if mode == "linear":
        spots, weights = np.arange(2), np.concatenate([1 - rest, rest], 1)
    else:
        spots = np.arange(-1, 3)
        weights = _cubic(np.abs(rest - spots), node.attributes.get("cubic_coeff_a", -0.75))
    elements = (whole[:, None] + spots).astype(np.int64)
    if node.attributes.get("exclude_outside", 0):
        weights = np.where((elements >= 0) & (elements < old), weights, 0)
        weights = weights / weights.sum(1, keepdims=True)
    return elements.clip(0, old - 1), weights


def _places(node: Node, old: int, new: int, scale: float) -> Array:
    """Return where the centre of each new element lies among the old ones."""
    x = np.arange(new, dtype=np.float64)
    coordinates = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if coordinates == "asymmetric":
        return x / scale
    if coordinates == "align_corners":
        return x * (old - 1) / max(new - 1, 1)
    if coordinates == "half_pixel_symmetric":
        return old / 2 * (1 - new / (scale * old)) + (x + 0.5) / scale - 0.5
    if coordinates == "pytorch_half_pixel" and new == 1:
        return x
    if coordinates not in ("half_pixel", "pytorch_half_pixel"):
        raise refuse(node, f"coordinate_transformation_mode {coordinates!r}")
    return (x + 0.5) / scale - 0.5


def _cubic(apart: Array, a: float) -> Array:
    """Return the weight of elements so far away (Keys 1981)."""
    near = ((a + 2) * apart - (a + 3)) * apart**2 + 1
    far = ((a * apart - 5 * a) * apart + 8 * a) * apart - 4 * a
    return np.where(apart <= 1, near, np.where(apart < 2, far, 0.0))


def _weighted(low: Lowering, value: Value, axis: int, elements: Array, weights: Array, name: str) -> Value:
    """Return sums of `elements` along an axis, times `weights`."""
    new, taps = elements.shape
    if taps == 1:
        return take(low, value, elements[:, 0], axis, name)
    program = low.program
    out = program.new(name, value.dtype, (*value.shape[:axis], new, *value.shape[axis + 1 :]))
    places = program.constant(elements.astype(np.int32), f"{name}.elements", learned=False)
    factors = program.constant(weights.astype(value.dtype), f"{name}.weights", learned=False)
    before, after, old = math.prod(value.shape[:axis]), math.prod(value.shape[axis + 1 :]), value.shape[axis]

    def body(names: list[str]) -> list[str]:
        i, o, j = names
        tap = f"[{o} * {taps} + k]"
        element = program.at(value, f"({i} * {old} + {places.token}{tap}) * {after} + {j}")
        return [
            "{",
            f"  {out.ctype} sum = 0;",
            f"  for (int k = 0; k < {taps}; k++) sum += {factors.token}{tap} * {element};",
            f"  {program.at(out, f'({i} * {new} + {o}) * {after} + {j}')} = sum;",
            "}",
        ]

    program.emit(nest([before, new, after], body), [value], [out])
    program.use(places, factors)
    return out
