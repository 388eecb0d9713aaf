"""Packed sequences are kept padded: rows of any lengths, also where a row has no step in a chunk."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnx_export.calls import packed
from rnnx_export.calls.kinds import SLOTS
from support.chunks import FEW, Made, Row, Some, agrees_in_chunks, calls_of, named

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}


class Packed(nn.Module):
    """A layer over rows of their own lengths.

    Args:
        way: who puts the rows in the order of their lengths: torch, or the module itself.
    """

    def __init__(self, layer: nn.RNNBase, way: str, padding: float) -> None:
        super().__init__()
        self.layer, self.way, self.padding = layer, way, padding

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        first = self.layer.batch_first
        order = None
        axis = 0 if first else 1
        if self.way == "by sort":  # an index by name is not looked at
            lengths, order = torch.sort(lengths, descending=True)
            x = torch.index_select(x, dim=axis, index=order)
        elif self.way == "by selection":
            order = torch.argsort(lengths, descending=True)
            x, lengths = x.index_select(axis, order), lengths.index_select(0, order)
        elif self.way == "by index":
            order = torch.argsort(lengths, descending=True)
            x, lengths = x[order] if first else x[:, order], lengths[order]
        sequence = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=order is not None)
        y, _ = pad_packed_sequence(
            self.layer(sequence)[0], first, self.padding, total_length=x.shape[1 if first else 0]
        )
        return y if order is None else y.index_select(axis, torch.argsort(order))


def layer(way: str, some: Some) -> Made:
    call, width, first = list(LAYERS)[some(0, 2)], some(1, 3), bool(some(0, 1))
    inner = LAYERS[call](width, some(1, 3), some(1, 2), batch_first=first).double()
    module = Packed(inner, way, float(some(-1, 1)))
    shape = f"batch, time, {width}" if first else f"time, batch, {width}"
    inputs = {"x": f"float64[{shape}]", "lengths": "int64[batch] in 1..time"}
    return Made(module, inputs, SLOTS[call], [call])


ROWS: list[Row] = [
    ("_pack_padded_sequence", functools.partial(layer, "by torch")),
    ("_pad_packed_sequence", functools.partial(layer, "by torch")),
    ("sort", functools.partial(layer, "by sort")),
    ("index_select", functools.partial(layer, "by selection")),
    ("_pack_padded_sequence", functools.partial(layer, "by index")),
]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {call for call, _ in ROWS} == calls_of(packed)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_a_whole_sequence_equals_any_chunking(row: Row, data: st.DataObject) -> None:
    agrees_in_chunks(data, row)
