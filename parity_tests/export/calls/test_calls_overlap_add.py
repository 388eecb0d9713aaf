"""Calls that spread frames over entries which others add to: the last frames are carried."""

from __future__ import annotations

import functools

import pytest
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.calls import overlap_add
from support.chunks import FEW, Calling, Made, Row, Some, agrees_in_chunks, agrees_late, calls_of, named


class Transposed(nn.Module):
    """A transposed convolution, whose entries behind those of the last frame are cut off."""

    def __init__(self, layer: nn.Module, axis: int, stride: int) -> None:
        super().__init__()
        self.layer, self.axis, self.stride = layer, axis, stride

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).narrow(self.axis, 0, x.shape[self.axis] * self.stride)


def transposed(spatial: int, some: Some) -> Made:
    """Time is any of its axes; the others may be padded, which cuts them on both sides."""
    time, stride, dilation, groups = some(0, spatial - 1), some(1, 3), some(1, 2), some(1, 2)
    kernels, sides = [some(1, 3) for _ in range(spatial)], [some(0, 1)] * spatial
    strides, dilations = [some(1, 2) for _ in range(spatial)], [1] * spatial
    kernels[time] = stride + some(1, 4)
    sides[time], strides[time], dilations[time] = 0, stride, dilation
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[spatial - 1](
        2 * groups, groups, kernels, strides, sides, groups=groups, bias=bool(some(0, 1)), dilation=dilations
    )
    shape = ["batch", str(2 * groups), *["time" if axis == time else "4" for axis in range(spatial)]]
    made = Transposed(layer.double(), time + 2, stride)
    return Made(made, {"x": f"float64[{', '.join(shape)}]"}, ["past"], ["conv_transpose"])


def folded(some: Some) -> Made:
    """Frames [batch, entries, time] added up in a line, lying or standing, of one channel or two."""
    hop, more, channels, lies = some(1, 3), some(1, 4), some(1, 2), some(0, 1)
    length = hop + more

    def along(size: int) -> tuple[int, int]:
        return (1, size) if lies else (size, 1)

    def function(x: Tensor) -> Tensor:
        steps = x.shape[-1]
        y = F.fold(x, along((steps - 1) * hop + length), along(length), stride=along(hop))
        return y.flatten(2)[..., : steps * hop]

    return Made(Calling(function), {"x": f"float64[batch, {channels * length}, time]"}, ["past"], ["fold"])


def cut_in_front(some: Some) -> Made:
    """A transposed convolution that is padded along time, which cuts off elements in front too."""
    stride, reach, dilation = some(1, 3), some(1, 4), some(1, 2)
    kernel = -(-(stride + 2 * reach - 1) // dilation) + 1
    behind = dilation * (kernel - 1) + 1 - stride - 2 * reach  # elements that are too many
    layer = nn.ConvTranspose1d(2, 3, kernel, stride, padding=reach, dilation=dilation).double()
    return Made(
        Transposed(layer, 2, stride),
        {"x": "float64[batch, 2, time]"},
        ["past"],
        ["conv_transpose"],
        shortest=1 + behind,
    )


ROWS: list[Row] = [
    *((f"conv_transpose{spatial}d", functools.partial(transposed, spatial)) for spatial in (1, 2, 3)),
    ("fold", folded),
]


AHEAD: list[Row] = [("conv_transpose1d", cut_in_front)]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {call for call, _ in ROWS} == calls_of(overlap_add)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_a_whole_sequence_equals_any_chunking(row: Row, data: st.DataObject) -> None:
    agrees_in_chunks(data, row)


@pytest.mark.parametrize("row", AHEAD, ids=named)
@FEW
@given(st.data())
def test_what_waits_for_frames_gives_late_what_the_whole_gives(row: Row, data: st.DataObject) -> None:
    agrees_late(data, row)
