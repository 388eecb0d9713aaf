"""Memory in the module itself: buffers and attributes that forward changes."""

from __future__ import annotations

import torch
from torch import nn

from cases.registry import case

STEP = {"x": "float32[batch, 6]"}
X = {"x": "float32[batch, time, 6]"}


@case("buffer", "memory", states=["h"], inputs=STEP)
class Buffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(14, 8)
        self.register_buffer("h", torch.zeros(1, 8))

    def forward(self, x):
        self.h = torch.tanh(self.lin(torch.cat([x, self.h.expand(x.shape[0], -1)], -1)))
        return self.h * 2


@case("buffer_in_place", "memory", states=["ema.mean"], inputs={"x": "float32[6]"})
class BufferInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.ema = nn.Module()
        self.ema.register_buffer("mean", torch.full((6,), 0.5))

    def forward(self, x):
        self.ema.mean.mul_(0.9).add_(0.1 * x)
        return x - self.ema.mean


@case("attribute_lazy", "memory", states=["h"], inputs=STEP)
class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.h = nn.GRUCell(6, 8), None

    def forward(self, x):
        if self.h is None:
            self.h = torch.zeros(x.shape[0], 8)
        self.h = self.cell(x, self.h)
        return self.h * 2


@case("attribute_nested", "memory", states=["cache.a.0", "cache.a.1"], inputs=STEP)
class NestedAttribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)
        self.cache = {"a": (torch.zeros(1, 8), torch.zeros(1, 8)), "unused": 3}

    def forward(self, x):
        h, c = (part.expand(x.shape[0], -1) for part in self.cache["a"])
        self.cache = {"a": self.cell(x, (h, c)), "unused": 3}
        return self.cache["a"][0] + 1


@case("attribute_over_time", "memory", states=["h"], route="scan", inputs=X)
class AttributeOverTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)
        self.h = torch.zeros(1, 8)

    def forward(self, x):
        h = self.h.expand(x.shape[0], -1)
        ys = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            ys.append(h)
        self.h = h
        return torch.stack(ys, 1)


@case("layer_keeps_state_in_attribute", "memory", states=["state.0", "state.1"], inputs=X)
class KeepsState(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.state = nn.LSTM(6, 8, batch_first=True), None

    def forward(self, x):
        y, self.state = self.rnn(x, self.state)
        return y


@case("ring_buffer", "memory", states=["cache", "position"], inputs=STEP)
class Ring(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 4, 6))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.w = nn.Parameter(torch.randn(4))

    def forward(self, x):
        cache = self.cache.expand(x.shape[0], -1, -1).clone()
        cache[:, self.position] = x
        order = (self.position - torch.arange(4)) % 4
        self.cache, self.position = cache, (self.position + 1) % 4
        return torch.einsum("bkf,k->bf", cache[:, order], self.w)


@case("state_minus_infinity", "memory", states=["best"], inputs=STEP)
class RunningMax(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("best", torch.full((1, 6), -float("inf")))

    def forward(self, x):
        self.best = torch.maximum(self.best.expand_as(x), x)
        return self.best


@case("parameter_of_period_two", "memory", states=["place"], inputs=STEP)
class PeriodTwo(nn.Module):
    """Two calls leave it as it was."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros((), dtype=torch.int64), requires_grad=False)

    def forward(self, x):
        with torch.no_grad():
            self.place[...] = (self.place + 1) % 2
        return x * (self.place + 1)


@case("parameter_set_through_data", "memory", states=["level"], inputs={"x": "float32[6]"})
class ThroughData(nn.Module):
    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.full((6,), 0.5), requires_grad=False)

    def forward(self, x):
        level = self.level * 0.9 + x
        self.level.data = level
        return torch.tanh(level)


@case("integer_counter", "memory", states=["count"], inputs={"x": "int64[batch] in 0..9"})
class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1, 10, dtype=torch.int64))

    def forward(self, x):
        hot = torch.nn.functional.one_hot(x, 10)
        self.count = self.count + hot
        return self.count.gather(1, x[:, None])[:, 0]


@case("dead_buffer", "memory", states=["h"], inputs=STEP)
class DeadBuffer(Buffer):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        self.last = x
        return super().forward(x)


@case("batch_norm_and_dropout_in_train_mode", "memory", states=["rnn.h"], inputs=X)
def _train_mode():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.rnn, self.drop = (
                nn.BatchNorm1d(6),
                nn.GRU(6, 8, batch_first=True),
                nn.Dropout(0.5),
            )

        def forward(self, x):
            return self.drop(self.rnn(self.norm(x.transpose(1, 2)).transpose(1, 2))[0])

    net = Net()
    net.norm.running_mean.normal_()
    return net.train()


@case("python_number_matters", "memory", refused="not-exported", mentions="counter", inputs=STEP)
class PythonCounter(nn.Module):
    def __init__(self):
        super().__init__()
        self.counter = 0

    def forward(self, x):
        self.counter += 1
        return x * self.counter


@case("growing_buffer", "memory", refused="growing-state", mentions="torch.cat", inputs=STEP)
class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.cache = None

    def forward(self, x):
        self.cache = x[:, None] if self.cache is None else torch.cat([self.cache, x[:, None]], 1)
        return self.cache.mean(1)


class _Kept:
    """An object of the user's own."""

    def __init__(self):
        self.level = torch.zeros(1, 8)
        self.seen = [torch.zeros(1, 6), torch.zeros(1, 6)]


@case(
    "attribute_plain_object",
    "memory",
    states=["kept.level", "kept.seen.1", "kept.seen.0"],
    inputs={"x": "float32[1, 6]"},
)
class PlainObject(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.kept = nn.GRUCell(6, 8), _Kept()

    def forward(self, x):
        self.kept.level = self.cell(x + self.kept.seen[0], self.kept.level)
        self.kept.seen = [self.kept.seen[1], x]
        return self.kept.level * 2


class _Gated(nn.Module):
    """A cell with its memory, a weight of its own and a flag that says that it was called."""

    def __init__(self):
        super().__init__()
        self.cell, self.weight, self.called = nn.GRUCell(6, 6), nn.Parameter(torch.full((6,), 0.7)), False
        self.register_buffer("h", torch.zeros(2, 6))

    def forward(self, x):
        self.called = True
        self.h.copy_(self.cell(x, self.h))
        return self.weight * self.h


@case("unregistered_modules", "memory", states=["cells.0.h", "cells.last.h"], inputs={"x": "float32[2, 6]"})
class Unregistered(nn.Module):
    """Layers in a dict and a list, which PyTorch does not know to be there."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.cells = {0: _Gated(), "last": _Gated()}
        self.order = list(self.cells.values())

    def forward(self, x):
        for cell in self.order:
            x = cell(x)
        return self.out(x)


@case("buffer_by_name", "memory", states=["h"], inputs=STEP)
class BufferByName(nn.Module):
    """Looks for its memory among its buffers, and registers it again."""

    def __init__(self):
        super().__init__()
        self.register_buffer("h", torch.zeros(1, 6))

    def forward(self, x):
        h = 0.9 * dict(self.named_buffers())["h"] + x
        self.register_buffer("h", h)
        return h.tanh()
