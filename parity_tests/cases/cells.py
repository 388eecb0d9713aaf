"""Cells and recurrences written out by hand, one step or in a loop over time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

STEP = {"x": "float32[batch, 6]"}
X = {"x": "float32[batch, time, 6]"}
H = "float32[batch, 8]"


@case("gru_cell_step", "cells", states=["h"], inputs=STEP, state={"h": H})
class GruStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x, h):
        h = self.cell(x, h)
        return self.out(h), h


@case("lstm_cell_hidden_start", "cells", states=["cell.h", "cell.c"], inputs=STEP)
class LstmCellAlone(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)

    def forward(self, x):
        h, _ = self.cell(x)
        return h


class Loop(nn.Module):
    """Runs a cell over time; the cell is (x, state) -> (y, state)."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, state):
        ys = []
        for t in range(x.shape[1]):
            y, state = self.cell(x[:, t], state)
            ys.append(y)
        return torch.stack(ys, dim=1), state


class LayerNormLSTM(nn.Module):
    def __init__(self, d=6, n=8):
        super().__init__()
        self.ih, self.hh = nn.Linear(d, 4 * n), nn.Linear(n, 4 * n, bias=False)
        self.ln_g, self.ln_c = nn.LayerNorm(4 * n), nn.LayerNorm(n)

    def forward(self, x, state):
        h, c = state
        i, f, g, o = self.ln_g(self.ih(x) + self.hh(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(self.ln_c(c))
        return h, (h, c)


class Peephole(nn.Module):
    def __init__(self, d=6, n=8):
        super().__init__()
        self.lin = nn.Linear(d + n, 4 * n)
        self.p = nn.Parameter(torch.randn(3, n) * 0.3)

    def forward(self, x, state):
        h, c = state
        i, f, g, o = self.lin(torch.cat([x, h], -1)).chunk(4, -1)
        i, f = torch.sigmoid(i + self.p[0] * c), torch.sigmoid(f + self.p[1] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + self.p[2] * c) * torch.tanh(c)
        return h, (h, c)


class Zoneout(nn.Module):
    def __init__(self, d=6, n=8, p=0.2):
        super().__init__()
        self.cell, self.p = nn.LSTMCell(d, n), p

    def forward(self, x, state):
        h, c = state
        h2, c2 = self.cell(x, state)
        if self.training:
            h2 = torch.where(torch.rand_like(h) < self.p, h, h2)
        else:
            h2, c2 = self.p * h + (1 - self.p) * h2, self.p * c + (1 - self.p) * c2
        return h2, (h2, c2)


class Minimal(nn.Module):
    def __init__(self, d=6, n=8):
        super().__init__()
        self.f, self.h = nn.Linear(d + n, n), nn.Linear(d + n, n)

    def forward(self, x, h):
        f = torch.sigmoid(self.f(torch.cat([x, h], -1)))
        new = torch.tanh(self.h(torch.cat([x, f * h], -1)))
        h = (1 - f) * h + f * new
        return h, h


class Liquid(nn.Module):
    def __init__(self, d=6, n=8):
        super().__init__()
        self.lin = nn.Linear(d + n, n)
        self.tau, self.a = nn.Parameter(torch.rand(n) + 0.5), nn.Parameter(torch.randn(n))

    def forward(self, x, h):
        for _ in range(4):
            f = torch.sigmoid(self.lin(torch.cat([x, h], -1)))
            h = (h + 0.1 * f * self.a) / (1 + 0.1 * (1 / self.tau + f))
        return h, h


class IndRnn(nn.Module):
    def __init__(self, d=6, n=8):
        super().__init__()
        self.w, self.u = nn.Linear(d, n), nn.Parameter(torch.rand(n) * 2 - 1)

    def forward(self, x, h):
        h = F.relu(self.w(x) + self.u * h)
        return h, h


class Lmu(nn.Module):
    def __init__(self, d=6, n=8, m=4):
        super().__init__()
        self.e_x, self.e_h, self.e_m = nn.Linear(d, 1), nn.Linear(n, 1), nn.Linear(m, 1)
        self.register_buffer("a", torch.eye(m) * 0.9 + 0.05 * torch.randn(m, m))
        self.register_buffer("b", torch.randn(m))
        self.w = nn.Linear(d + n + m, n)

    def forward(self, x, state):
        h, m = state
        u = self.e_x(x) + self.e_h(h) + self.e_m(m)
        m = m @ self.a.T + u * self.b
        h = torch.tanh(self.w(torch.cat([x, h, m], -1)))
        return h, (h, m)


PAIR = (H, H)
case(
    "layer_norm_lstm", "cells", states=["state.0", "state.1"], route="scan", inputs=X, state={"state": PAIR}
)(lambda: Loop(LayerNormLSTM()))
case("peephole_lstm", "cells", states=["state.0", "state.1"], route="scan", inputs=X, state={"state": PAIR})(
    lambda: Loop(Peephole())
)
case("zoneout_lstm", "cells", states=["state.0", "state.1"], route="scan", inputs=X, state={"state": PAIR})(
    lambda: Loop(Zoneout())
)
case("minimal_gated", "cells", states=["state"], route="scan", inputs=X, state={"state": H})(
    lambda: Loop(Minimal())
)
case("liquid_cell", "cells", states=["state"], route="scan", inputs=X, state={"state": H})(
    lambda: Loop(Liquid())
)
case("indrnn", "cells", states=["state"], route="scan", inputs=X, state={"state": H})(lambda: Loop(IndRnn()))
case(
    "legendre_memory",
    "cells",
    states=["state.0", "state.1"],
    route="scan",
    inputs=X,
    state={"state": (H, "float32[batch, 4]")},
)(lambda: Loop(Lmu()))


@case(
    "conv_lstm",
    "cells",
    states=["h", "c"],
    inputs={"x": "float32[batch, time, 2, 5, 5]"},
    state={"h": "float32[batch, 3, 5, 5]", "c": "float32[batch, 3, 5, 5]"},
    returns=("y", ("h", "c")),
)
class ConvLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 12, 3, padding=1)

    def forward(self, x, h, c):
        ys = []
        for t in range(x.size(1)):
            i, f, g, o = self.conv(torch.cat([x[:, t], h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            ys.append(h)
        return torch.stack(ys, 1), (h, c)


@case("sru", "cells", states=["c"], inputs=X, state={"c": "float32[batch, 6]"})
class Sru(nn.Module):
    """Everything but the elementwise recurrence is computed for all steps at once."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 18)

    def forward(self, x, c):
        u, f, r = self.lin(x).chunk(3, -1)
        f, r = torch.sigmoid(f), torch.sigmoid(r)
        hs = []
        for t in range(x.shape[1]):
            c = f[:, t] * c + (1 - f[:, t]) * u[:, t]
            hs.append(r[:, t] * torch.tanh(c) + (1 - r[:, t]) * x[:, t])
        return torch.stack(hs, 1), c


@case(
    "linear_attention",
    "cells",
    states=["s", "z"],
    inputs=X,
    state={"s": "float32[batch, 4, 4]", "z": "float32[batch, 4]"},
)
class LinearAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 12)

    def forward(self, x, s, z):
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        ys = []
        for t in range(x.shape[1]):
            s = s + k[:, t, :, None] * v[:, t, None, :]
            z = z + k[:, t]
            ys.append(
                torch.einsum("bi,bij->bj", q[:, t], s)
                / (torch.einsum("bi,bi->b", q[:, t], z)[:, None] + 1e-6)
            )
        return torch.stack(ys, 1), s, z


@case("retention", "cells", states=["s"], inputs=X, state={"s": "float32[batch, 2, 4, 4]"})
class Retention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.norm, self.out = nn.Linear(6, 24), nn.GroupNorm(2, 8), nn.Linear(8, 6)
        self.register_buffer("decay", torch.tensor([0.9, 0.7]).view(1, 2, 1, 1))

    def forward(self, x, s):
        ys = []
        for xt in x.unbind(1):
            q, k, v = (a.view(-1, 2, 4) for a in self.qkv(xt).chunk(3, -1))
            s = self.decay * s + k.unsqueeze(-1) * v.unsqueeze(-2)
            y = (q.unsqueeze(-2) @ s).squeeze(-2).flatten(1)
            ys.append(self.out(self.norm(y)))
        return torch.stack(ys, 1), s


@case(
    "rwkv_time_mix",
    "cells",
    states=["state.x", "state.num", "state.den", "state.top"],
    inputs=X,
    state={"state": dict.fromkeys(("x", "num", "den", "top"), "float32[batch, 6]")},
)
class Rwkv(nn.Module):
    def __init__(self):
        super().__init__()
        self.k, self.v, self.r, self.o = (nn.Linear(6, 6, bias=False) for _ in range(4))
        self.mix, self.w, self.u = (nn.Parameter(torch.rand(6)) for _ in range(3))

    def forward(self, x, state):
        last, num, den, top = state["x"], state["num"], state["den"], state["top"]
        ys = []
        for t in range(x.shape[1]):
            xx = x[:, t] * self.mix + last * (1 - self.mix)
            k, v, r = self.k(xx), self.v(xx), torch.sigmoid(self.r(xx))
            q = torch.maximum(top, self.u + k)
            a, b = torch.exp(top - q), torch.exp(self.u + k - q)
            ys.append(self.o(r * (a * num + b * v) / (a * den + b + 1e-6)))
            q = torch.maximum(top - self.w, k)
            a, b = torch.exp(top - self.w - q), torch.exp(k - q)
            num, den, top, last = a * num + b * v, a * den + b, q, x[:, t]
        return torch.stack(ys, 1), {"x": last, "num": num, "den": den, "top": top}


@case("selective_scan", "cells", states=["h"], inputs=X, state={"h": "float32[batch, 6, 4]"})
class Selective(nn.Module):
    """Mamba's recurrence: input-dependent step, B and C."""

    def __init__(self):
        super().__init__()
        self.bc, self.dt = nn.Linear(6, 8), nn.Linear(6, 6)
        self.a_log, self.d = nn.Parameter(torch.rand(6, 4)), nn.Parameter(torch.ones(6))

    def forward(self, x, h):
        a = -torch.exp(self.a_log)
        b, c = self.bc(x).chunk(2, -1)
        dt = F.softplus(self.dt(x))
        ys = []
        for t in range(x.shape[1]):
            h = torch.exp(dt[:, t, :, None] * a) * h + (dt[:, t] * x[:, t]).unsqueeze(-1) * b[:, t, None, :]
            ys.append((h * c[:, t, None, :]).sum(-1) + self.d * x[:, t])
        return torch.stack(ys, 1), h


@case("diagonal_ssm_step", "cells", states=["s"], inputs=STEP, state={"s": "float32[batch, 6, 4]"})
class S4Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.rand(6, 4) * 0.9) for _ in range(3))

    def forward(self, x, s):
        s = self.a * s + self.b * x[..., None]
        return (s * self.c).sum(-1), s


@case("spiking_lif", "cells", states=["v"], inputs=X, state={"v": H})
class Spiking(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 8)

    def forward(self, x, v):
        spikes = []
        for t in range(x.shape[1]):
            v = 0.9 * v + self.lin(x[:, t])
            s = (v > 0.5).float()
            v = v * (1 - s)
            spikes.append(s)
        return torch.stack(spikes, 1), v
