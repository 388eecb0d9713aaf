"""One runtime beside a reference: three streams of it that advance together, and what they disagree on.

- teacher-forced (`fed`): before each step the model gets the reference's states, so that one wrong step shows
  alone;
- free-running (`free`): the states are the model's own from the start, so that errors add up as in use;
- chunks: the same again in chunks of random lengths through the time axis.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnnx.errors import UsageError
from rnnx.model.contract import Contract, axis_index, step_shape
from rnnx.model.shapes import Array, chunk_shape, from_steps, has_steps, to_steps
from rnnx.parity.drift import WORSE, Curve, Track
from rnnx.parity.lazy_inputs import BLOCK
from rnnx.parity.reference import Inputs, States, Values
from rnnx.parity.rounding import WINDOW, Excess, Meter
from rnnx.runtime.stream import Stream
from rnnx.session import Session
from rnnx.tolerance import Level, error_beyond, relative_error


@dataclasses.dataclass(frozen=True)
class Failure:
    """One place where model and reference disagree.

    Attributes:
        way: `start`, `fed`, `free` or `chunks`; `float64` for the file itself, whatever runs it.
        step: 0 for the first.
        tensor: `output.NAME` or `state.NAME`.
        index: of the worst value in that tensor at that step, [] for a scalar.
        expected, got: the values there; what was expected is the true value where `ratio` is set.
        max_error: largest error in that tensor at that step, relative to 1 + |expected|.
        absolute, relative: what was allowed.
        ratio: where each step is within the tolerance but a window of steps is further from the float64
            reference than rounding explains: how many times PyTorch's own error, as root mean squares. Else
                None.
        allowed_ratio: how many times are allowed.
        window: the window's first step, and the one after its last.
    """

    way: str
    step: int
    tensor: str
    index: list[int]
    expected: float
    got: float
    max_error: float
    absolute: float
    relative: float
    ratio: float | None = None
    allowed_ratio: float | None = None
    window: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return it as one line."""
        place = f"{self.tensor}{self.index}" if self.index else self.tensor
        if self.way == "float64":
            return (
                f"step {self.step}, {place} of the file in float64: expected {self.expected:.12g}, got "
                f"{self.got:.12g}, {self.ratio:.3g} times what rounding the file's constants costs, "
                f"{self.allowed_ratio:g} allowed"
            )
        if self.ratio is not None and self.window is not None:
            return (
                f"steps {self.window[0]} to {self.window[1] - 1}, {place} ({self.way}): "
                f"{self.ratio:.3g} times PyTorch's own error against float64, {self.allowed_ratio:g} "
                f"allowed; most at step {self.step}: expected {self.expected:.9g}, got {self.got:.9g}"
            )
        return (
            f"step {self.step}, {place} ({self.way}): expected {self.expected:.9g}, got {self.got:.9g}, "
            f"max error {self.max_error:.3g}, allowed {self.absolute:g} + {self.relative:g} * |expected|"
        )


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all runtimes of a comparison share.

    Attributes:
        inputs: by name, rows [step, ...]; those without time once.
        sizes: of batch and the free dimensions.
        initial: states to begin with in full shape, None for the contract's own.
        seed: of the random chunks.
        steps: number of steps.
        loops: inputs that are fed back, by the output they take.
        lenient: whether single steps too are measured by the reference's own error: inputs are extreme.
    """

    inputs: Inputs
    sizes: Mapping[str, int]
    initial: States | None
    seed: int
    steps: int
    loops: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lenient: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """What a runtime is held against at one step; each pair is outputs and next states.

    Attributes:
        outputs, after: the reference's.
        true: the float64 reference's, free-running; None where there is none.
        true_forced: the same from the states that the reference had before the step; None where it cannot.
        rough, rough_forced: the same of further good runs.
        others: what further references gave, which free-running states and chunks are held to as well.
    """

    outputs: Values
    after: States
    true: tuple[Values, States] | None = None
    true_forced: tuple[Values, States] | None = None
    rough: Sequence[tuple[Values, States]] = ()
    rough_forced: Sequence[tuple[Values, States]] = ()
    others: Sequence[tuple[Values, States]] = ()


class Beside:
    """One runtime of a comparison: keeps the largest errors, the first failure and the worst value.

    Args:
        session: the runtime.
        setting: what all runtimes share.
        levels: tolerance by tensor.
        own: the reference's own error so far, against which a chaotic network's free-running states are
            measured.
    """

    def __init__(
        self, session: Session, setting: Setting, levels: Mapping[str, Level], own: Track | None = None
    ) -> None:
        self.session = session
        self.contract = session.contract
        self.max_errors: dict[str, dict[str, float]] = {}
        self.failure: Failure | None = None
        self.worst: Failure | None = None
        self.drift = Track({name: level.drift.relative for name, level in levels.items()})
        self._setting, self._levels, self._own = setting, levels, own
        self.ratios: dict[str, Curve] = {}
        self._meters = {route: Meter(self.contract) for route in ("fed", "free", "chunks")}
        # A whole-only model cannot be stepped: it runs as one chunk.
        steps = self.contract.whole_only is None
        self._forced = self._open() if steps else None
        self._free_running = self._open() if steps else None
        self._chunks = self._open()
        self._before: States = {}
        self._last: dict[str, Array] = {}
        self._pending: list[Step] = []  # since the latest chunk began
        self._cuts = _cuts(setting.steps, setting.seed, whole=not steps)
        self._cut = next(self._cuts)

    def close(self) -> None:
        """Judge the last steps, and let go of all buffers."""
        for route, meter in self._meters.items():
            for excess in meter.rest():
                self._judge(route, excess)
        for stream in (self._forced, self._free_running, self._chunks):
            if stream is not None:
                stream.close()

    def begin(self, start: States, *, compare: bool) -> None:
        """Take the reference's start; compare the one that the contract gives with it if asked to."""
        self._before = start
        for name, value in self._chunks.state.items() if compare else ():
            self._note("start", 0, f"state.{name}", start[name], value)

    def advance(self, step: int, reference: Step) -> None:
        """Compare step `step` with the reference's, and drift with the float64 reference's, if any."""
        outputs, after = reference.outputs, reference.after
        if set(after) != set(self._before):
            self._forced = None
        if self._forced is not None:
            self._forced.state.update(self._before)
            got = self._forced.step(self.step_inputs(step))
            self._compare("fed", step, outputs, after, got, self._forced)
            self._measure("fed", step, reference, got, self._forced)
            self._before = after
        if self._free_running is not None:
            got = self._free_running.step(self.step_inputs(step) | self._last)
            self._last = {name: got[output] for name, output in self._setting.loops.items()}
            for each in ((outputs, after), *reference.others):
                self._compare("free", step, *each, got, self._free_running)
            self._measure("free", step, reference, got, self._free_running)
            self._note_drift(step, got, *(reference.true or (outputs, after)))
        self._pending.append(reference)
        if step + 1 == self._cut:
            self._run_chunk(step + 1)

    def _note_drift(self, step: int, got: Values, outputs: Values, after: States) -> None:
        assert self._free_running is not None
        pairs = {f"output.{name}": (value, got[name]) for name, value in outputs.items()}
        pairs |= {f"state.{name}": (value, self._free_running.state[name]) for name, value in after.items()}
        for tensor, (expected, value) in pairs.items():
            pair = self._valid_rows(step, tensor, np.asarray(expected), value)
            self.drift.add(step, tensor, relative_error(*pair))

    def _measure(self, route: str, step: int, reference: Step, got: Values, stream: Stream) -> None:
        """Measure a step in units of rounding."""
        true, rough = (
            (reference.true_forced, reference.rough_forced)
            if route == "fed"
            else (reference.true, reference.rough)
        )
        if true is None:
            return
        for name, value in reference.outputs.items():
            self._gauge(
                route, step, f"output.{name}", true[0][name], got[name], value, [r[0][name] for r in rough]
            )
        for name, value in reference.after.items():
            others = [run[1][name] for run in rough]
            self._gauge(route, step, f"state.{name}", true[1][name], stream.state[name], value, others)

    def _gauge(
        self, route: str, step: int, tensor: str, true: Array, got: Array, own: Array, rough: Sequence[Array]
    ) -> None:
        if self._levels[tensor].rounding is None:
            return
        true, got = self._valid_rows(step, tensor, np.asarray(true), got)
        own, *others = (self._valid_rows(step, tensor, np.asarray(each), got)[0] for each in (own, *rough))
        excess = self._meters[route].add(step, tensor, true, got, own, others)
        if excess is not None:
            self._judge(route, excess)

    def _judge(self, route: str, excess: Excess) -> None:
        """Take what a window of steps shows, unless the reference was lost in it."""
        if route != "fed" and excess.end > self._lost():
            return
        self.ratios.setdefault(excess.tensor, Curve(WINDOW)).add(excess.begin, excess.ratio)
        level = self._levels[excess.tensor]
        assert level.rounding is not None
        if excess.ratio <= level.rounding or self.failure is not None:
            return
        bound = level.step if route == "fed" else level.drift
        self.failure = Failure(
            way=route,
            step=excess.step,
            tensor=excess.tensor,
            index=excess.index,
            expected=excess.expected,
            got=excess.got,
            max_error=relative_error(np.asarray(excess.expected), np.asarray(excess.got)),
            absolute=bound.absolute,
            relative=bound.relative,
            ratio=excess.ratio,
            allowed_ratio=level.rounding,
            window=(excess.begin, excess.end),
        )

    def _lost(self) -> float:
        """Return the step at which the reference itself has left the tolerance."""
        return min(self._own.left.values(), default=math.inf) if self._own is not None else math.inf

    def _run_chunk(self, end: int) -> None:
        begin, last = end - len(self._pending), self._pending[-1]
        if not self._setting.loops:
            got = self._chunks.run(self._chunk_inputs(begin, end))
            for spec in self.contract.outputs:
                self._compare_rows(begin, spec.name, chunk_shape(self.contract, spec), got[spec.name])
            for after in (last.after, *(states for _, states in last.others)):
                for name, value in after.items():
                    self._note("chunks", end - 1, f"state.{name}", value, self._chunks.state[name])
        self._pending.clear()
        self._cut = next(self._cuts, -1)

    def _compare_rows(self, begin: int, name: str, shape: Any, value: Array) -> None:
        tensor, end = f"output.{name}", begin + len(self._pending)
        if name not in self._pending[-1].outputs:
            return
        timeless = axis_index(shape, "time") is None  # one value, that of the last step
        first, rows = (end - 1, value[None]) if timeless else (begin, to_steps(value, shape))
        for step, row in zip(range(first, end), rows, strict=True):
            reference = self._pending[step - begin]
            expected = reference.outputs[name]
            true = expected if reference.true is None else reference.true[0][name]
            self._note("chunks", step, tensor, expected, row)
            for outputs, _ in reference.others:
                if name in outputs:
                    self._note("chunks", step, tensor, outputs[name], row)
            if reference.true is not None:
                others = [run[0][name] for run in reference.rough]
                self._gauge("chunks", step, tensor, true, row, expected, others)
            if self._free_running is None:
                pair = self._valid_rows(step, tensor, np.asarray(true), row)
                self.drift.add(step, tensor, relative_error(*pair))

    def _compare(
        self, route: str, step: int, outputs: Values, after: States, got: Values, stream: Stream
    ) -> None:
        for name, value in outputs.items():
            self._note(route, step, f"output.{name}", value, got[name])
        for name, value in after.items():
            self._note(route, step, f"state.{name}", value, stream.state[name])

    def _note(self, route: str, step: int, tensor: str, expected: Array, got: Array) -> None:
        expected = np.asarray(expected)
        if expected.shape != got.shape:
            raise UsageError(
                "reference-shape",
                expected=f"a reference of the model's size, with {tensor} of shape {list(got.shape)}",
                found=f"one of another size: {list(expected.shape)}",
                fix="compare with the network that the model was exported from",
            )
        expected, got = self._valid_rows(step, tensor, expected, got)
        error = relative_error(expected, got)
        largest = self.max_errors.setdefault(route, {})
        largest[tensor] = max(error, largest.get(tensor, 0.0))
        if error == 0.0 and self.worst is not None:
            return
        level = self._levels[tensor]
        bound = level.step if route in ("start", "fed") else level.drift
        beyond = error_beyond(bound, expected, got)
        place = np.unravel_index(int(beyond.argmax()), beyond.shape) if beyond.size else ()
        if beyond.size == 0 or (beyond[place] <= 0 and self.worst and error <= self.worst.max_error):
            return
        found = Failure(
            way=route,
            step=step,
            tensor=tensor,
            index=[int(entry) for entry in place],
            expected=float(expected[place]),
            got=float(got[place]),
            max_error=error,
            absolute=bound.absolute,
            relative=bound.relative,
        )
        failed = beyond[place] > 0 and not self._excused(route, step, error)
        if self.worst is None or error > self.worst.max_error:
            self.worst = found
        # Of one step, teacher-forced comes first: it shows the cause, where free-running shows what follows.
        # What leaves the tolerance comes before what does so only in units of rounding.
        before = self.failure if self.failure is None or self.failure.ratio is None else None
        earlier = before is None or (before.way != "start" and step < before.step)
        if failed and earlier:
            self.failure = found

    def _excused(self, route: str, step: int, error: float) -> bool:
        """Whether the reference is as far from the float64 one: a chaotic network, or extreme inputs."""
        if self._own is None or not math.isfinite(error):
            return False
        lenient = self._setting.lenient
        if route not in ("free", "chunks") and not lenient:
            return False
        # Past the step at which PyTorch itself has left the tolerance, trajectories cannot be compared.
        lost = step >= self._lost()
        return (lost and not lenient) or error <= WORSE * self._own.maximum

    def _valid_rows(self, step: int, tensor: str, expected: Array, got: Array) -> tuple[Array, Array]:
        """Leave out rows of an output whose length ended before this step: nothing says what they hold."""
        ended = ended_rows(self.contract, self._setting.inputs, step, tensor)
        if ended is None:
            return expected, got
        # Values are blanked rather than dropped, so that indices in reports stay those of the whole tensor.
        return np.where(ended, np.zeros_like(expected), expected), np.where(ended, np.zeros_like(got), got)

    def _open(self) -> Stream:
        setting = self._setting
        free = self.contract.free_dimensions
        dims = {name: setting.sizes[name] for name in free if name in setting.sizes}
        return self.session.stream(batch=setting.sizes.get("batch", 1), dims=dims, initial=setting.initial)

    def step_inputs(self, step: int) -> dict[str, Array]:
        """Return the inputs of one step."""
        return step_inputs(self.contract, self._setting.inputs, step)

    def _chunk_inputs(self, begin: int, end: int) -> dict[str, Array]:
        return chunk_inputs(self.contract, self._setting.inputs, begin, end)


