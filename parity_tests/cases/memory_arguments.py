"""Memory in arguments: tuples, dicts, dataclasses and objects of states, handed in and out."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import nn

from cases.registry import case
from rnnx_export.module.structure import register_structure

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
    state={"a": STEP["x"], "b": STEP["x"]},
)
class Ambiguous(nn.Module):
    def forward(self, x, a, b):
        return a - b, 0.5 * b + x, 0.9 * a + x


@case("two_states_by_flow", "memory", states=["a", "b"], inputs=STEP, state={"a": H, "b": H})
class ByFlow(nn.Module):
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


@case("step_given_time", "memory", states=["h"], route="scan", inputs=STEP, state={"h": H}, time=True)
class GivenTime(OtherMethod):
    def forward(self, x, h):
        h = self.cell(x, h)
        return h.tanh(), h


@case(
    "carried_sum_before_layers",
    "memory",
    states=["total", "layer.h"],
    inputs={"x": "float32[batch, time, 6]"},
    state={"total": "float32[batch, 6]"},
)
class CarriedSumBeforeLayers(nn.Module):
    """The sum over a call is carried by the caller; the layer's state is not."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(6, 6, batch_first=True)

    def forward(self, x, total):
        sums = total.unsqueeze(1) + torch.cumsum(x, 1)
        return self.layer(torch.tanh(0.25 * sums))[0], sums[:, -1]


@case(
    "sum_of_a_call_carried",
    "memory",
    states=["total"],
    inputs={"x": "float32[batch, time, 6]"},
    state={"total": "float32[batch, 6]"},
)
class SumOfACall(nn.Module):
    """A sum over all steps of a call, which no output of an earlier step sees."""

    def forward(self, x, total):
        sums = total.unsqueeze(1) + torch.cumsum(x, 1)
        return torch.tanh(0.25 * sums), total + x.sum(1)


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


@case(
    "state_with_an_empty_part",
    "memory",
    states=["states.1"],
    inputs={"x": "float32[batch, 6]"},
    state={"states": None},
)
class EmptyPart(nn.Module):
    """A bank of no entries beside a state: it holds nothing, and is no state of the model."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 6)

    def forward(self, x, states=None):
        if states is None:
            states = [x.new_zeros(0, x.shape[0], 6), torch.zeros(x.shape[0], 6)]
        bank, h = states
        h = self.cell(x, h)
        return torch.cat([bank, h[None]]).sum(0).tanh(), [bank, h]
