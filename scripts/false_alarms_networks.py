"""The networks of `scripts/false_alarms`: cells that people use, and some whose rounding is hard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUTS = 5


class Layer(nn.Module):
    """A recurrent layer of PyTorch's and a readout."""

    def __init__(self, kind: Callable[..., nn.Module], size: int, layers: int) -> None:
        super().__init__()
        self.layer = kind(INPUTS, size, layers, batch_first=True)
        self.out = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.layer(x)[0])
        return result


class Norm(Layer):
    """A GRU between two layer norms, the second of which it is read out by."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__(nn.GRU, size, layers)
        self.before, self.after = nn.LayerNorm(INPUTS), nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.after(self.layer(self.before(x))[0]))
        return result


class Cell(nn.Module):
    """A cell that takes its states and gives the next ones, and a readout of the first."""

    states = 1

    def __init__(self, size: int) -> None:
        super().__init__()
        self.out = nn.Linear(size, 3)

    def cell(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Return the next states, the one that is read out first."""
        raise NotImplementedError

    def forward(self, x: Tensor, h: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        after = self.cell(x, *h)
        return self.out(after[0]), after


class LongShort(Cell):
    """PyTorch's LSTMCell."""

    states = 2

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.inner = nn.LSTMCell(INPUTS, size)

    def cell(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.inner(x, (states[0], states[1]))
        return found


class Normalised(Cell):
    """An LSTM whose gates are normalised."""

    states = 2

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.weight_ih, self.weight_hh = nn.Linear(INPUTS, 4 * size), nn.Linear(size, 4 * size)
        self.norm, self.cell_norm = nn.LayerNorm(4 * size), nn.LayerNorm(size)

    def cell(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        h, c = states
        i, f, g, o = self.norm(self.weight_ih(x) + self.weight_hh(h)).chunk(4, -1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.cell_norm(c)), c


class Minimal(Cell):
    """A minimal gated unit that mixes by the gate (Zhou and others 2016)."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.gate, self.weight_hh = nn.Linear(INPUTS + size, size), nn.Linear(INPUTS + size, size)

    def cell(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        (h,) = states
        z = torch.sigmoid(self.gate(torch.cat([x, h], -1)))
        new = torch.tanh(self.weight_hh(torch.cat([x, z * h], -1)))
        return ((1 - z) * h + z * new,)


class Selective(Cell):
    """A state space whose steps depend on the input, as Mamba's do: it decays by exp(-dt)."""

    states = 2

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.into, self.rate = nn.Linear(INPUTS, size), nn.Linear(INPUTS, size)
        self.mix = nn.Linear(size, size)
        self.pace = nn.Parameter(torch.linspace(-4, 1, size))

    def cell(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        dt = F.softplus(self.rate(x))
        s = torch.exp(-dt * torch.exp(self.pace)) * states[1] + dt * self.into(x)
        return F.silu(self.mix(s)), s


class Leaky(Cell):
    """Leaky integrators, some of them so slow that they add up hundreds of inputs, and an ELU."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.into, self.weight_hh = nn.Linear(INPUTS, size), nn.Linear(size, size)
        self.leak = nn.Parameter(1 - torch.logspace(-3, -0.1, size))

    def cell(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        (h,) = states
        return (self.leak * h + (1 - self.leak) * F.elu(self.into(x) + 0.5 * self.weight_hh(h)),)


class Denoiser(nn.Module):
    """Causal convolutions, a GRU, and a mask that lets little through, as in silence."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(INPUTS, size, 3), nn.Conv1d(size, size, 2)
        self.norm = nn.BatchNorm1d(size)
        self.gru = nn.GRU(size, size, layers, batch_first=True)
        self.mask = nn.Linear(size, INPUTS)
        with torch.no_grad():
            self.mask.bias -= 4.0
            self.norm.running_mean.uniform_(-0.2, 0.2)
            self.norm.running_var.uniform_(0.02, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.elu(self.first(F.pad(x.transpose(1, 2), (2, 0))))
        y = F.elu(self.norm(self.second(F.pad(y, (1, 0)))))
        return torch.sigmoid(self.mask(self.gru(y.transpose(1, 2))[0])) * x


class Detector(Layer):
    """One probability that is seldom far from 0."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__(nn.LSTM, size, layers)
        self.out = nn.Linear(size, 1)
        with torch.no_grad():
            self.out.bias -= 6.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(super().forward(x))


CELLS: dict[str, Callable[[int, int], nn.Module]] = {
    "rnn": lambda size, layers: Layer(nn.RNN, size, layers),
    "relu": lambda size, layers: Layer(lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k), size, layers),
    "lstm": lambda size, layers: Layer(nn.LSTM, size, layers),
    "gru": lambda size, layers: Layer(nn.GRU, size, layers),
    "norm": Norm,
    "cell": lambda size, layers: LongShort(size),
    "normalised": lambda size, layers: Normalised(size),
    "minimal": lambda size, layers: Minimal(size),
    "selective": lambda size, layers: Selective(size),
    "leaky": lambda size, layers: Leaky(size),
    "denoiser": Denoiser,
    "detector": Detector,
}


def arguments(module: nn.Module, size: int, dtype: str) -> dict[str, Any]:
    """Return what `rnnx.export` takes beside a network."""
    if isinstance(module, Cell):
        states = (f"{dtype}[batch, {size}]",) * module.states
        return {"inputs": {"x": f"{dtype}[batch, {INPUTS}]"}, "state": {"h": states}}
    return {"inputs": {"x": f"{dtype}[batch, time, {INPUTS}]"}}
