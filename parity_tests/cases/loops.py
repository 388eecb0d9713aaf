"""Loops over time as people write them: states handed in, made inside, or kept by torch's loop operators."""

from __future__ import annotations

import torch
from torch import nn

from cases.registry import case

X = {"x": "float32[batch, time, 6]"}
H = "float32[batch, 8]"


@case("loop_unbind", "loops", states=["h"], route="scan", inputs=X, state={"h": H})
class Unbind(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(6, 8)

    def forward(self, x, h):
        ys = []
        for xt in torch.unbind(x, 1):
            h = self.cell(xt, h)
            ys.append(h)
        return torch.stack(ys, 1), h


@case("loop_prealloc", "loops", states=["h"], route="scan", inputs=X, state={"h": H})
class Prealloc(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, h):
        y = torch.empty(x.shape[0], x.shape[1], 8)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            y[:, t] = h
        return y, h


@case(
    "loop_time_first",
    "loops",
    states=["h"],
    route="scan",
    inputs={"x": "float32[time, batch, 6]"},
    state={"h": H},
)
class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, h):
        ys = []
        for xt in x:
            h = self.cell(xt, h)
            ys.append(h)
        return torch.stack(ys), h


@case("loop_cell_from_nothing", "loops", states=["cell.h", "cell.c"], route="scan", inputs=X)
class FromNothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)

    def forward(self, x):
        state = None
        ys = []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            ys.append(state[0])
        return torch.stack(ys, 1)


@case("loop_own_zeros", "loops", route="scan", inputs=X)
class OwnZeros(nn.Module):
    """The state is made inside forward and thrown away: h by plain equations, from zeros."""

    def __init__(self):
        super().__init__()
        self.w, self.u = nn.Linear(6, 8), nn.Linear(8, 8, bias=False)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 8)
        ys = []
        for t in range(x.shape[1]):
            h = torch.tanh(self.w(x[:, t]) + self.u(h))
            ys.append(h)
        return torch.stack(ys, 1)


@case("loop_own_zeros_two", "loops", route="scan", inputs=X)
class OwnZerosTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.n = nn.Linear(14, 8), nn.Linear(14, 8)
        self.start = nn.Parameter(torch.randn(8))

    def forward(self, x):
        h, slow = self.start.expand(x.shape[0], 8), x.new_zeros(x.shape[0], 8)
        ys = []
        for t in range(x.shape[1]):
            joined = torch.cat([x[:, t], h], -1)
            f = torch.sigmoid(self.f(joined))
            h = f * h + (1 - f) * torch.tanh(self.n(joined))
            slow = 0.9 * slow + 0.1 * h
            ys.append(h - slow)
        return torch.stack(ys, 1)


