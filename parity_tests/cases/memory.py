"""Memory in every place people keep it: arguments of all kinds, buffers, attributes, cache objects."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import nn

from cases.registry import case
from rnnx_export.structure import register_structure

STEP = {"x": "float32[batch, 6]"}
X = {"x": "float32[batch, time, 6]"}
H = "float32[batch, 8]"


class Pair(NamedTuple):
    h: torch.Tensor
    c: torch.Tensor


@dataclasses.dataclass
class Memory:
    fast: torch.Tensor
    slow: torch.Tensor


class _Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)
        self.out = nn.Linear(8, 3)


@case("state_flat", "memory", states=["h", "c"], inputs=STEP, state={"h": H, "c": H})
class Flat(_Cell):
    def forward(self, x, h, c):
        h, c = self.cell(x, (h, c))
        return self.out(h), h, c


@case("state_namedtuple", "memory", states=["state.h", "state.c"], inputs=STEP, state={"state": Pair(H, H)})
class Named(_Cell):
    def forward(self, x, state):
        h, c = self.cell(x, (state.h, state.c))
        return self.out(h), Pair(h, c)


@case(
    "state_dataclass",
    "memory",
    states=["memory.fast", "memory.slow"],
    inputs=STEP,
    state={"memory": Memory(H, H)},
)
class Data(_Cell):
    def forward(self, x, memory):
        h, c = self.cell(x, (memory.fast, memory.slow))
        return self.out(h), Memory(h, c)


@case(
    "state_nested",
    "memory",
    states=["state.0.h", "state.0.c", "state.1.h", "state.1.c"],
    inputs=STEP,
    state={"state": [{"h": H, "c": H}, {"h": H, "c": H}]},
)
class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(6, 8), nn.LSTMCell(8, 8)])

    def forward(self, x, state):
        new = []
        for cell, s in zip(self.cells, state, strict=True):
            h, c = cell(x, (s["h"], s["c"]))
            new.append({"h": h, "c": c})
            x = h
        return x, new


@case("state_in_dict_result", "memory", states=["h"], inputs=STEP, state={"h": H})
class DictResult(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, h):
        h = self.cell(x, h)
        return {"logits": h * 2, "h": h, "value": h.sum(-1)}


@case("state_is_the_output", "memory", states=["hx"], inputs={"input": "float32[batch, 6]"}, state={"hx": H})
def _bare_cell():
    return nn.GRUCell(6, 8)


@case("state_in_place", "memory", states=["h"], inputs=STEP, state={"h": H})
class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(14, 8)

    def forward(self, x, h):
        h.copy_(torch.tanh(self.lin(torch.cat([x, h], -1))))
        return h[:, :3] * 2


@case("state_first_then_output", "memory", states=["h"], inputs=STEP, state={"h": H})
class StateFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(6, 8), nn.Linear(8, 8)

    def forward(self, x, h):
        h_new = self.cell(x, h)
        y = self.out(h_new)
        return h_new, y


@case(
    "two_states_alike",
    "memory",
    states=["a", "b"],
    inputs=STEP,
    state={"a": H, "b": H},
    returns=("y", "b", "a"),
)
class Swapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.GRUCell(6, 8), nn.GRUCell(6, 8)

    def forward(self, x, a, b):
        return a - b, self.two(x, b), self.one(x, a)


@case(
    "two_states_ambiguous",
    "memory",
    refused="state-ambiguous",
    mentions="returns=",
    inputs=STEP,
    state={"a": H, "b": H},
)
class Ambiguous(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.GRUCell(6, 8), nn.GRUCell(6, 8)

    def forward(self, x, a, b):
        return a - b, self.two(x, b), self.one(x, a)


@case("state_not_returned", "memory", refused="state-without-next", inputs=STEP, state={"h": H})
class Forgotten(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(6, 8), nn.Linear(8, 3)

    def forward(self, x, h):
        return self.out(self.cell(x, h))


@case("none_means_zeros", "memory", states=["state.0", "state.1"], inputs=X, state={"state": None})
class NoneZeros(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x, state=None):
        y, state = self.rnn(x, state)
        return y, state


@case("none_means_learned", "memory", states=["h"], inputs=STEP, state={"h": H})
class NoneLearned(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.start = nn.GRUCell(6, 8), nn.Parameter(torch.randn(8))

    def forward(self, x, h=None):
        if h is None:
            h = torch.tanh(self.start).expand(x.shape[0], -1)
        h = self.cell(x, h)
        return h * 2, h


@case("none_from_input", "memory", refused="start-from-input", inputs=STEP, state={"h": H})
class NoneFromInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.init = nn.GRUCell(6, 8), nn.Linear(6, 8)

    def forward(self, x, h=None):
        if h is None:
            h = self.init(x)
        h = self.cell(x, h)
        return h * 2, h


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


@case("attribute_over_time", "memory", states=["h"], way="scan", inputs=X)
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


@case("shifted_cache", "memory", states=["cache"], inputs=STEP, state={"cache": "float32[batch, 5, 6]"})
class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 6)

    def forward(self, x, cache):
        frames = torch.cat([cache, x[:, None]], 1)
        return self.conv(frames.transpose(1, 2))[..., 0], frames[:, 1:]


@case(
    "episode_start_flag",
    "memory",
    states=["h"],
    inputs={**STEP, "start": "float32[batch] in 0..1"},
    state={"h": H},
)
class ResetFlag(nn.Module):
    """A recurrent policy: a flag puts the state back."""

    def __init__(self):
        super().__init__()
        self.cell, self.pi, self.v = nn.GRUCell(6, 8), nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, x, start, h):
        h = self.cell(x, h * (1 - start)[:, None])
        return self.pi(h), self.v(h)[:, 0], h


@case(
    "constant_flag",
    "memory",
    states=["h"],
    inputs=STEP,
    state={"h": H},
    constants={"start": 0.0, "scale": 2},
)
class ConstantFlag(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, start, h, *, scale=1):
        h = self.cell(x, h * (1 - start))
        return h * scale, h


@case("other_method", "memory", states=["h"], inputs=STEP, state={"h": H}, method="step")
class OtherMethod(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x):
        raise NotImplementedError

    def step(self, x, h):
        h = self.cell(x, h)
        return h.tanh(), h


@case("step_given_time", "memory", states=["h"], way="scan", inputs=STEP, state={"h": H}, time=True)
class GivenTime(OtherMethod):
    def forward(self, x, h):
        h = self.cell(x, h)
        return h.tanh(), h


@case("state_minus_infinity", "memory", states=["best"], inputs=STEP)
class RunningMax(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("best", torch.full((1, 6), -float("inf")))

    def forward(self, x):
        self.best = torch.maximum(self.best.expand_as(x), x)
        return self.best


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


@case(
    "growing_argument",
    "memory",
    refused="growing-state",
    mentions="ring",
    inputs=STEP,
    state={"k": "float32[batch, past, 6]"},
)
class GrowingArgument(nn.Module):
    def forward(self, x, k):
        k = torch.cat([k, x[:, None]], 1)
        y = torch.softmax(torch.einsum("bf,bkf->bk", x, k), -1)
        return torch.einsum("bk,bkf->bf", y, k), k


class Cache:
    """A cache object that is no tuple, dict or dataclass."""

    def __init__(self, keys, seen):
        self.keys, self.seen = keys, seen


register_structure(
    Cache, lambda cache: {"keys": cache.keys, "seen": cache.seen}, lambda parts: Cache(**parts)
)


@case(
    "state_cache_object",
    "memory",
    states=["cache.keys", "cache.seen"],
    inputs=STEP,
    state={"cache": Cache("float32[batch, 4, 6]", "int64[] in 0..9")},
)
class CacheObject(nn.Module):
    def forward(self, x, cache):
        keys = torch.cat([cache.keys[:, 1:], x[:, None]], 1)
        return keys.mean(1) + cache.seen, Cache(keys, cache.seen + 1)
