"""Recurrences as published code writes them: loops after layers over time, windows, odd carriers."""

from __future__ import annotations

import warnings
from collections import deque

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

STEP = {"x": "float32[batch, 6]"}
X = {"x": "float32[batch, time, 6]"}


@case("state_none_beside_frames", "memory", states=["h0"], inputs=X, state={"h0": None})
class NoneBesideFrames(nn.Module):
    """`out, hn = gru(x, h0)`: nothing but the time axis says which part is the state."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True)
        self.out = nn.Linear(8, 8)

    def forward(self, x, h0=None):
        out, hn = self.rnn(x, h0)
        return self.out(out), hn


@case(
    "state_none_nested",
    "memory",
    states=["hidden.0.0", "hidden.0.1", "hidden.1"],
    inputs=STEP,
    state={"hidden": None},
)
class NoneNested(nn.Module):
    """The parts of the state would be states themselves, if forward took them."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)

    def forward(self, x, hidden=None):
        if hidden is None:
            zeros = x.new_zeros(x.shape[0], 8)
            hidden = ((zeros, zeros), zeros)
        pair, trace = hidden
        h, c = self.cell(x, pair)
        return h.tanh(), ((h, c), 0.9 * trace + h)


@case("frames_in_a_deque", "memory", states=["frames.1", "frames.2"], inputs=STEP)
class InDeque(nn.Module):
    """The last frames in a deque that throws the oldest away."""

    def __init__(self):
        super().__init__()
        self.frames = deque(maxlen=3)
        self.out = nn.Linear(18, 4)

    def forward(self, x):
        while len(self.frames) < 2:
            self.frames.append(torch.zeros_like(x))
        self.frames.append(x)
        return self.out(torch.cat(list(self.frames), -1))


@case("loop_after_convolution", "loops", states=["conv.past", "h"], route="scan", inputs=X)
class AfterConvolution(nn.Module):
    """A causal convolution over the whole chunk, cut to its length, then a gated sum in a loop (Mamba)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 6, 3, groups=6, padding=2)
        self.gate, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x):
        steps = x.shape[1]
        u = F.silu(self.conv(self.norm(x).transpose(1, 2))[:, :, :steps].transpose(1, 2))
        keep = torch.sigmoid(self.gate(u))
        h = torch.zeros_like(x[:, 0])
        ys = []
        for t in range(steps):
            h = keep[:, t] * h + (1 - keep[:, t]) * u[:, t]
            ys.append(h)
        return torch.stack(ys, 1) + u


@case("loop_in_two_layers", "loops", route="scan", inputs=X)
class TwoLayers(nn.Module):
    """Each layer loops over the whole chunk before the next begins."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([AfterConvolution() for _ in range(2)])

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


@case("loop_with_keys_of_length_one", "loops", states=["weights"], route="scan", inputs=X)
class DeltaRule(nn.Module):
    """Fast weights written by the delta rule, with keys normalised over the chunk (Schlag et al. 2021)."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6, bias=False) for _ in range(3))
        self.rate = nn.Linear(6, 1)

    def forward(self, x):
        q, k, v = self.q(x).softmax(-1), F.normalize(self.k(x), dim=-1), self.v(x)
        rate = torch.sigmoid(self.rate(x))
        weights = x.new_zeros(x.shape[0], 6, 6)
        ys = []
        for t in range(x.shape[1]):
            key, value = k[:, t].unsqueeze(1), v[:, t].unsqueeze(1)
            weights = weights + key.transpose(1, 2) @ (rate[:, t].unsqueeze(1) * (value - key @ weights))
            ys.append(q[:, t].unsqueeze(1) @ weights)
        return torch.cat(ys, 1)


@case("loop_with_refractory_count", "loops", route="scan", inputs=X)
class Spiking(nn.Module):
    """Integrate and fire; after a spike a unit rests for two steps, counted in whole numbers."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 8)

    def forward(self, x):
        potential = x.new_zeros(x.shape[0], 8)
        rest = torch.zeros(x.shape[0], 8, dtype=torch.int64)
        spikes = []
        for t in range(x.shape[1]):
            potential = 0.9 * potential + self.into(x[:, t])
            spike = (potential > 0.5) & (rest <= 0)
            rest = torch.where(spike, 2, (rest - 1).clamp(min=0))
            potential = torch.where(spike, 0.0, potential)
            spikes.append(spike)
        return torch.stack(spikes, 1).float()


