"""What counts the steps of a call goes on counting."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnnx_export.calls import positions, shifts
from support.chunks import FEW, Calling, Made, Row, Some, agrees_in_chunks, calls_of, named, normal


def counted(way: str, some: Some) -> Made:
    """From 0 or another start, by 1 or another stride, of any dtype."""
    start, stride = some(0, 3), some(1, 3)
    dtype = (torch.int64, torch.float64)[some(0, 1)]

    def function(x: Tensor) -> Tensor:
        steps = x.shape[1]
        if way == "count":
            places = torch.arange(steps, dtype=dtype)
        elif way == "start":
            places = torch.arange(start, start + steps, dtype=dtype)
        elif way == "stride":
            places = torch.arange(start, start + stride * steps, stride, dtype=dtype)
        else:
            places = torch.arange(start, start + stride * steps, step=stride, dtype=dtype)
        return x * places[:, None]

    inputs = {"x": "float64[batch, time, 2]"}
    return Made(Calling(function), inputs, ["position"], ["arange"], fallbacks=["arange"])


def looked_up(some: Some) -> Made:
    """The first rows of a table, or of a table's other axis."""
    axis = some(0, 1)
    table = normal(40, 2) if axis == 0 else normal(2, 40)

    def function(x: Tensor, table: Tensor) -> Tensor:
        steps = x.shape[1]
        return x + (table[:steps] if axis == 0 else table[:, :steps].T)

    inputs = {"x": "float64[batch, time, 2]"}
    return Made(Calling(function, table), inputs, ["position"], ["first"], fallbacks=["first"])


ROWS: list[Row] = [
    *(("arange", functools.partial(counted, way)) for way in ("count", "start", "stride", "named stride")),
    ("__getitem__", looked_up),
]


def test_every_call_of_the_module_has_a_row() -> None:
    """Indices come here by way of the shifts, which look at them first."""
    assert {call for call, _ in ROWS} == calls_of(positions) | {"__getitem__"}
    assert "__getitem__" in calls_of(shifts)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_a_whole_sequence_equals_any_chunking(row: Row, data: st.DataObject) -> None:
    agrees_in_chunks(data, row)
