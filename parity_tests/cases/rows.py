"""Rows that are not the batch's: merged with bands or agents, or sorted by length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from cases.registry import case

LENGTHS = {"x": "float32[batch, time, 6]", "lengths": "int64[batch] in 1..time"}


@case("rows_of_bands", "layers", states=["rnn.h"], inputs={"x": "float32[batch, time, 3, 4]"})
class Bands(nn.Module):
    """Each band is a sequence of its own, next to those of the same recording."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 5, batch_first=True)

    def forward(self, x):
        batch, time, bands, width = x.shape
        y, _ = self.rnn(x.transpose(1, 2).reshape(batch * bands, time, width))
        return y.view(batch, bands, time, 5).transpose(1, 2)


@case("rows_of_bands_first", "layers", states=["rnn.h", "rnn.c"], inputs={"x": "float32[batch, time, 3, 4]"})
class BandsFirst(nn.Module):
    """The recordings stand next to each other, band by band."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 5)

    def forward(self, x):
        batch, time, bands, width = x.shape
        y, _ = self.rnn(x.permute(1, 2, 0, 3).reshape(time, bands * batch, width))
        return y.view(time, bands, batch, 5).permute(2, 0, 1, 3)


@case("rows_of_agents", "memory", states=["h"], inputs={"x": "float32[batch, 3, 6]"})
class Agents(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.h = nn.GRUCell(6, 8), None

    def forward(self, x):
        batch, agents, width = x.shape
        if self.h is None:
            self.h = torch.zeros(batch * agents, 8)
        self.h = self.cell(x.reshape(batch * agents, width), self.h)
        return self.h.view(batch, agents, 8) * 2


@case("packed_sorted_by_hand", "lengths", states=["rnn.h", "rnn.c"], inputs=LENGTHS)
class Sorted(nn.Module):
    """Packing once wanted its rows sorted by length."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x, lengths):
        lengths, order = lengths.sort(0, descending=True)
        packed = pack_padded_sequence(x[order], lengths.cpu(), batch_first=True)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.size(1))
        return y[torch.argsort(order)]


@case("compiled_module", "layers", states=["rnn.h"], inputs={"x": "float32[batch, time, 6]"})
def compiled():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.into = torch.compile(nn.Linear(6, 6), backend="eager")
            self.rnn = nn.GRU(6, 8, batch_first=True)

        def forward(self, x):
            return self.rnn(self.into(x))[0]

    return torch.compile(Net(), backend="eager")


@case("bands_before_padding", "layers", states=["past", "sum"], inputs={"x": "float32[batch, time, 3, 4]"})
class BandsBeforePadding(nn.Module):
    """Bands beside the batch in one axis: of a causal convolution, and of a running sum."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)

    def forward(self, x):
        batch, time, bands, width = x.shape
        y = x.permute(2, 0, 3, 1).reshape(bands * batch, width, time)
        y = self.conv(F.pad(y, (2, 0))).reshape(bands, batch, width, time).transpose(0, 1)
        y = torch.tanh(torch.cumsum(y.reshape(batch * bands, width, time), -1))
        return y.reshape(batch, bands, width, time).permute(0, 3, 1, 2)
