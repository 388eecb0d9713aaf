"""What stands in front of time is the stream's last frames: paddings, joins and padded convolutions."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.calls import padding
from support.chunks import (
    FEW,
    Calling,
    Made,
    Row,
    Some,
    agrees_in_chunks,
    agrees_late,
    calls_of,
    named,
    normal,
)

POOLS = [f"{kind}_pool{axes}d" for kind in ("avg", "max") for axes in (1, 2, 3)]


class Convolution(nn.Module):
    """A convolution padded on both sides of time, whose frames after the end are cut off."""

    def __init__(self, layer: nn.Module, axis: int, after: int) -> None:
        super().__init__()
        self.layer, self.axis, self.after = layer, axis, after

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y[tuple(slice(None, -self.after) if a == self.axis else slice(None) for a in range(y.dim()))]


class Behind(nn.Module):
    """A layer that looks ahead, behind something that no row begins with as zeros."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(1 + x.tanh())


def convolution(spatial: int, some: Some) -> Made:
    """Time is any of its axes; the others have a padding of their own."""
    time, kernel, dilation, groups = some(0, spatial - 1), some(2, 4), some(1, 3), some(1, 2)
    kernels, sides, dilations = [some(1, 3) for _ in range(spatial)], [some(0, 1)] * spatial, [1] * spatial
    kernels[time], sides[time], dilations[time] = kernel, dilation * (kernel - 1), dilation
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1](
        2 * groups, groups, kernels, padding=sides, dilation=dilations, groups=groups, bias=bool(some(0, 1))
    )
    shape = ["batch", str(2 * groups), *["time" if axis == time else "3" for axis in range(spatial)]]
    made = Convolution(layer.double(), time + 2, sides[time])
    return Made(made, {"x": f"float64[{', '.join(shape)}]"}, ["past"], ["conv"])


def padded(some: Some) -> Made:
    """A padding of any number in front of time, and of the features too; each frame sees those before it."""
    frames, features = some(1, 4), (some(0, 2), some(0, 1))
    fill = float(some(-1, 1))

    def function(x: Tensor) -> Tensor:
        joined = F.pad(x, (*features, frames, 0), value=fill)
        return joined.unfold(1, frames + 1, 1).contiguous()

    return Made(Calling(function), {"x": f"float64[batch, time, {some(1, 3)}]"}, ["past"], ["pad"])


def shifted(way: str, some: Some) -> Made:
    """Padded in front and cut at the end: by a slice before, or by a padding of less than nothing."""
    frames = some(1, 4)

    def function(x: Tensor) -> Tensor:
        if way == "slice":
            return F.pad(x[:, :-frames], (0, 0, frames, 0)) - x
        return F.pad(x, (0, 0, frames, -frames)) - x

    inputs = {"x": "float64[batch, time, 2]"}
    return Made(Calling(function), inputs, ["past"], ["pad"], shortest=frames)


def hopping(some: Some) -> Made:
    """Steps of several samples, with windows longer than a step."""
    hop, more = some(2, 4), some(1, 4)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv1d(F.pad(x.unsqueeze(1), (more, 0)), weight, stride=hop)

    made = Calling(function, normal(3, 1, hop + more))
    return Made(
        made, {"x": f"float64[batch, {hop}*time]" if hop > 1 else "float64[batch, time]"}, ["past"], ["pad"]
    )


def joined(call: str, some: Some) -> Made:
    """A learned past in front; each frame sees those before it."""
    frames, axis, by_name = some(1, 4), some(1, 2), some(0, 1)
    past = normal(1, *((frames, 2) if axis == 1 else (2, frames)))
    cat = getattr(torch, call)

    def function(x: Tensor, past: Tensor) -> Tensor:
        parts = [past.expand(x.shape[0], -1, -1), x]
        both = cat(parts, axis=axis) if by_name else cat(parts, axis - 3)
        steps = x.shape[axis]
        return torch.stack([both.narrow(axis, place, steps) for place in range(frames + 1)], -1)

    shape = "batch, time, 2" if axis == 1 else "batch, 2, time"
    return Made(Calling(function, past), {"x": f"float64[{shape}]"}, ["past"], ["cat"])


def joined_and_cut(some: Some) -> Made:
    frames, fill = some(1, 3), float(some(-1, 1))

    def function(x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[:, :frames], fill), x[:, :-frames]], 1) * x

    inputs = {"x": "float64[batch, time, 2]"}
    return Made(Calling(function), inputs, ["past"], ["cat"], shortest=frames)


def pooled(call: str, some: Some) -> Made:
    """A window of two frames, padded on both sides of time, whose frame after the end is cut off."""
    kind, spatial = call[:3], int(call[-2])
    time = some(0, spatial - 1)
    sizes, sides = [some(2, 3) for _ in range(spatial)], [some(0, 1)] * spatial
    sizes[time], sides[time] = 2, 1
    layer = getattr(nn, f"{kind.capitalize()}Pool{spatial}d")(sizes, [1] * spatial, sides)
    shape = ["batch", "2", *["time" if axis == time else "4" for axis in range(spatial)]]
    made = Convolution(layer, time + 2, 1)
    inputs = {"x": f"float64[{', '.join(shape)}]"}
    return Made(made, inputs, ["past"], ["pool"], shortest=2)


def window(kind: str, some: Some) -> Made:
    """Windows around each frame: padded by a call of its own, or by a filter or a pooling itself."""
    reach, hop = some(1, 3), some(1, 2)
    groups = some(1, 2)
    if kind == "pad":
        left, right = some(0, 3), some(1, 4)

        def function(x: Tensor) -> Tensor:
            return F.pad(x, (left, right), value=0.5).unfold(2, left + right + hop, hop)

        made: nn.Module = Calling(function)
    elif kind == "conv":
        layer = nn.Conv1d(2, 2, hop * (1 + 2 * reach), hop, padding=hop * reach, groups=groups)
        made = Behind(layer.double())
    else:
        made = Behind((nn.AvgPool1d, nn.MaxPool1d)[some(0, 1)](hop * (1 + 2 * reach), hop, hop * reach))
    steps = f"{hop}*time" if hop > 1 else "time"
    return Made(made, {"x": f"float64[batch, 2, {steps}]"}, ["past"], [kind])


ROWS: list[Row] = [
    *((f"conv{spatial}d", functools.partial(convolution, spatial)) for spatial in (1, 2, 3)),
    ("pad", padded),
    *(("pad", functools.partial(shifted, way)) for way in ("slice", "negative padding")),
    ("pad", hopping),
    *((call, functools.partial(joined, call)) for call in ("cat", "concat", "concatenate")),
    ("cat", joined_and_cut),
    *((call, functools.partial(pooled, call)) for call in POOLS),
]
AHEAD: list[Row] = [(kind, functools.partial(window, kind)) for kind in ("pad", "conv", "pool")]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {call for call, _ in ROWS} == calls_of(padding)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_a_whole_sequence_equals_any_chunking(row: Row, data: st.DataObject) -> None:
    agrees_in_chunks(data, row)


@pytest.mark.parametrize("row", AHEAD, ids=named)
@FEW
@given(st.data())
def test_what_looks_ahead_gives_late_what_the_whole_gives(row: Row, data: st.DataObject) -> None:
    agrees_late(data, row)
