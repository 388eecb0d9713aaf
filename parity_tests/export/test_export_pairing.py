"""Which part of the result a state goes on as, where neither names nor structure say: settled by evidence."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from rnnx.errors import UsageError

X = {"x": "float32[batch, time, 6]"}
ROWS = "float32[1, batch, 8]"
SEPARATE = {"a": ROWS, "b": ROWS}
Parts = dict[str, Any]


class Layer(nn.Module):
    """An LSTM that returns y, h and c in any order; its states are called a and b, which says nothing."""

    def __init__(self, order: str, together: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.order, self.together = order, together

    def run(self, x: Tensor, start: tuple[Tensor, Tensor]) -> Any:
        y, (h, c) = self.lstm(x, start)
        parts = {"y": y, "h": h, "c": c}
        if self.together:
            return y, tuple(parts[name] for name in self.order)
        return tuple(parts[name] for name in self.order)

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> Any:
        return self.run(x, (a, b))


class OneTuple(Layer):
    def forward(self, x: Tensor, both: tuple[Tensor, Tensor]) -> Any:  # type: ignore[override]
        return self.run(x, both)


class Views(Layer):
    """States of another layout than the layer's."""

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> Any:
        result = self.run(x, (a.t()[None].contiguous(), b[:, 0][None].contiguous()))
        named = dict(zip(self.order, result, strict=True))
        return tuple(
            {"y": named["y"], "h": named["h"][0].t(), "c": named["c"][0][:, None]}[n] for n in self.order
        )


class ByHand(Layer):
    """No layer that could be looked into: only time tells."""

    def __init__(self, order: str) -> None:
        super().__init__(order)
        self.gates = nn.Linear(14, 32)

    def run(self, x: Tensor, start: tuple[Tensor, Tensor]) -> Any:
        h, c = start[0][0], start[1][0]
        ys = []
        for step in range(x.shape[1]):
            i, f, g, o = self.gates(torch.cat([x[:, step], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            ys.append(h)
        parts = {"y": torch.stack(ys, 1), "h": h[None], "c": c[None]}
        return tuple(parts[name] for name in self.order)


ORDERS = ["".join(order) for order in itertools.permutations("yhc")]


def ends(module: Layer, chunks: list[Tensor], start: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return h and c after some chunks, handed on as PyTorch's own layer means them."""
    for chunk in chunks:
        result = (
            Layer.run(module, chunk, start) if not isinstance(module, ByHand) else module.run(chunk, start)
        )
        found = result[1] if module.together else result
        names = module.order
        start = tuple(found[names.index(name)] for name in "hc")  # type: ignore[assignment]
    return start


def exported(module: Layer, state: Parts, path: Path) -> rnnx.Session:
    made = rnnx.export(module.eval(), path / "m.onnx", inputs=X, state=state)
    assert any("goes on as" in note for note in made.notes), "nothing says by what it was settled"
    return rnnx.load(made.path)


def assert_right(module: Layer, session: rnnx.Session, shaped: Callable[[str, Tensor], Tensor]) -> None:
    """Hold the file's states after two chunks, from other states than 0, to the layer's own."""
    generator = torch.Generator().manual_seed(1)
    chunks = [torch.randn(3, steps, 6, generator=generator) for steps in (4, 5)]
    start = (torch.randn(1, 3, 8, generator=generator), torch.randn(1, 3, 8, generator=generator))
    names = [spec.name for spec in session.contract.states]
    with torch.no_grad():
        expected = dict(zip(names, ends(module, chunks, start), strict=True))
    initial = {
        name: shaped(part, value).numpy() for part, name, value in zip("hc", names, start, strict=True)
    }
    with session.stream(batch=3, initial=initial) as stream:
        for chunk in chunks:
            stream.run(chunk.numpy())
        for part, name in zip("hc", names, strict=True):
            want = shaped(part, expected[name]).numpy()
            np.testing.assert_allclose(stream.state[name], want, atol=2e-5, err_msg=name)


def as_they_are(part: str, value: Tensor) -> Tensor:
    return value


@pytest.mark.parametrize("order", ORDERS)
def test_separate_states_of_one_shape_in_any_order(order: str, tmp_path: Path) -> None:
    module = Layer(order)
    assert_right(module, exported(module, SEPARATE, tmp_path), as_they_are)


@pytest.mark.parametrize("order", ["yhc", "ych", "chy"])
def test_a_tuple_that_comes_back_as_separate_parts(order: str, tmp_path: Path) -> None:
    module = OneTuple(order)
    assert_right(module, exported(module, {"both": (ROWS, ROWS)}, tmp_path), as_they_are)


@pytest.mark.parametrize("order", ["hc", "ch"])
def test_separate_states_that_come_back_as_a_tuple(order: str, tmp_path: Path) -> None:
    module = Layer(order, together=True)
    assert_right(module, exported(module, SEPARATE, tmp_path), as_they_are)


@pytest.mark.parametrize("order", ["ych", "chy"])
def test_through_views_and_transpositions(order: str, tmp_path: Path) -> None:
    def shaped(part: str, value: Tensor) -> Tensor:
        return value[0].t().contiguous() if part == "h" else value[0][:, None].contiguous()

    module = Views(order)
    state = {"a": "float32[8, batch]", "b": "float32[batch, 1, 8]"}
    made = rnnx.export(module.eval(), tmp_path / "m.onnx", inputs=X, state=state)
    assert_right(module, rnnx.load(made.path), shaped)


@pytest.mark.parametrize("order", ["yhc", "cyh", "chy"])
def test_what_only_time_tells(order: str, tmp_path: Path) -> None:
    module = ByHand(order)
    assert_right(module, exported(module, SEPARATE, tmp_path), as_they_are)


class Misnamed(Layer):
    """Calls the cell's state h, and hands it back under that name."""

    def __init__(self) -> None:
        super().__init__("yhc")

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:  # type: ignore[override]
        y, (c, h) = self.lstm(x, (h, c))
        return y, h, c


def test_names_that_evidence_contradicts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="by its name") as refusal:
        rnnx.export(Misnamed().eval(), tmp_path / "m.onnx", inputs=X, state={"h": ROWS, "c": ROWS})
    assert refusal.value.code == "state-ambiguous"
    assert not list(tmp_path.iterdir())
    # What the caller says goes before.
    given = {"inputs": X, "state": {"h": ROWS, "c": ROWS}, "returns": ("y", "c", "h")}
    contract = rnnx.export(Misnamed().eval(), tmp_path / "m.onnx", **given).contract
    assert [spec.name for spec in contract.states] == ["h", "c"]


class Step(nn.Module):
    """Single steps of a cell by hand: nothing tells its states apart."""

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (x + a) @ torch.ones(6, 2), torch.tanh(b + x), torch.tanh(a * b)


def test_what_nothing_settles_is_refused_with_the_call_to_paste(tmp_path: Path) -> None:
    state = {"a": "float32[batch, 6]", "b": "float32[batch, 6]"}
    with pytest.raises(UsageError, match=r"returns=\('y', 'a', 'b'\)") as refusal:
        rnnx.export(Step(), tmp_path / "m.onnx", inputs={"x": "float32[batch, 6]"}, state=state)
    assert refusal.value.code == "state-ambiguous"
