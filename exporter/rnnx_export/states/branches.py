"""Decisions on a tensor's value, which no graph makes: a side of each is settled, or both are computed.

`if torch.all(starts == 0): fast() else: general()` has one side that is right whatever the inputs, and the
graph holds that. The module is run with one side forced, on inputs of many kinds, and has to give what it
gives by itself, also where by itself it takes the other side. Where no side is, both are computed, and chosen
from. What only raises, asserts, and what hangs on constants alone are taken as they were seen.
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import functools
import linecache
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rnnx_export.calls.tracer import CallTracer
from rnnx_export.calls.types import Decision
from rnnx_export.diagnostics import calling_frame
from rnnx_export.module import attributes
from rnnx_export.module.structure import flatten, tensors
from rnnx_export.states.observations import Exploration

_DRAWS, _CALLS = 24, 3
_MOST_BOTH = 3  # of which both sides are computed: each doubles the work
_CLOSE = 1e-4  # two sides in one precision, relative to 1 + |value|
Drawn = list[tuple[dict[str, Tensor], dict[str, Tensor | None]]]


@dataclasses.dataclass(frozen=True)
class Settled:
    """What is known of the decisions of a module.

    Attributes:
        sides: by key, the side that is right for all inputs.
        both: keys of those that have none: both sides have to be computed.
        notes: what the user should know.
    """

    sides: Mapping[str, bool]
    both: tuple[str, ...]
    notes: list[str]


def settle(seen: Exploration) -> Settled:
    """Return what a graph has to make of the decisions of a module; those it cannot hold are left out."""
    made = [call.decisions for run in (seen.base, seen.other) for call in (run.first, run.second)]
    if not any(made):
        return Settled({}, (), [])
    trials = _Trials(seen)
    every = {decision.key: decision for decision in (*(d for call in made for d in call), *trials.decisions)}
    repeated = {
        key for call in made for key, count in collections.Counter(d.key for d in call).items() if count > 1
    }
    sides: dict[str, bool] = {}
    both: list[str] = []
    notes: list[str] = []
    for key, decision in every.items():
        if _only_raises(decision.file, decision.line) or key not in trials.varying:
            sides[key] = decision.value
            continue
        place = f"{os.path.basename(decision.file)}:{decision.line}: `{_source(decision)}`"
        times = collections.Counter(other.value for other in trials.decisions if other.key == key)
        right = [side for side in (False, True) if trials.same_with({key: side})] if len(times) > 1 else []
        if right:
            # Of two that are right, the one that was taken less often is the general one.
            side = sides[key] = min(right, key=lambda side: times[side])
            notes.append(
                f"{place} is {side} in the file: was {not side} {times[not side]} of {times.total()} times, "
                f"where {side} gives the same"
            )
        elif key not in repeated:
            both.append(key)
            notes.append(f"{place} decides on values: the file computes both sides and chooses")
    if len(both) > _MOST_BOTH or (sides and not trials.same_with(sides)):
        return Settled({}, (), [])
    return Settled(sides, tuple(both), notes)


class _Trials:
    """Calls of a module on inputs of many kinds, by itself and with sides of its decisions forced.

    Attributes:
        decisions: that it made by itself.
        varying: keys of those that hang on inputs, states or memory.
    """

    def __init__(self, seen: Exploration) -> None:
        self._seen = seen
        self.decisions: list[Decision] = []
        self.varying: set[str] = set()
        self._runs: list[tuple[Drawn, list[Any]]] = []
        for draw in range(_DRAWS):
            generator = torch.Generator().manual_seed(10_000 + draw)
            drawn = [self._draw(generator, draw) for _ in range(_CALLS)]
            try:
                results = self._run(drawn, {}, self.decisions)
            except Exception:  # the user's own code may refuse such inputs in any way it likes
                continue
            self._runs.append((drawn, results))
        self._find_varying()

    def same_with(self, sides: Mapping[str, bool]) -> bool:
        """Whether the module gives the same with decisions forced as by itself."""
        for drawn, expected in self._runs:
            try:
                got = self._run(drawn, sides, [])
            except Exception:  # the side that is not meant for these inputs may fail in any way
                return False
            if not _alike(expected, got):
                return False
        return True

    def _draw(
        self, generator: torch.Generator, draw: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        subject, sizes = self._seen.subject, self._seen.sizes
        take = "random" if draw < 2 else "odd"
        return (
            {name: getattr(spec, take)(sizes, generator) for name, spec in subject.inputs.items()},
            {
                name: None if spec is None else getattr(spec, take)(sizes, generator)
                for name, spec in subject.states.items()
            },
        )

    def _run(self, drawn: Drawn, sides: Mapping[str, bool], decisions: list[Decision]) -> list[Any]:
        subject = self._seen.subject
        module = subject.fresh()
        results = []
        for inputs, states in drawn:
            passed = subject.arguments(
                {name: value.clone() for name, value in inputs.items()},
                {name: None if value is None else value.clone() for name, value in states.items()},
            )
            with CallTracer(module, sides=sides, forced=True) as tracer:
                results.append(subject.invoke(module, passed))
            results += [passed[name] for name in subject.state_trees()]
            decisions += tracer.decisions
        return results

    def _find_varying(self) -> None:
        """Find what hangs on more than constants and parameters, by following tensors through two calls."""
        seen = self._seen
        module = seen.subject.fresh()
        inputs, states = seen.draw(0)
        for _ in range(2):
            passed = seen.subject.arguments(inputs, states)
            memory = [attributes.read(module, place) for place in seen.base.written]
            follower = _Follower([value for _, value in tensors([list(passed.values()), memory])])
            with follower, CallTracer(module):
                seen.subject.invoke(module, passed)
            self.varying |= follower.varying
        # What only some inputs reach was not followed: it hangs on them.
        reached = follower.decided
        self.varying |= {decision.key for decision in self.decisions} - reached


class _Follower(TorchFunctionMode):
    """Follows what is computed from some tensors, and notes the decisions that hang on it.

    Attributes:
        decided, varying: keys of all decisions, and of those that hang on the tensors.
    """

    def __init__(self, roots: list[Tensor]) -> None:
        super().__init__()
        self._from = {id(value): value for value in roots}
        self.decided: set[str] = set()
        self.varying: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a call, and remember its result if it took anything that is followed."""
        kwargs = kwargs or {}
        followed = any(id(value) in self._from for _, value in flatten([list(args), list(kwargs.values())]))
        result = func(*args, **kwargs)
        if getattr(func, "__name__", "") == "__bool__":
            frame = calling_frame()
            assert frame is not None
            key = f"{frame.f_code.co_filename}:{frame.f_lineno}:{frame.f_lasti}"
            self.decided.add(key)
            self.varying |= {key} if followed else set()
        if followed:
            written = [args[0]] if args and isinstance(args[0], Tensor) else []
            for _, value in tensors([result, written]):
                self._from[id(value)] = value
        return result


def _alike(expected: list[Any], got: list[Any]) -> bool:
    left, right = flatten(expected), flatten(got)
    if [path for path, _ in left] != [path for path, _ in right]:
        return False
    for (_, one), (_, other) in zip(left, right, strict=True):
        if isinstance(one, Tensor) != isinstance(other, Tensor):
            return False
        if isinstance(one, Tensor) and (
            one.shape != other.shape
            or not torch.allclose(
                one.to(torch.complex128), other.to(torch.complex128), _CLOSE, _CLOSE, equal_nan=True
            )
        ):
            return False
    return True


def _source(decision: Decision) -> str:
    return linecache.getline(decision.file, decision.line).strip()


def _only_raises(file: str, line: int) -> bool:
    """Whether the statement at a line of a file is an assert, or an if that does nothing but raise."""
    found = None
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Assert) and node.lineno <= line <= (node.end_lineno or 0):
            return True
        if isinstance(node, ast.If) and node.test.lineno <= line <= (node.test.end_lineno or 0):
            found = node
    return found is not None and not found.orelse and isinstance(found.body[-1], ast.Raise)


@functools.cache
def _parsed(file: str) -> ast.Module:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ast.Module([], [])
