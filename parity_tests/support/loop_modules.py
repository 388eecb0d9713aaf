"""Hand-written loops over time whose memory nobody declares, and what has to be carried for them."""

from __future__ import annotations

from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnx_export.calls.kinds import SHIFTS

X = {"x": "float64[batch, time, 3]"}


class Leak(nn.Module):
    """One value, used once."""

    def forward(self, x: Tensor) -> Tensor:
        h, rows = torch.zeros_like(x[:, 0]), []
        for frame in x.unbind(1):
            h = 0.9 * h + frame
            rows.append(h)
        return torch.stack(rows, 1)


class Growing(nn.Module):
    """The rows are joined one by one to what begins as nothing."""

    def forward(self, x: Tensor) -> Tensor:
        h, rows = torch.zeros_like(x[:, 0]), torch.empty(0, dtype=x.dtype)
        for step in range(x.shape[1]):
            h = torch.tanh(h + x[:, step])
            rows = torch.cat([rows, h.unsqueeze(1)], 1)
        return rows


class TwoValues(nn.Module):
    """Each with a learned start; the second is fed by the first, and used in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.randn(3, dtype=torch.float64)) for _ in range(2))
        self.mix = nn.Linear(3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first.expand(x.shape[0], 3), self.second.expand(x.shape[0], 3)
        rows = []
        for frame in x.unbind(1):
            a = torch.tanh(self.mix(a) + frame)
            b = 0.5 * b + torch.sigmoid(b) * a
            rows.append(b)
        return torch.stack(rows, 1)


class Taps(nn.Module):
    """The last two inputs, in a deque."""

    def forward(self, x: Tensor) -> Tensor:
        past = deque([torch.zeros_like(x[:, 0])] * 2, maxlen=2)
        rows = []
        for frame in x.unbind(1):
            rows.append(frame - 0.5 * past[-1] + 0.25 * past[-2])
            past.append(frame)
        return torch.stack(rows, 1)


class Counted(nn.Module):
    """The number of the step counts, as a factor and as the row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(40, 3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        h, rows = torch.zeros_like(x[:, 0]), []
        for step in range(x.shape[1]):
            h = 0.5 * h + x[:, step] * (step + 1) + self.table[step]
            rows.append(h)
        return torch.stack(rows, 1)


class BehindFilter(nn.Module):
    """A padded convolution over the chunk, and a loop behind it: its last frames are carried by the call."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(3, 3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.filter(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
        h, rows = torch.zeros_like(y[:, 0]), []
        for frame in y.unbind(1):
            h = 0.9 * h + frame
            rows.append(h)
        return torch.stack(rows, 1)


class KeptAndLost(nn.Module):
    """One value is kept in a buffer from call to call, and one that follows it is begun anew."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(1, 3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        h, rows = torch.zeros_like(x[:, 0]), []
        for frame in x.unbind(1):
            self.level = 0.9 * self.level + frame
            h = torch.tanh(h + self.level)
            rows.append(h + torch.cos(self.level))
        return torch.stack(rows, 1)


class AfterShift(nn.Module):
    """A loop over differences, the first of them 0: the steps before are carried by calls, as a fallback."""

    def forward(self, x: Tensor) -> Tensor:
        change = torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], 1)
        h, rows = torch.zeros_like(x[:, 0]), []
        for step in range(x.shape[1]):
            h = 0.9 * h + change[:, step] ** 2
            rows.append(h)
        return torch.stack(rows, 1)


class TwoBack(nn.Module):
    """The last two values of itself, in a list that grows: two steps alone do not tell them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(9, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        rows = [torch.zeros_like(x[:, 0])] * 2
        for frame in x.unbind(1):
            rows.append(torch.tanh(self.into(torch.cat([frame, rows[-1], rows[-2]], -1))))
        return torch.stack(rows[2:], 1)


class OwnWeights(nn.Module):
    """Each step has weights of its own: no step is like another."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.randn(3, dtype=torch.float64)) for _ in range(20)]
        )

    def forward(self, x: Tensor) -> Tensor:
        h, rows = torch.zeros_like(x[:, 0]), []
        for step, frame in enumerate(x.unbind(1)):
            h = h * self.weights[step] + frame
            rows.append(h)
        return torch.stack(rows, 1)


# What is carried, beside what calls carry.
CARRIED: dict[type[nn.Module], list[str]] = {
    Leak: ["h"],
    Growing: ["h"],
    TwoValues: ["b", "a"],
    Taps: ["carried", "past"],
    Counted: ["h", "position"],
    BehindFilter: ["h"],
    KeptAndLost: ["h"],
    AfterShift: ["h"],
    TwoBack: ["rows", "rows_2"],
}
# Kinds of calls that have to be lifted for it, as a fallback.
FALLBACKS: dict[type[nn.Module], tuple[str, ...]] = {AfterShift: SHIFTS}
