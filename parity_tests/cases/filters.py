"""Loops with several earlier values at hand: filters, and networks over delayed inputs and outputs."""

from __future__ import annotations

from collections import deque

import torch
from torch import nn

from cases.registry import case

X = {"x": "float32[batch, time, 2]"}


@case(
    "loop_biquads",
    "loops",
    states=["carried", "x_1", "y_2", "x_1_2", "y_3", "x_1_3", "y_4", "x_1_4"],
    route="scan",
    inputs=X,
)
class Biquads(nn.Module):
    """Two filters of second order, one after the other."""

    def __init__(self):
        super().__init__()
        self.b, self.a = nn.Parameter(torch.rand(2, 3) / 2), nn.Parameter(torch.rand(2, 2) / 4)

    def forward(self, x):
        for b, a in zip(self.b, self.a, strict=True):
            x_1 = x_2 = y_1 = y_2 = torch.zeros_like(x[:, 0])
            ys = []
            for t in range(x.shape[1]):
                y = b[0] * x[:, t] + b[1] * x_1 + b[2] * x_2 - a[0] * y_1 - a[1] * y_2
                x_2, x_1, y_2, y_1 = x_1, x[:, t], y_1, y
                ys.append(y)
            x = torch.stack(ys, 1)
        return x


@case("loop_fourth_order", "loops", states=["y_2", "old", "old_2", "old_3"], route="scan", inputs=X)
class FourthOrder(nn.Module):
    """The oldest output shows in the fifth step first."""

    def forward(self, x):
        old = [torch.zeros_like(x[:, 0])] * 4
        ys = []
        for t in range(x.shape[1]):
            y = x[:, t] - 0.5 * old[0] - 0.2 * old[1] - 0.05 * old[2] + 0.1 * old[3]
            old = [y, *old[:3]]
            ys.append(y)
        return torch.stack(ys, 1)


@case("loop_narx", "loops", states=["carried", "xs", "xs_2", "y_2"], route="scan", inputs=X)
class Narx(nn.Module):
    """A network of this and two earlier inputs, and two earlier outputs (Lin et al. 1996)."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x):
        xs = [torch.zeros_like(x[:, 0])] * 2
        ys = list(xs)
        for t in range(x.shape[1]):
            y = self.net(torch.cat([x[:, t], *xs, *ys[-2:]], -1))
            xs = [x[:, t], xs[0]]
            ys.append(y)
        return torch.stack(ys[2:], 1)


@case(
    "loop_window",
    "loops",
    states=["frames", "frames_2", "frames_3", "frames_4", "frames_5", "frames_6", "carried"],
    route="scan",
    inputs=X,
)
class Window(nn.Module):
    """The last eight frames in a deque."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        frames = deque([torch.zeros_like(x[:, 0])] * 8, maxlen=8)
        ys = []
        for t in range(x.shape[1]):
            frames.append(x[:, t])
            ys.append(self.out(torch.cat(list(frames), -1)))
        return torch.stack(ys, 1)
