"""What runs along time runs on: sums, products and extremes."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnnx_export.calls import cumulative
from rnnx_export.calls.kinds import SLOTS
from support.chunks import FEW, Calling, Made, Row, Some, agrees_in_chunks, calls_of, named


def running(call: str, some: Some) -> Made:
    """Along any axis; what is longer than the entries that are taken one by one, too."""
    axis, by_name = some(0, 2), some(0, 1)
    function = getattr(torch, call)

    def forward(x: Tensor) -> Tensor:
        y = function(x, dim=axis - 3) if by_name else function(x, axis)
        return y if isinstance(y, Tensor) else y.values

    others = ["batch", str(some(1, 3))]
    shape = ", ".join([*others[:axis], "time", *others[axis:]])
    longest = 70 if some(0, 3) == 0 else 5
    return Made(Calling(forward), {"x": f"float64[{shape}] in -1..1"}, SLOTS[call], [call], longest=longest)


def whole_numbers(call: str, some: Some) -> Made:
    """Whole numbers and truth values; what is summed has another dtype than they do."""
    function = getattr(torch, call)
    dtype = (torch.uint8, torch.int32, torch.int64, torch.bool)[some(0, 3)]

    def forward(x: Tensor) -> Tensor:
        y = function(x.to(dtype), 1)
        return y if isinstance(y, Tensor) else y.values

    return Made(Calling(forward), {"x": "int64[batch, time, 2] in 0..2"}, SLOTS[call], [call])


def converted(call: str, some: Some) -> Made:
    """Summed in a dtype of its own; a single step is, too."""
    function, dtype = getattr(torch, call), (torch.float64, torch.int64)[some(0, 1)]
    inputs = {"x": "float32[batch, time, 2] in -3..3"}
    return Made(Calling(lambda x: function(x, 1, dtype=dtype)), inputs, SLOTS[call], [call])


CALLS = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
ROWS: list[Row] = [
    *((call, functools.partial(running, call)) for call in CALLS),
    *((call, functools.partial(whole_numbers, call)) for call in CALLS if call != "logcumsumexp"),
    *((call, functools.partial(converted, call)) for call in ("cumsum", "cumprod")),
]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {call for call, _ in ROWS} == calls_of(cumulative)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_a_whole_sequence_equals_any_chunking(row: Row, data: st.DataObject) -> None:
    agrees_in_chunks(data, row)
