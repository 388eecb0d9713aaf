"""Shifts along time by cutting and filling, and sums in double precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

STEP = {"x": "float32[batch, 6]"}
X = {"x": "float32[batch, time, 6]"}


@case("roll_masked", "causal", states=["past", "position"], inputs=X)
class RollMasked(nn.Module):
    """What came round is overwritten, in the stream's first step and not in each call's."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(12, 4)

    def forward(self, x):
        before = torch.roll(x, 1, dims=1)
        before[:, 0] = 0
        return self.out(torch.cat([x, before], -1))


@case("shift_by_assignment", "causal", states=["past", "position"], inputs=X)
class ByAssignment(nn.Module):
    def forward(self, x):
        before = torch.full_like(x, 0.5)
        before[:, 2:] = x[:, : x.size(1) - 2]
        return x - before


@case("difference_prepended", "causal", states=["past", "rnn.h"], inputs=X)
class Prepended(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(12, 8, batch_first=True)

    def forward(self, x):
        change = torch.diff(x, dim=1, prepend=torch.zeros_like(x[:, :1]))
        return self.rnn(torch.cat([x, change], -1))[0]


@case("returns_of_prices", "causal", inputs={"price": "float32[batch, time] in 1..2"})
class Returns(nn.Module):
    """The first return is 0, not the logarithm of the first price."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(1, 8, batch_first=True)

    def forward(self, price):
        log = price.log()
        change = torch.cat([torch.zeros_like(log[:, :1]), log[:, 1:] - log[:, :-1]], 1)
        return self.rnn(change.unsqueeze(-1))[0]


@case("differences_twice", "causal", inputs=X)
class Twice(nn.Module):
    def forward(self, x):
        once = F.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0))
        return torch.cat([x, F.pad(torch.diff(once, dim=1), (0, 0, 1, 0))], -1)


@case("difference_from_first", "causal", states=["past", "position"], inputs=X)
class FromFirst(nn.Module):
    """The first difference is 0: what stands before the first step is that step."""

    def forward(self, x):
        return torch.diff(x, dim=1, prepend=x[:, :1])


@case(
    "padded_with_first",
    "causal",
    states=["past", "position", "past_2", "position_2"],
    inputs={"x": "float32[batch, 4, time]"},
)
class PaddedWithFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 4, 3, dilation=2)

    def forward(self, x):
        y = self.one(F.pad(x, (2, 0), mode="replicate")).relu()
        return self.two(F.pad(y, (4, 0), mode="replicate"))


@case("double_sum", "causal", states=["position", "sum"], inputs=X)
class DoubleSum(nn.Module):
    """A mean in double precision of float32 values: it has their rounding."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 6)

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1, dtype=torch.float64)
        mean = torch.cumsum(self.into(x).double(), 1) / count[:, None]
        return x - mean.float()


@case("double_mean_in_buffer", "memory", states=["mean", "count"], inputs=STEP)
class DoubleMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 6)
        self.register_buffer("mean", torch.zeros(1, 6, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        y = torch.tanh(self.into(x))
        self.count = self.count + 1
        self.mean = self.mean + (y.double() - self.mean) / self.count
        return y - self.mean.float()
