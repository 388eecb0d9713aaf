"""The tracer: calls are told apart by who makes them and how often, and only while it is entered."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from rnnx_export.calls.tracer import CallTracer
from rnnx_export.calls.types import Lift


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(torch.cumsum(x, 1), 1)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Twice(), Twice()])

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cumsum(x, 1)
        for part in self.parts:
            y = part(y)
        return torch.cumsum(y.cumprod(1), 1)


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Twice()

    def forward(self, x: Tensor) -> Tensor:
        with contextlib.suppress(IndexError):
            self.part(x[0, 0])
        return torch.cumsum(x, 1)


def keys(module: nn.Module, x: Tensor) -> list[str]:
    with CallTracer(module) as tracer:
        module(x)
    return [one.key for one in tracer.recordings]


def test_each_call_has_a_key_of_its_own_and_the_same_in_every_run() -> None:
    module, x = Nested(), torch.randn(2, 3)
    expected = [
        ":cumsum:1", "parts.0:cumsum:1", "parts.0:cumsum:2", "parts.1:cumsum:1", "parts.1:cumsum:2",
        ":cumprod:1", ":cumsum:2",
    ]  # fmt: skip
    assert keys(module, x) == expected
    assert keys(module, torch.randn(4, 9)) == expected


def test_a_part_that_fails_gives_the_call_back_to_the_one_above() -> None:
    assert keys(Failing(), torch.randn(2, 3)) == [":cumsum:1"]


def test_nothing_is_seen_or_left_behind_once_it_is_over() -> None:
    module, x = Nested(), torch.randn(2, 3)
    before = module(x)
    with CallTracer(module) as tracer:
        module(x)
    count = len(tracer.recordings)
    assert torch.equal(module(x), before)
    assert len(tracer.recordings) == count
    hooks = [(part._forward_hooks, part._forward_pre_hooks) for part in module.modules()]
    assert not any(any(pair) for pair in hooks)


def test_a_lift_is_found_by_its_key_alone() -> None:
    module, x = Nested(), torch.randn(2, 3)
    lift = Lift("parts.1:cumsum:2", "cumsum", 1, ("sum",))
    with CallTracer(module, {lift.key: lift}, {"sum": torch.full((2,), 5.0)}) as tracer:
        got = module(x)
    inner = module.parts[0](torch.cumsum(x, 1)).cumsum(1)
    outer = torch.cumsum(inner, 1) + 5
    torch.testing.assert_close(got, torch.cumsum(outer.cumprod(1), 1))
    torch.testing.assert_close(tracer.next_states["sum"], outer[:, -1])


class Overwritten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        past = torch.zeros(x.shape[0], 1)
        y = torch.cat([past, x], 1)
        past.fill_(7)
        return y


def test_a_start_is_kept_as_it_was_when_the_call_was_made() -> None:
    module, x = Overwritten(), torch.randn(2, 3)
    with CallTracer(module) as tracer:
        module(x)
    assert torch.equal(tracer.recordings[0].start[0], torch.zeros(2, 1))


def test_the_line_is_the_modules_own() -> None:
    module, x = Twice(), torch.randn(2, 3)
    with CallTracer(module) as tracer:
        module(x)
    line = Twice.forward.__code__.co_firstlineno + 1
    assert {one.where for one in tracer.recordings} == {f"test_calls_tracer.py:{line}"}


def test_what_was_cut_off_is_known_again() -> None:
    x = torch.randn(2, 5, 3)
    with CallTracer(nn.Identity()) as tracer:
        cut, other = x[:, :-2], x[:, 1:3]
        source, axis, frames = tracer.uncut(cut)
        assert source is x
        assert (axis, frames) == (1, 2)
        same, axis, frames = tracer.uncut(other)
        assert same is other
        assert (axis, frames) == (-1, 0)


def test_the_first_handler_that_takes_a_call_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def handler(name: str, answer: object) -> object:
        def handle(tracer: object, func: object, args: object, kwargs: object) -> object:
            asked.append(name)
            return answer

        return handle

    takes = (handler("first", NotImplemented), handler("second", 2), handler("third", 3))
    monkeypatch.setattr("rnnx_export.calls.tracer.HANDLERS", {"cumsum": takes, "cumprod": takes[:1]})
    with CallTracer(nn.Identity()):
        assert torch.cumsum(torch.ones(2), 0) == 2
        assert asked == ["first", "second"]
        assert torch.equal(torch.cumprod(torch.ones(2), 0), torch.ones(2))