def step_inputs(contract: Contract, inputs: Inputs, step: int) -> dict[str, Array]:
    """Return what step `step` takes, by input name."""
    values = {}
    for spec in contract.inputs:
        if spec.name in inputs:
            value = inputs[spec.name]
            if spec.role == "length":
                value = np.clip(value - step, 0, 1)
            elif has_steps(contract, spec):
                value = value[step]
            values[spec.name] = np.asarray(value)
    return values


def chunk_inputs(contract: Contract, inputs: Inputs, begin: int, end: int) -> dict[str, Array]:
    """Return what a chunk of the steps `begin` up to `end` takes, by input name."""
    values = {}
    for spec in contract.inputs:
        if spec.name in inputs:
            value = inputs[spec.name]
            if spec.role == "length":
                value = np.clip(value - begin, 0, end - begin)
            elif has_steps(contract, spec):
                value = from_steps(value[begin:end], chunk_shape(contract, spec))
            values[spec.name] = np.asarray(value)
    return values


def ended_rows(contract: Contract, inputs: Inputs, step: int, tensor: str) -> Array | None:
    """Return which rows of an output have ended at `step`, shaped to broadcast over it; None for none."""
    kind, _, name = tensor.partition(".")
    lengths = next((inputs.get(spec.name) for spec in contract.inputs if spec.role), None)
    if kind == "state" or lengths is None:
        return None
    shape = next(step_shape(spec) for spec in contract.outputs if spec.name == name)
    batch = axis_index(shape, "batch")
    if batch is None or not lengths.ndim:
        return None
    ended: Array = (lengths <= step).reshape(-1, *(1 for _ in shape[batch + 1 :]))
    return ended


def _cuts(steps: int, seed: int, *, whole: bool) -> Iterator[int]:
    """Yield where chunks end: at the end for a whole-only model, at random places for others."""
    random = np.random.default_rng([seed, 0x63686E6B])
    for begin in range(0, steps, steps if whole else BLOCK):
        end = steps if whole else min(begin + BLOCK, steps)
        inner = [] if whole else random.integers(begin, end + 1, 3).tolist()
        yield from sorted({end, *inner} - {begin})
