"""Recurrent layers and cells: their state is what they end with."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.calls import recurrent
from rnnx_export.calls.tracer import CallTracer
from support.chunks import FEW, Made, Row, Some, agrees_in_chunks, calls_of, named, normal

LAYERS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": functools.partial(nn.RNN, nonlinearity="relu"),
}
CELLS = {
    "lstm_cell": nn.LSTMCell,
    "gru_cell": nn.GRUCell,
    "rnn_tanh_cell": nn.RNNCell,
    "rnn_relu_cell": functools.partial(nn.RNNCell, nonlinearity="relu"),
}


def slots(call: str) -> list[str]:
    return ["h", "c"] if call.startswith("lstm") else ["h"]


class Layer(nn.Module):
    """A layer that starts from nothing, or from a learned start which is the same in all rows."""

    def __init__(self, layer: nn.RNNBase, starts: list[Tensor]) -> None:
        super().__init__()
        self.layer, self.starts = layer, nn.ParameterList(starts)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0 if self.layer.batch_first else 1]
        start = tuple(value.expand(-1, batch, -1).contiguous() for value in self.starts)
        return self.layer(x, (start if len(start) == 2 else start[0]) if start else None)[0]


class Loop(nn.Module):
    """A cell in a loop over time that starts from nothing."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state, rows = None, []
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
            rows.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(rows, 1)


def layer(call: str, some: Some) -> Made:
    width, hidden, layers = some(1, 4), some(1, 4), some(1, 2)
    first, learned = bool(some(0, 1)), bool(some(0, 1))
    projected = some(1, hidden - 1) if call == "lstm" and hidden > 1 and some(0, 1) else 0
    options = {"proj_size": projected} if projected else {}
    made = LAYERS[call](width, hidden, layers, bias=bool(some(0, 1)), batch_first=first, **options).double()
    widths = [projected or hidden, hidden][: len(slots(call))]
    starts = [normal(layers, 1, size) for size in widths] if learned else []
    shape = f"batch, time, {width}" if first else f"time, batch, {width}"
    return Made(Layer(made, starts), {"x": f"float64[{shape}]"}, slots(call), [call])


def cell(call: str, some: Some) -> Made:
    width = some(1, 4)
    made = CELLS[call](width, some(1, 4), bias=bool(some(0, 1))).double()
    return Made(Loop(made), {"x": f"float64[batch, time, {width}]"}, slots(call), [call], longest=1)


ROWS: list[Row] = [
    *((call, functools.partial(layer, call)) for call in LAYERS),
    *((call, functools.partial(cell, call)) for call in CELLS),
]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {call for call, _ in ROWS} == calls_of(recurrent)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_a_whole_sequence_equals_any_chunking(row: Row, data: st.DataObject) -> None:
    agrees_in_chunks(data, row)


@pytest.mark.parametrize("call", LAYERS)
def test_a_layer_of_both_directions_is_recorded_as_one_that_looks_everywhere(call: str) -> None:
    made, x = LAYERS[call](3, 2, batch_first=True, bidirectional=True), torch.randn(2, 4, 3)
    with torch.no_grad(), CallTracer(made) as tracer:
        y = made(x)[0]
    assert [(one.kind, one.axes) for one in tracer.recordings] == [("bidirectional", {1: 0})]
    torch.testing.assert_close(y, made(x)[0])
