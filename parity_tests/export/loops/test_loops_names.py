"""What a loop carries is called what its author called it."""

from __future__ import annotations

import types

import pytest
import torch
from torch import Tensor, nn

from rnnx_export.loops.matcher import Matcher
from rnnx_export.loops.unroll import _captured, _matched
from rnnx_export.module.subject import Subject
from rnnx_export.states.discover import discover

X = {"x": "float32[batch, time, 5]"}


class Cell(nn.Module):
    """A cell with names of its own for what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.back = nn.Linear(5, 32), nn.Linear(8, 32)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, z = (self.into(x) + self.back(h)).chunk(4, -1)
        c_next = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(z)
        return torch.sigmoid(o) * torch.tanh(c_next), c_next


class Tuples(nn.Module):
    """The caller's names go before the cell's."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell()

    def forward(self, x: Tensor) -> Tensor:
        hidden = memory = x.new_zeros(x.shape[0], 8)
        rows = []
        for step in range(x.shape[1]):
            hidden, memory = self.cell(x[:, step], hidden, memory)
            rows.append(hidden)
        return torch.stack(rows, 1)


class Doubled(nn.Module):
    """A step in a module of its own, which gives the states in a tuple in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell()

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = self.cell(x, *state)
        return 2 * h, (h, c)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = Doubled()

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.new_zeros(x.shape[0], 8), x.new_zeros(x.shape[0], 8)
        rows = []
        for frame in x.unbind(1):
            y, (first, second) = self.one(frame, (first, second))
            rows.append(y)
        return torch.stack(rows, 1)


class Hidden(nn.Module):
    """A method stands between, of which no line is kept: the name is the cell's."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Doubled()

    def one(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.cell(x, state)

    def forward(self, x: Tensor) -> Tensor:
        state = (x.new_zeros(x.shape[0], 8), x.new_zeros(x.shape[0], 8))
        rows = []
        for frame in x.unbind(1):
            y, state = self.one(frame, state)
            rows.append(y)
        return torch.stack(rows, 1)


class Elements(nn.Module):
    """Attributes of an object, and elements of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.back = nn.Linear(5, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        neuron = types.SimpleNamespace(level=torch.zeros_like(x[:, 0]))
        traces = [torch.zeros_like(x[:, 0])]
        rows = []
        for frame in x.unbind(1):
            neuron.level = torch.tanh(self.back(neuron.level) + frame)
            traces[0] = 0.5 * traces[0] + neuron.level
            rows.append(traces[0])
        return torch.stack(rows, 1)


class Layered(nn.Module):
    """A module inside has the loop: its path goes before the name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Elements(), Tuples()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Nameless(nn.Module):
    """No line says what is carried: it is computed inside another call."""

    def forward(self, x: Tensor) -> Tensor:
        rows = [torch.zeros_like(x[:, 0])]
        for frame in x.unbind(1):
            rows.extend([torch.tanh(0.5 * rows[-1] + frame)])
        return torch.stack(rows[1:], 1)


WANTED: dict[type[nn.Module], set[str]] = {
    Tuples: {"hidden", "memory"},
    Nested: {"first", "second"},
    Hidden: {"cell.h", "cell.c"},
    Elements: {"level", "traces"},
    Layered: {"layers.0.level", "layers.0.traces", "layers.1.hidden", "layers.1.memory"},
    Nameless: {"carried"},
}


def smallest(kind: type[nn.Module]) -> Matcher:
    torch.manual_seed(0)
    plan = discover(Subject(kind(), X))
    return _matched(plan, *_captured(plan, 4))[0]


@pytest.mark.parametrize("kind", WANTED)
def test_what_is_carried_has_the_name_that_the_author_gave_it(kind: type[nn.Module]) -> None:
    assert {state.name for state in smallest(kind).new_states()} == WANTED[kind]


def test_what_is_carried_is_the_value_and_not_its_wider_product() -> None:
    for state in smallest(Tuples).new_states():
        assert state.spec.shape == ("batch", 8)