@case("loop_scan_operator", "loops", states=["h"], inputs=X, state={"h": H})
class ScanOperator(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.u = nn.Linear(6, 8), nn.Linear(8, 8, bias=False)

    def forward(self, x, h):
        from torch._higher_order_ops.scan import scan

        def step(h, xt):
            h = torch.tanh(self.w(xt) + self.u(h))
            return h, h.clone()

        h, ys = scan(step, h, x, dim=1)
        return ys.movedim(0, 1), h


@case("loop_while_operator", "loops", states=["h"], inputs=X, state={"h": H})
class WhileOperator(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.u = nn.Linear(6, 8), nn.Linear(8, 8, bias=False)

    def forward(self, x, h):
        from torch._higher_order_ops.while_loop import while_loop

        def more(t, h, y):
            return t < x.shape[1]

        def step(t, h, y):
            h = torch.tanh(self.w(x.index_select(1, t.reshape(1))[:, 0]) + self.u(h))
            return t + 1, h, y.index_copy(1, t.reshape(1), h[:, None])

        y = torch.zeros(x.shape[0], x.shape[1], 8)
        _, h, y = while_loop(more, step, (torch.tensor(0), h, y))
        return y, h


@case("loop_own_state_sru", "loops", route="scan", inputs=X)
class SruFromNothing(nn.Module):
    """The products are taken for all steps at once, the recurrence from zeros of its own."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 18)

    def forward(self, x):
        u, f, r = self.lin(x).chunk(3, -1)
        f, r = torch.sigmoid(f), torch.sigmoid(r)
        c = torch.zeros_like(x[:, 0])
        hs = []
        for t in range(x.size(1)):
            c = f[:, t] * c + (1 - f[:, t]) * u[:, t]
            hs.append(r[:, t] * torch.tanh(c) + (1 - r[:, t]) * x[:, t])
        return torch.stack(hs, 1)


@case("loop_own_state_in_a_layer", "loops", route="scan", inputs=X)
class DeepLoop(nn.Module):
    """Two hand-written layers, each with its own loop, its own zeros and a preallocated result."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([_OwnLoop(6, 8), _OwnLoop(8, 5)])
        self.out = nn.Linear(5, 2)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


class _OwnLoop(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.w, self.u, self.n = nn.Linear(d, n), nn.Linear(n, n), n

    def forward(self, x):
        h = torch.zeros(x.shape[0], self.n)
        ys = torch.zeros(x.shape[0], x.shape[1], self.n)
        for t in range(x.shape[1]):
            h = torch.tanh(self.w(x[:, t, :]) + self.u(h))
            ys[:, t] = h
        return ys


@case("loop_own_lstm_layer_norm", "loops", route="scan", inputs={"x": "float32[time, batch, 6]"})
class OwnLstm(nn.Module):
    """A cell whose state is normalised between the steps, started from nothing."""

    def __init__(self):
        super().__init__()
        self.cell, self.norm, self.out = nn.LSTMCell(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], 8)
        for xt in x:
            h, c = self.cell(xt, (h, c))
            h = self.norm(h)
        return self.out(h)


@case("loop_steps_between_cells", "loops", states=["h"], route="scan", inputs=X)
class StepsBetweenCells(nn.Module):
    """A state that moves on by itself between a cell's steps (De Brouwer et al. 2019, GRU-ODE)."""

    def __init__(self):
        super().__init__()
        self.cell, self.drift, self.out = nn.GRUCell(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 8)
        ys = []
        for t in range(x.shape[1]):
            for _ in range(3):
                h = h + 0.25 * torch.tanh(self.drift(h))
            h = self.cell(x[:, t], h)
            ys.append(self.out(h))
        return torch.stack(ys, 1)


@case(
    "loop_fresh_constants",
    "loops",
    states=["carried"],
    route="scan",
    inputs={"x": "float32[time, batch, 6]"},
)
class FreshConstants(nn.Module):
    """A spiking neuron that makes its threshold and its rest anew at each step."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 6)

    def fire(self, frame, v, z):
        threshold, rest = torch.tensor(0.5), torch.as_tensor(-0.25)
        v = 0.75 * v * (1 - z) + rest * z + frame
        return v, (v > threshold).to(v.dtype)

    def forward(self, x):
        v = z = torch.zeros_like(x[0])
        ys = []
        for step in range(x.shape[0]):
            v, z = self.fire(self.into(x[step]), v, z)
            ys.append(z + 0.1 * v)
        return torch.stack(ys)


@case("loop_with_weights_in_a_dict", "loops", states=["v"], route="scan", inputs=X)
class WeightsInDict(nn.Module):
    """A step of several smaller ones, whose weights a plain dict holds: each use of one captures it anew."""

    def __init__(self):
        super().__init__()
        self.leak, self.into = nn.Parameter(torch.rand(4)), nn.Parameter(torch.randn(6, 4))
        self.held = {"leak": self.leak, "into": self.into}

    def forward(self, x):
        v = torch.zeros(x.shape[0], 4)
        rows = []
        for t in range(x.shape[1]):
            for _ in range(3):
                v = v + (torch.tanh(x[:, t] @ self.held["into"] - v) - self.held["leak"] * v) / 3
            rows.append(v)
        return torch.stack(rows, 1)
