"""`tensor.data = value` becomes a copy into the tensor, which capture sees."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.calls import assignment
from rnnx_export.calls.tracer import CallTracer
from support.chunks import FEW, Made, Row, Some, agrees_in_chunks, calls_of, named, normal


class Leak(nn.Module):
    """A parameter that is set through `.data`, step by step."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.level = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for frame in x.unbind(1):
            self.level.data = 0.5 * self.level.data + frame.mean(0)
            rows.append(frame + self.level.data)
        return torch.stack(rows, 1)


def leaking(some: Some) -> Made:
    width = some(1, 3)
    return Made(Leak(normal(width)), {"x": f"float64[1, time, {width}]"}, ["level"], [])


ROWS: list[Row] = [("__set__", leaking)]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {call for call, _ in ROWS} == calls_of(assignment)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_a_whole_sequence_equals_any_chunking(row: Row, data: st.DataObject) -> None:
    agrees_in_chunks(data, row)


class Set(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value
        self.register_buffer("held", torch.zeros(2, 3))

    def forward(self) -> None:
        self.held.data = self.value


@pytest.mark.parametrize(
    ("value", "copied"),
    [
        (torch.ones(2, 3), True),
        (torch.ones(3, 2), False),
        (torch.ones(2, 3, dtype=torch.float64), False),
    ],
    ids=["alike", "another shape", "another dtype"],
)
def test_the_tensor_keeps_its_memory_where_the_values_fit(value: Tensor, copied: bool) -> None:
    module = Set(value)
    held, place = module.held, module.held.data_ptr()
    with CallTracer(module):
        module()
    assert module.held is held
    assert torch.equal(held, value)
    assert (held.data_ptr() == place) is copied
    assert (held.data_ptr() == value.data_ptr()) is not copied