@case("loop_by_step_number", "loops", route="scan", inputs=X)
class Clockwork(nn.Module):
    """A unit takes part in every first, second or fourth step (Koutnik et al. 2014)."""

    def __init__(self):
        super().__init__()
        self.into, self.hidden = nn.Linear(6, 6), nn.Linear(6, 6)
        self.register_buffer("periods", torch.tensor([1, 1, 2, 2, 4, 4]))

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 6)
        ys = []
        for t in range(x.shape[1]):
            new = torch.tanh(self.into(x[:, t]) + self.hidden(h))
            h = torch.where(t % self.periods == 0, new, h)
            ys.append(h)
        return torch.stack(ys, 1)


@case(
    "lengths_end_of_masked_loop",
    "lengths",
    states=["h"],
    route="scan",
    inputs={**X, "lengths": "int64[batch] in 1..time"},
)
class EndOfMaskedLoop(nn.Module):
    """The last hidden state of rows that ended before the call did."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, lengths):
        mask = (torch.arange(x.shape[1])[None, :] < lengths[:, None]).to(x.dtype)
        h = x.new_zeros(x.shape[0], 8)
        for t in range(x.shape[1]):
            keep = mask[:, t : t + 1]
            h = keep * self.cell(x[:, t], h) + (1 - keep) * h
        return h


@case("policy_as_distribution", "cells", states=["h"], inputs=STEP, state={"h": "float32[batch, 8]"})
class AsDistribution(nn.Module):
    """A distribution checks its parameters with decisions on their values."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(6, 8), nn.Linear(8, 3)

    def forward(self, x, h):
        h = self.cell(x, h)
        return torch.distributions.Categorical(logits=self.out(h)).logits, h


@case("memory_by_usage", "cells", states=["usage"], inputs=STEP)
class ByUsage(nn.Module):
    """What is used least is written first: sorted, and weighted by a running product (Graves et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("usage", torch.zeros(1, 6))

    def forward(self, x):
        ordered, place = torch.sort(self.usage.expand(x.shape[0], -1), 1)
        before = torch.cat([torch.ones_like(ordered[:, :1]), torch.cumprod(ordered, 1)[:, :-1]], 1)
        weights = torch.zeros_like(ordered).scatter(1, place, (1 - ordered) * before)
        self.usage = 0.5 * self.usage + 0.5 * torch.sigmoid(x + weights)
        return weights


@case(
    "refused_solver",
    "refused",
    refused="not-exported",
    mentions="aten.linalg_matrix_exp at published.py",
    inputs={"x": "float32[batch, 2]"},
)
class Solver(nn.Module):
    """A line that has no ONNX form is named."""

    def __init__(self):
        super().__init__()
        self.register_buffer("p", torch.eye(2)[None])

    def forward(self, x):
        self.p = 0.1 * self.p + 0.1 * x[:, :, None] * x[:, None, :]
        return (torch.linalg.matrix_exp(self.p) @ x[:, :, None])[:, :, 0]


@case(
    "refused_list_window",
    "refused",
    refused="start-shape",
    mentions="keep the frames in one tensor",
    inputs={"x": "float32[batch, 2]"},
)
class ListWindow(nn.Module):
    """Rows of the batch move through places that began with one row."""

    def __init__(self):
        super().__init__()
        self.frames = [torch.zeros(1, 2) for _ in range(3)]

    def forward(self, x):
        self.frames.append(x)
        self.frames.pop(0)
        return torch.cat([frame.expand(x.shape[0], -1) for frame in self.frames], -1)


class _Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 6)


_KEPT: dict[str, torch.Tensor] = {}


@case("refused_kept_elsewhere", "refused", refused="random", mentions="outside of itself", inputs=STEP)
class KeptElsewhere(_Elsewhere):
    """A dictionary of the Python module: two copies of the network share it."""

    def forward(self, x):
        _KEPT["h"] = 0.5 * _KEPT.get("h", torch.zeros(1)).mean() + self.into(x)
        return _KEPT["h"]


@case(
    "refused_torchscript", "refused", refused="not-exported", mentions="'inner' is TorchScript", inputs=STEP
)
class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            self.inner = torch.jit.script(nn.Linear(6, 6))
        self.register_buffer("h", torch.zeros(1, 6))

    def forward(self, x):
        self.h = self.inner(x + self.h)
        return self.h


@case("loop_after_gru", "loops", states=["rnn.h", "h"], route="scan", inputs=X)
class AfterGru(nn.Module):
    """A layer over the whole chunk, normalised, then smoothed in a loop."""

    def __init__(self):
        super().__init__()
        self.rnn, self.norm = nn.GRU(6, 4, batch_first=True), nn.BatchNorm1d(4)

    def forward(self, x):
        y = self.norm(self.rnn(x)[0].transpose(1, 2)).transpose(1, 2)
        h = torch.zeros_like(y[:, 0])
        ys = []
        for t in range(y.shape[1]):
            h = 0.8 * h + 0.2 * y[:, t]
            ys.append(h)
        return torch.stack(ys, 1)
