"""A packed sequence that was kept padded unpacks to what PyTorch's does."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnx_export.calls.packing import Packing
from support.chunks import FEW, some_of


@FEW
@given(st.data())
def test_what_is_packed_and_unpacked_is_what_pytorch_gives(data: st.DataObject) -> None:
    """Rows in an order of their lengths or in none, of which one has all steps, as PyTorch cuts the rest."""
    some = some_of(data)
    batch, time, first, fill = some(1, 4), some(1, 5), bool(some(0, 1)), float(some(-1, 1))
    lengths = torch.tensor([time, *(some(1, time) for _ in range(batch - 1))])[torch.randperm(batch)]
    x = torch.randn((batch, time, 2) if first else (time, batch, 2))
    packing = Packing()
    rows, stand_in = packing.pack(x, lengths, first)
    got, said = packing.unpack(rows, stand_in, first, fill)
    theirs = pack_padded_sequence(x, lengths, first, enforce_sorted=False)
    expected, counts = pad_packed_sequence(theirs, first, fill)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert torch.equal(said, counts)
    assert rows.dim() == theirs.data.dim()


def test_a_layer_is_given_rows_first_and_gives_them_back_as_they_were_packed() -> None:
    x, lengths, packing = torch.randn(5, 3, 2), torch.tensor([5, 2, 1]), Packing()
    rows, stand_in = packing.pack(x, lengths, False)
    sequence = packing.open(rows, stand_in)
    assert torch.equal(sequence.x, x.transpose(0, 1))
    assert torch.equal(sequence.lengths, lengths)
    assert sequence.order is None
    assert torch.equal(sequence.close(sequence.x), rows)


def test_rows_put_in_order_before_are_remembered_and_no_others() -> None:
    x, order, packing = torch.randn(3, 4, 2), torch.tensor([2, 0, 1]), Packing()
    lengths = torch.tensor([4, 3, 1])
    for value in (x, lengths):
        again = Packing()
        assert again.select(value, order) is value
        assert again.open(*again.pack(x, lengths, True)).order is order
    assert packing.open(*packing.pack(x, lengths, True)).order is None


def test_only_the_stand_in_tells_the_rows() -> None:
    x, packing = torch.randn(3, 4, 2), Packing()
    _, stand_in = packing.pack(x, torch.tensor([4, 3, 1]), True)
    assert packing.is_batch_sizes(stand_in)
    assert not packing.is_batch_sizes(stand_in.clone())
    assert packing.batch(stand_in) == 3
