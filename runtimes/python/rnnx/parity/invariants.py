"""Invariants: what must hold for a runtime by itself, whatever it computes.

Any chunking gives one answer, a reset begins anew, rows of a batch know nothing of each other, a snapshot
continues where it was made, and nothing looks ahead. Each check runs a few steps of random inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnx.errors import RnnxError
from rnnx.model.contract import Contract, axis_index, step_shape
from rnnx.model.shapes import Array, chunk_shape, has_steps, to_steps
from rnnx.parity.lazy_inputs import drawn_inputs
from rnnx.parity.lockstep import chunk_inputs
from rnnx.runtime.stream import Stream
from rnnx.session import Session
from rnnx.tolerance import Bound, Level, error_beyond, relative_error

STEPS = 24
_BATCHES = (1, 3, 5)
_ROWS = 3
Rows = dict[str, Array]
_WHOLE = "the model takes whole sequences only"


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: such as `chunkings`.
        holds: whether it does; None where it does not apply to the model.
        detail: one line: what was done, or where it failed, or why it does not apply.
        max_error: largest difference seen, relative to 1 + |expected|.
    """

    name: str
    holds: bool | None
    detail: str
    max_error: float = 0.0


def check_invariants(
    session: Session,
    levels: Mapping[str, Level],
    *,
    sizes: Mapping[str, int],
    seed: int = 0,
    steps: int = STEPS,
) -> list[Check]:
    """Run every check on one runtime.

    Args:
        session: the runtime.
        levels: tolerance by tensor; what should be equal bit for bit is, whatever these say.
        sizes: of the free dimensions.
        seed: of inputs and chunks.
        steps: to run; fewer for a chaotic network, which soon enlarges the rounding that two routes differ
            by.
    """
    runner = _Runner(session, levels, sizes, seed, steps)
    checks = []
    for name, check in _CHECKS.items():
        try:
            checks.append(check(runner, name))
        except RnnxError as error:
            checks.append(Check(name, False, f"{error.code}: {error.found}"))
    return checks


class _Runner:
    """Runs a session on random inputs by various routes."""

    def __init__(
        self,
        session: Session,
        levels: Mapping[str, Level],
        sizes: Mapping[str, int],
        seed: int,
        steps: int,
    ) -> None:
        self.steps = steps
        self.session, self.contract, self.levels = session, session.contract, levels
        self.batch = _ROWS if self.contract.has_batch else 1
        self._sizes, self._seed = sizes, seed

    def inputs(self, seed: int = 0) -> Rows:
        """Return the rows of a few steps, [step, ...]."""
        sizes = {**self._sizes, "batch": self.batch}
        drawn = drawn_inputs(self.contract, steps=self.steps, sizes=sizes, seed=self._seed + seed)
        values = {name: np.asarray(rows) for name, rows in drawn.items()}
        # Nothing says what a row gives past its length, so that all are valid to the end here.
        ends = {spec.name for spec in self.contract.inputs if spec.role == "length"}
        return values | {name: np.full_like(values[name], self.steps) for name in ends}

    def stream(self, batch: int | None = None) -> Stream:
        """Open a stream."""
        free = self.contract.free_dimensions
        dims = {name: self._sizes[name] for name in free if name in self._sizes}
        return self.session.stream(batch=batch or self.batch, dims=dims)

    def run(self, stream: Stream, inputs: Rows, cuts: list[int]) -> Rows:
        """Run from `cuts[0]` up to the last cut; return outputs [step, ...] and the states after it."""
        parts: dict[str, list[Array]] = {}
        for begin, end in itertools.pairwise(cuts):
            got = stream.run(chunk_inputs(self.contract, inputs, begin, end))
            for spec in self.contract.outputs:
                shape = chunk_shape(self.contract, spec)
                if axis_index(shape, "time") is None:
                    parts[f"output.{spec.name}"] = [got[spec.name][None]]
                else:
                    parts.setdefault(f"output.{spec.name}", []).append(to_steps(got[spec.name], shape))
        found = {name: np.concatenate(rows) for name, rows in parts.items()}
        return found | {f"state.{name}": value for name, value in stream.state.items()}

    def judge(self, name: str, said: str, expected: Rows, got: Rows, *, exactly: bool = False) -> Check:
        """Compare two results of `run`."""
        largest = 0.0
        for tensor, wanted in expected.items():
            error = relative_error(wanted, got[tensor])
            largest = max(largest, error)
            bound = Bound(0.0, 0.0) if exactly else self.levels[tensor].drift
            beyond = error_beyond(bound, wanted, got[tensor])
            if beyond.size and beyond.max() > 0:
                place = np.unravel_index(int(beyond.argmax()), beyond.shape)
                values = f"expected {wanted[place]:.9g}, got {got[tensor][place]:.9g}"
                where = f"{tensor}{[int(i) for i in place]}"
                return Check(name, False, f"{said}: {where}: {values}", error)
        return Check(name, True, said, largest)


def _chunkings(runner: _Runner, name: str) -> Check:
    if runner.contract.whole_only is not None:
        return Check(name, None, _WHOLE)
    inputs = runner.inputs()
    whole = runner.run(runner.stream(), inputs, [0, runner.steps])
    random = np.random.default_rng(runner._seed)
    chunkings = [list(range(runner.steps + 1))]
    chunkings += [sorted({0, runner.steps, *random.integers(0, runner.steps, 4).tolist()}) for _ in range(3)]
    worst = Check(name, True, f"{len(chunkings)} chunkings give what one chunk gives")
    for cuts in chunkings:
        said = (
            f"in chunks that end at {', '.join(map(str, cuts[1:]))}" if len(cuts) < 9 else "in single steps"
        )
        found = runner.judge(name, said, whole, runner.run(runner.stream(), inputs, cuts))
        if not found.holds:
            return found
        worst = dataclasses.replace(worst, max_error=max(worst.max_error, found.max_error))
    return worst


