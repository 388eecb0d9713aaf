"""The module driven as its author would: every container, every mixture of replaced and changed in place."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import rnnx
from rnnx.errors import RnnxError
from rnnx.testing import assert_parity
from rnnx_export.states import discover
from rnnx_export.states.arguments import Feedback
from rnnx_export.states.export_plan import Argument

WIDTH, FRAMES, STEPS = 6, 4, 30


class Pair(NamedTuple):
    past: Any
    total: Any


@dataclasses.dataclass
class Memory:
    past: Any
    total: Any


CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda past, total: (past, total),
    "list": lambda past, total: [past, total],
    "dict": lambda past, total: {"past": past, "total": total},
    "dict in another order": lambda past, total: {"total": total, "past": past},
    "named tuple": Pair,
    "dataclass": Memory,
    "deque": lambda past, total: collections.deque([past, total], maxlen=2),
    "nested": lambda past, total: {"a": (past,), "b": [total]},
}
CHANGEABLE = [name for name in CONTAINERS if name not in ("tuple", "named tuple", "nested")]


def parts(state: Any) -> tuple[Any, Any]:
    if isinstance(state, dict):
        return (state["past"], state["total"]) if "past" in state else (state["a"][0], state["b"][0])
    return (state.past, state.total) if hasattr(state, "past") else tuple(state)


def put(state: Any, past: Any, total: Any) -> None:
    """Put other tensors into the container that was passed."""
    if isinstance(state, dict):
        state["past"], state["total"] = past, total
    elif isinstance(state, Memory):
        state.past, state.total = past, total
    else:
        state[0], state[1] = past, total


PASTS: dict[str, Callable[[Any, Any], Any]] = {
    "replaced": lambda past, x: torch.cat([past[:, 1:], x[:, None]], 1),
    "copied": lambda past, x: past.copy_(torch.cat([past[:, 1:], x[:, None]], 1)),
    "rolled and written": lambda past, x: _written(past, x),
}
TOTALS: dict[str, Callable[[Any, Any], Any]] = {
    "replaced": lambda total, x: 0.9 * total + x,
    "in place": lambda total, x: total.mul_(0.9).add_(x),
    "through a view": lambda total, x: (total.view(-1).mul_(0.9).add_(x.reshape(-1)), total)[1],
}


def _written(past: Any, x: Any) -> Any:
    past.copy_(torch.roll(past, -1, 1))
    past[:, -1] = x
    return past


class Net(nn.Module):
    """y depends on both parts; each is brought up to date in its own way."""

    def __init__(self, container: str, past: str, total: str, result: str) -> None:
        super().__init__()
        self.make, self.past, self.total, self.result = (
            CONTAINERS[container],
            PASTS[past],
            TOTALS[total],
            result,
        )

    def forward(self, x: Any, state: Any) -> Any:
        past, total = parts(state)
        past, total = self.past(past, x), self.total(total, x)
        y = torch.tanh(past.mean(1) + 0.3 * total)
        if self.result == "put":
            put(state, past, total)
        if self.result in ("put", "left"):
            return y
        made = self.make(past, total)
        return {"first": (made, y), "last": (y, made), "dict": {"y": y, "state": made}}[self.result]


def expected(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The recurrence by itself, [step, batch, width]: outputs, and both parts at the end."""
    past = np.zeros((x.shape[1], FRAMES, WIDTH))
    total = np.zeros((x.shape[1], WIDTH))
    rows = []
    for row in x.astype(np.float64):
        past = np.concatenate([past[:, 1:], row[:, None]], 1)
        total = 0.9 * total + row
        rows.append(np.tanh(past.mean(1) + 0.3 * total))
    return np.stack(rows), past, total


def specs(container: str) -> Any:
    return CONTAINERS[container](f"float32[batch, {FRAMES}, {WIDTH}]", f"float32[batch, {WIDTH}]")


def export(module: nn.Module, path: Path, state: Any, **more: Any) -> Any:
    return rnnx.export(
        module, path / "net.onnx", inputs={"x": f"float32[batch, {WIDTH}]"}, state=state, **more
    )


def assert_is_the_recurrence(made: Any, container: str) -> None:
    x = np.random.default_rng(0).standard_normal((STEPS, 3, WIDTH)).astype(np.float32)
    outputs, past, total = expected(x)
    stream = rnnx.load(made.path).stream(batch=3)
    got = np.stack([next(iter(stream.step(row).values())) for row in x])
    np.testing.assert_allclose(got, outputs, rtol=0, atol=1e-5)
    ends = [stream.state[state.name] for state in made.contract.states]
    if container == "dict in another order":
        ends.reverse()
    np.testing.assert_allclose(ends[0], past, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ends[1], total, rtol=0, atol=1e-5)


