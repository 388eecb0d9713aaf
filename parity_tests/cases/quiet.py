"""Memory that random inputs leave alone: hold states, peaks, states that fade to rounding within a step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

STEP = {"x": "float32[batch, 6]"}
X = {"x": "float32[batch, time, 6]"}


@case("hold_in_place", "memory", states=["tripped"], inputs={"x": "float32[6]"})
class HoldInPlace(nn.Module):
    """No random input is above 9: the buffer is written with what it holds already."""

    def __init__(self):
        super().__init__()
        self.register_buffer("tripped", torch.zeros((), dtype=torch.bool))

    def forward(self, x):
        self.tripped |= (x > 9).any()
        return torch.where(self.tripped, 0.0, x)


@case("hold_assigned", "memory", states=["peak"], inputs={"x": "float32[6]"})
class HoldAssigned(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("peak", torch.full((6,), 9.0))

    def forward(self, x):
        self.peak = torch.maximum(self.peak, x)
        return x / self.peak


@case("table_made_anew", "memory", states=[], inputs=STEP)
class TableMadeAnew(nn.Module):
    """What is written before it is read is no memory."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.register_buffer("table", torch.zeros(6, 6))

    def forward(self, x):
        self.table = F.normalize(self.weight, dim=1)
        return x @ self.table


@case("hold_in_loop", "loops", states=["tripped"], route="scan", inputs=X)
class HoldInLoop(nn.Module):
    def forward(self, x):
        tripped = torch.zeros_like(x[:, 0])
        ys = []
        for t in range(x.shape[1]):
            tripped = torch.maximum(tripped, (x[:, t] > 9).to(x.dtype))
            ys.append(x[:, t] * (1 - tripped))
        return torch.stack(ys, 1)


@case("loop_that_forgets_fast", "loops", states=["conv.past", "h"], route="scan", inputs=X)
class ForgetsFast(nn.Module):
    """A gated recurrence of which a step keeps less than a thousandth (De et al. 2024): nearly rounding."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 6, 3, groups=6, padding=2)
        self.gate = nn.Linear(6, 6)

    def forward(self, x):
        u = self.conv(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)
        keep = torch.exp(-16 * torch.sigmoid(self.gate(u)))
        h = torch.zeros_like(u[:, 0])
        ys = []
        for t in range(x.shape[1]):
            h = keep[:, t] * h + u[:, t]
            ys.append(h)
        return torch.stack(ys, 1)


@case("hold_beside_cell", "loops", states=["h", "tripped"], route="scan", inputs=X)
class HoldBesideCell(nn.Module):
    """Where a cell carries what a random input moves, hold state is easily overlooked."""

    def __init__(self, limit=900):
        super().__init__()
        self.cell, self.limit = nn.GRUCell(6, 8), limit

    def forward(self, x):
        h, tripped = x.new_zeros(x.shape[0], 8), x.new_zeros(x.shape[0], 1)
        ys = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            tripped = torch.maximum(tripped, (x[:, t, :1] > self.limit).to(x.dtype))
            ys.append(h * (1 - tripped))
        return torch.stack(ys, 1)