def _reset(runner: _Runner, name: str) -> Check:
    inputs, half = runner.inputs(), runner.steps // 2
    fresh = runner.run(runner.stream(), inputs, [0, half])
    stream = runner.stream()
    runner.run(stream, runner.inputs(1), [0, half])
    stream.reset()
    said = "a stream reset in the middle gives what a new one gives"
    return runner.judge(name, said, fresh, runner.run(stream, inputs, [0, half]), exactly=True)


def _snapshot(runner: _Runner, name: str) -> Check:
    if runner.contract.whole_only is not None:
        return Check(name, None, _WHOLE)
    inputs, half = runner.inputs(), runner.steps // 2
    stream = runner.stream()
    runner.run(stream, inputs, [0, half])
    saved = stream.snapshot()
    first = runner.run(stream, inputs, [half, runner.steps])
    other = runner.stream()
    other.restore(saved)
    said = "a snapshot restored elsewhere continues bit for bit"
    return runner.judge(name, said, first, runner.run(other, inputs, [half, runner.steps]), exactly=True)


def _batches(runner: _Runner, name: str) -> Check:
    if not _has_rows(runner.contract):
        return Check(name, None, "the model has no batch")
    inputs = runner.inputs()
    expected = runner.run(runner.stream(), inputs, [0, runner.steps])
    largest = 0.0
    for batch in _BATCHES:
        chosen = np.arange(batch) % runner.batch
        got = runner.run(
            runner.stream(batch), _pick(runner.contract, inputs, chosen, "input"), [0, runner.steps]
        )
        wanted = _pick(runner.contract, expected, chosen, "result")
        found = runner.judge(name, f"at batch {batch}", wanted, got)
        if not found.holds:
            return found
        largest = max(largest, found.max_error)
    return Check(name, True, f"batches of {', '.join(map(str, _BATCHES))} give the same rows", largest)


def _independent(runner: _Runner, name: str) -> Check:
    if not _has_rows(runner.contract):
        return Check(name, None, "the model has no batch")
    inputs, other = runner.inputs(), runner.inputs(1)
    mixed = dict(inputs)
    for spec in runner.contract.inputs:
        axis = axis_index(step_shape(spec), "batch")
        if spec.name in inputs and axis is not None:
            axis += has_steps(runner.contract, spec)
            mixed[spec.name] = inputs[spec.name].copy()
            place = (slice(None),) * axis + (0,)
            mixed[spec.name][place] = other[spec.name][place]
    rest = np.arange(1, runner.batch)
    first, second = (
        _pick(runner.contract, runner.run(runner.stream(), each, [0, runner.steps]), rest, "result")
        for each in (inputs, mixed)
    )
    return runner.judge(name, "other inputs in row 0 change no other row", first, second)


def _look_ahead(runner: _Runner, name: str) -> Check:
    if runner.contract.whole_only is not None:
        return Check(name, None, _WHOLE)
    if not runner.contract.has_time:
        return Check(name, None, "the model takes single steps")
    cut = runner.steps // 2
    inputs, other = runner.inputs(), runner.inputs(1)
    mixed = {
        spec.name: np.concatenate([inputs[spec.name][:cut], other[spec.name][cut:]])
        if has_steps(runner.contract, spec)
        else inputs[spec.name]
        for spec in runner.contract.inputs
        if spec.name in inputs
    }
    results = [
        {
            tensor: rows[:cut]
            for tensor, rows in runner.run(runner.stream(), each, [0, runner.steps]).items()
            if tensor.startswith("output.") and len(rows) == runner.steps
        }
        for each in (inputs, mixed)
    ]
    return runner.judge(name, "other inputs later change nothing before", *results)


_CHECKS: dict[str, Callable[[_Runner, str], Check]] = {
    "chunkings": _chunkings,
    "reset": _reset,
    "batch sizes": _batches,
    "rows": _independent,
    "snapshot": _snapshot,
    "look-ahead": _look_ahead,
}


def _has_rows(contract: Contract) -> bool:
    """Whether every state and output has rows of its own, so that a row can be compared alone."""
    specs: list[Any] = [*contract.states, *contract.outputs]
    return contract.has_batch and all(axis_index(spec.shape, "batch") is not None for spec in specs)


def _pick(contract: Contract, rows: Rows, chosen: Array, kind: str) -> Rows:
    """Return the same rows with only those of the batch that are `chosen`."""
    picked = dict(rows)
    if kind == "input":
        specs: list[tuple[str, Any, bool]] = [
            (spec.name, step_shape(spec), has_steps(contract, spec)) for spec in contract.inputs
        ]
    else:
        specs = [(f"output.{spec.name}", step_shape(spec), True) for spec in contract.outputs]
        specs += [(f"state.{state.name}", state.shape, False) for state in contract.states]
    for name, shape, stepped in specs:
        axis = axis_index(shape, "batch")
        if name in rows and axis is not None:
            picked[name] = np.take(rows[name], chosen, axis + stepped)
    return picked