MIXTURES = [
    (container, past, total, ("last", "first", "dict")[index % 3])
    for index, (container, past, total) in enumerate(
        (container, past, total)
        for container in CONTAINERS
        for past, total in zip(
            (*PASTS, "replaced"), ("in place", "replaced", "through a view", "replaced"), strict=True
        )
    )
]


@pytest.mark.parametrize(("container", "past", "total", "result"), MIXTURES)
def test_a_returned_state_is_carried_whatever_was_changed_in_place(
    container: str, past: str, total: str, result: str, tmp_path: Path
) -> None:
    net = Net(container, past, total, result)
    made = export(net, tmp_path, {"state": specs(container)})
    assert len(made.contract.outputs) == 1
    assert_is_the_recurrence(made, container)


@pytest.mark.parametrize("container", CHANGEABLE)
@pytest.mark.parametrize(
    ("past", "total"), [("copied", "replaced"), ("replaced", "in place"), ("replaced",) * 2]
)
def test_a_state_put_into_the_argument_is_carried(
    container: str, past: str, total: str, tmp_path: Path
) -> None:
    made = export(Net(container, past, total, "put"), tmp_path, {"state": specs(container)})
    assert_is_the_recurrence(made, container)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_state_changed_in_place_and_not_returned_is_carried(container: str, tmp_path: Path) -> None:
    made = export(Net(container, "copied", "in place", "left"), tmp_path, {"state": specs(container)})
    assert_is_the_recurrence(made, container)


# Two readings of one call.


class Scratch(nn.Module):
    """The argument is used up as scratch paper; what comes back is the state."""

    def forward(self, x: Any, h: Any) -> Any:
        h *= 0.9
        new = h + x
        return new.sum(1), new


class Both(nn.Module):
    """The argument becomes memory, and a second result has its shape: or the other way round."""

    def forward(self, x: Any, h: Any) -> Any:
        h.mul_(0.9).add_(x)
        return h.sum(1), torch.tanh(h)


class Shadowed(nn.Module):
    """The argument is brought up to date in place, and its name is then used for something else."""

    def forward(self, x: Any, h: Any) -> Any:
        h.mul_(0.9).add_(x)
        h = torch.tanh(h)
        return h  # noqa: RET504 - the name is the point


def test_a_name_that_contradicts_what_was_changed_is_not_trusted(tmp_path: Path) -> None:
    state = {"h": f"float32[batch, {WIDTH}]"}
    with pytest.raises(RnnxError) as refusal:
        export(Shadowed(), tmp_path, state)
    assert refusal.value.code == "state-ambiguous"
    x = np.random.default_rng(0).standard_normal((20, 1, WIDTH)).astype(np.float32)
    for names, keeps in (("h", np.tanh), ("squashed", lambda h: h)):
        made = export(Shadowed(), tmp_path, state, returns=names)
        stream, h = rnnx.load(made.path).stream(batch=1), 0.0
        for row in x:
            h = 0.9 * h + row
            np.testing.assert_allclose(next(iter(stream.step(row).values())), np.tanh(h), rtol=0, atol=1e-5)
            h = keeps(h)


def test_an_argument_used_as_scratch_paper_is_no_memory(tmp_path: Path) -> None:
    made = export(Scratch(), tmp_path, {"h": f"float32[batch, {WIDTH}]"})
    stream, h = rnnx.load(made.path).stream(batch=1), np.zeros((1, WIDTH))
    for row in np.random.default_rng(0).standard_normal((20, 1, WIDTH)).astype(np.float32):
        h = 0.9 * h + row
        np.testing.assert_allclose(stream.step(row)["y"], h.sum(1), rtol=0, atol=1e-5)


class Counts(nn.Module):
    """Counts calls in its argument, and gives what has the shape of the count."""

    def __init__(self, *, more: bool) -> None:
        super().__init__()
        self.more = more

    def forward(self, x: Any, count: Any) -> Any:
        count.flatten(1).copy_((count + 1).flatten(1))
        y = x * torch.cos(0.25 * count)
        return (y, x + 1) if self.more else y


