"""Windows that slide over the last axes of a tensor: what convolutions and pooling have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rnnx_native.lowering.lower import Lowering
from rnnx_native.lowering.ops.shapes import padded
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program.values import Shape, Value, contiguous


@dataclasses.dataclass(frozen=True)
class Windows:
    """Where windows lie over the axes behind the first two.

    Attributes:
        kernel: elements of a window along each axis.
        dilations: distance between two of them.
        strides: distance between two windows.
        before, after: elements that are thought around the tensor.
        places: number of windows.
    """

    kernel: list[int]
    dilations: list[int]
    strides: list[int]
    before: list[int]
    after: list[int]
    places: list[int]

    @property
    def spans(self) -> list[int]:
        """Distance from a window's first element to its last."""
        return spans_of(self.kernel, self.dilations)

    def around(self, low: Lowering, x: Value, fill: Value) -> Value:
        """Return x [rows, channels, ...] with `fill` around it, as far as windows reach."""
        ends = [
            (n - 1) * s + span + 1 for n, s, span in zip(self.places, self.strides, self.spans, strict=True)
        ]
        if not any(self.before) and all(end <= e for end, e in zip(ends, x.shape[2:], strict=True)):
            return x
        shape = [
            *x.shape[:2],
            *(max(e + b, end) for e, b, end in zip(x.shape[2:], self.before, ends, strict=True)),
        ]
        return padded(low, f"{x.name}.padded", x, shape, [0, 0, *self.before], fill)

    def steps(self, shape: Shape) -> tuple[list[int], list[int]]:
        """Return the strides in a tensor of `shape` from window to window, and within a window."""
        own = contiguous(shape)[2:]
        between = [stride * step for stride, step in zip(self.strides, own, strict=True)]
        return between, [apart * step for apart, step in zip(self.dilations, own, strict=True)]


def spans_of(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Return the distance from a window's first element to its last, along each axis."""
    return [(size - 1) * apart for size, apart in zip(kernel, dilations, strict=True)]


def read_windows(node: Node, extents: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Return the windows of a convolution or of pooling over axes of these extents."""
    axes = len(kernel)
    dilations = list(node.attributes.get("dilations", [1] * axes))
    strides = list(node.attributes.get("strides", [1] * axes))
    spans = spans_of(kernel, dilations)
    before, after = read_pads(
        node,
        [(-(-e // s) - 1) * s + span + 1 - e for e, s, span in zip(extents, strides, spans, strict=True)],
    )
    places = []
    for extent, span, step, b, a in zip(extents, spans, strides, before, after, strict=True):
        last = extent + b + a - span - 1
        count = (-(-last // step) if node.attributes.get("ceil_mode", 0) else last // step) + 1
        # A window must not begin behind the tensor and what stands before it.
        places.append(count - 1 if (count - 1) * step >= extent + b else count)
    return Windows(list(kernel), dilations, strides, before, after, places)


def read_pads(node: Node, total: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return how many elements stand before and after each axis; `total` is what auto_pad shares out."""
    axes = len(total)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return shared_out([max(pad, 0) for pad in total], more_after=mode == "SAME_UPPER")
    pads = [0] * (2 * axes) if mode == "VALID" else node.attributes.get("pads", [0] * (2 * axes))
    return list(pads[:axes]), list(pads[axes:])


def shared_out(total: Sequence[int], *, more_after: bool) -> tuple[list[int], list[int]]:
    """Return halves of `total` before and after each axis; an odd one is more on one side."""
    small, large = [each // 2 for each in total], [each - each // 2 for each in total]
    return (small, large) if more_after else (large, small)