def test_an_argument_that_counts_calls_is_memory_though_it_takes_no_input_in(tmp_path: Path) -> None:
    specs = {"inputs": {"x": "float32[batch, 1]"}, "state": {"count": "float32[batch, 1]"}}
    made = rnnx.export(Counts(more=False), tmp_path / "m.onnx", **specs)
    stream = rnnx.load(made.path).stream(batch=2)
    for step in range(1, 20):
        y = stream.step(np.ones((2, 1), np.float32))["y"]
        np.testing.assert_allclose(y, np.cos(0.25 * step), rtol=0, atol=1e-6)
    with pytest.raises(RnnxError) as refusal:
        rnnx.export(Counts(more=True), tmp_path / "two.onnx", **specs)
    assert refusal.value.code == "state-ambiguous"


def test_two_readings_that_differ_are_refused_and_names_settle_either(tmp_path: Path) -> None:
    state = {"h": f"float32[batch, {WIDTH}]"}
    with pytest.raises(RnnxError) as refusal:
        export(Both(), tmp_path, state)
    assert refusal.value.code == "state-ambiguous"
    assert "returns=(" in refusal.value.fix
    x = np.random.default_rng(0).standard_normal((20, 1, WIDTH)).astype(np.float32)
    for names, keeps in ((("total", "h"), np.tanh), (("total", "squashed"), lambda h: h)):
        stream, h = rnnx.load(export(Both(), tmp_path, state, returns=names).path).stream(batch=1), 0.0
        for row in x:
            inner = 0.9 * h + row
            h = keeps(inner)
            np.testing.assert_allclose(stream.step(row)["total"], inner.sum(1), rtol=0, atol=1e-4)


# Each check catches the fault by itself.


def all_in_place(*args: Any) -> dict[str, Feedback]:
    return {name: Feedback(None, {}) for name in args[0]}


def test_a_state_that_stands_still_beside_an_output_of_its_shape_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was changed is taken for all of the state: the argument goes in again, a part of it as it was."""
    monkeypatch.setattr(discover, "pair", all_in_place)
    with pytest.raises(RnnxError) as refusal:
        export(Net("dict", "copied", "replaced", "last"), tmp_path, {"state": specs("dict")})
    assert refusal.value.code == "state-ambiguous"
    assert "state.total" in refusal.value.expected
    assert not list(tmp_path.iterdir())


def test_a_plan_that_carries_another_thing_than_is_handed_back_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(subject: Any, pairs: Any) -> Any:
        return {name: Argument(*subject.place(name)) for name in subject.states}

    monkeypatch.setattr(discover, "_origins", wrong)
    with pytest.raises(RnnxError) as refusal:
        export(Net("dict", "copied", "replaced", "last"), tmp_path, {"state": specs("dict")})
    assert refusal.value.code == "not-exported"
    assert "expected" in refusal.value.found
    assert not list(tmp_path.iterdir())


# What a state is good for.


class Spiking(nn.Module):
    """Fires when enough has come in: small differences in its memory show after many steps, or never."""

    def forward(self, x: Any, mem: Any) -> Any:
        mem = 0.95 * mem + 0.1 * x
        spikes = (mem > 2).to(x.dtype)
        return spikes, mem - 2 * spikes


class Counting(nn.Module):
    """Nothing reads the count, which the caller is told all the same."""

    def forward(self, x: Any, count: Any) -> Any:
        return x.tanh(), count + 1


def test_a_spiking_layers_memory_is_not_called_useless(tmp_path: Path) -> None:
    made = export(Spiking(), tmp_path, {"mem": f"float32[batch, {WIDTH}]"}, returns=("spikes", "mem"))
    assert not [note for note in made.notes if "depend" in note]


def test_a_state_that_nothing_reads_is_named(tmp_path: Path) -> None:
    made = export(Counting(), tmp_path, {"count": f"float32[batch, {WIDTH}]"}, returns=("y", "count"))
    assert [note for note in made.notes if note.startswith("nothing was seen to depend on state 'count'")]


class Chain(nn.Module):
    """Two states of one shape, one behind the other."""

    def forward(self, x: Any, state: Any) -> Any:
        first, second = state
        first = 0.9 * first + x
        second = 0.5 * second + first
        return (first + 2 * second).sum(1), (first, second)


def test_parity_holds_the_plan_to_the_module_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"state": (f"float32[batch, {WIDTH}]",) * 2}
    made = export(Chain(), tmp_path, state)
    assert_parity(made.path, Chain(), state=state)
    honest = discover._origins

    def swapped(subject: Any, pairs: Any) -> Any:
        found = honest(subject, pairs)
        return dict(zip(found, reversed(found.values()), strict=True))

    monkeypatch.setattr(discover, "_origins", swapped)
    with pytest.raises(RnnxError) as refusal:
        assert_parity(made.path, Chain(), state=state)
    assert refusal.value.code == "reference-differs"
