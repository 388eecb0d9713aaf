"""Parity: a model and a reference of it, fed the same inputs and compared step by step.

Three ways, since each finds what the others hide:

- fed: before each step the model gets the reference's states, so that one wrong step shows alone;
- free: the states run free from the start, so that errors add up as they will in use;
- chunks: the whole run again in chunks of random lengths through the time axis.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from rnnx.contract import Contract, axis_index, step_shape
from rnnx.errors import InputError, ParityError
from rnnx.session import Session
from rnnx.shapes import Array, chunk_shape, from_steps, has_steps, to_steps
from rnnx.stream import Stream
from rnnx.tolerance import Level, error_beyond, level_of, relative_error
from rnnx.trace_file import Trace, trace_sizes

States = Mapping[str, Array]
Values = Mapping[str, Array]


class Reference(Protocol):
    """What a model is compared with: a trace, or a PyTorch module.

    Attributes:
        name: what it is, for reports: "torch 2.15.0".
    """

    name: str

    def start(self, sizes: Mapping[str, int]) -> States:
        """Return the start of every state in full shape.

        Args:
            sizes: of batch and the free dimensions.
        """

    def steps(self, inputs: Values, states: States) -> Iterable[tuple[Values, States]]:
        """Yield outputs and next states after each step.

        Args:
            inputs: by name, [step, ...]: row t is what step t takes; inputs without time stand there once.
                Optional inputs may be missing.
            states: what to begin with, in full shape.

        Yields:
            Outputs in the shape of one step, and the states after it in full shape. A reference that can
            only compute whole sequences leaves out the states, and outputs without time, save after the
            last step; it is not compared fed.
        """


class TraceReference:
    """A trace as a reference: it gives what it recorded, and takes no other inputs than its own."""

    def __init__(self, trace: Trace) -> None:
        self.name = trace.reference or "trace"
        self.trace = trace

    def start(self, sizes: Mapping[str, int]) -> States:
        """Return the recorded start of every state."""
        return {name: rows[0] for name, rows in self.trace.states.items()}

    def steps(self, inputs: Values, states: States) -> Iterable[tuple[Values, States]]:
        """Yield what was recorded."""
        for step in range(self.trace.steps):
            outputs = {name: rows[step] for name, rows in self.trace.outputs.items()}
            yield outputs, {name: rows[step + 1] for name, rows in self.trace.states.items()}


@dataclasses.dataclass(frozen=True)
class Failure:
    """The first place where model and reference disagree.

    Attributes:
        way: `start`, `fed`, `free` or `chunks`.
        step: 0 for the first.
        tensor: `output.NAME` or `state.NAME`.
        index: of the worst value in that tensor at that step, [] for a scalar.
        expected, got: the values there.
        max_error: largest error in that tensor at that step, relative to 1 + |expected|.
        absolute, relative: what was allowed.
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

    def __str__(self) -> str:
        """Return it as one line."""
        place = f"{self.tensor}{self.index}" if self.index else self.tensor
        return (
            f"step {self.step}, {place} ({self.way}): expected {self.expected:.9g}, got {self.got:.9g}, "
            f"max error {self.max_error:.3g}, allowed {self.absolute:g} + {self.relative:g} * |expected|"
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of comparing a model with a reference.

    Attributes:
        model_id: identity of the model file.
        provider: what computed the model.
        reference: what it was compared with.
        steps, batch, seed: the size of the comparison, and the seed of its random inputs.
        max_errors: by way and tensor, the largest error relative to 1 + |expected|.
        failure: the first disagreement, None if all agree.
    """

    model_id: str
    provider: str
    reference: str
    steps: int
    batch: int
    seed: int | None
    max_errors: Mapping[str, Mapping[str, float]]
    failure: Failure | None

    @property
    def agrees(self) -> bool:
        """Whether everything that was compared agrees."""
        return self.failure is None

    def to_json(self) -> str:
        """Return the result as JSON; infinite and undefined numbers become text."""
        document = {"agrees": self.agrees, **dataclasses.asdict(self)}
        return json.dumps(_plain(document), indent=2, allow_nan=False)

    def require(self, *, reproduce: str) -> None:
        """Raise ParityError `parity` unless all agree.

        Args:
            reproduce: the command that does this comparison again.
        """
        if self.failure is not None:
            raise ParityError(
                "parity",
                expected=f"the model to agree with {self.reference}",
                found=str(self.failure),
                fix=f"find the cause; '{reproduce}' shows it again",
            )


def compare_trace(session: Session, trace: Trace) -> Comparison:
    """Replay a trace on a session; the trace's own tolerances apply to every way."""
    bounds = {name: Level("trace", bound, bound, "") for name, bound in trace.tolerances.items()}
    return compare_steps(
        session,
        TraceReference(trace),
        inputs=trace.inputs,
        sizes=trace_sizes(trace, session.contract),
        initial={name: rows[0] for name, rows in trace.states.items()},
        levels=bounds,
    )


def compare_steps(
    session: Session,
    reference: Reference,
    *,
    inputs: Values,
    sizes: Mapping[str, int],
    initial: States | None = None,
    seed: int | None = None,
    levels: Mapping[str, Level] | None = None,
) -> Comparison:
    """Compare a session with a reference, outputs and every state, at every step.

    Args:
        session: the model.
        reference: what it should equal.
        inputs: by name, [step, ...]; those without time once. `rnnx.synthetic.random_inputs` makes some.
        sizes: of batch and the free dimensions.
        initial: states that both begin with, in full shape; None lets each begin with its own and compares
            these too.
        seed: of the inputs, for the report.
        levels: tolerance by tensor (`output.NAME`, `state.NAME`); None takes them from the table by dtype and
            the session's provider.

    Raises:
        InputError: inputs that do not fit the contract.
    """
    run = _Run(session, inputs, sizes, initial, levels or _levels(session))
    start = dict(reference.start(sizes) if initial is None else initial)
    if initial is None:
        run.check_start(start)
    recorded = list(reference.steps(inputs, start))
    if len(recorded) != run.steps:
        raise ParityError(
            "reference-steps",
            expected=f"a reference that gives {run.steps} steps",
            found=str(len(recorded)),
            fix="mend the reference: it should yield once for each row of its inputs",
        )
    if not session.contract.whole_only:
        if all(set(after) == set(start) for _, after in recorded):
            run.check_fed(recorded, start)
        run.check_free(recorded)
    run.check_chunks(recorded, seed or 0)
    return Comparison(
        model_id=session.id,
        provider=session.provider,
        reference=reference.name,
        steps=run.steps,
        batch=sizes.get("batch", 1),
        seed=seed,
        max_errors=run.max_errors,
        failure=run.failure,
    )


def _levels(session: Session) -> dict[str, Level]:
    contract, provider = session.contract, session.provider
    levels = {f"output.{spec.name}": level_of(spec.dtype, provider) for spec in contract.outputs}
    return levels | {f"state.{state.name}": level_of(state.dtype, provider) for state in contract.states}


class _Run:
    """One comparison under way: keeps the largest errors and the first failure."""

    def __init__(
        self,
        session: Session,
        inputs: Values,
        sizes: Mapping[str, int],
        initial: States | None,
        levels: Mapping[str, Level],
    ) -> None:
        self.contract = session.contract
        self.max_errors: dict[str, dict[str, float]] = {}
        self.failure: Failure | None = None
        self.steps = _count_steps(self.contract, inputs)
        self._session = session
        self._inputs = inputs
        self._initial = initial
        self._batch = sizes.get("batch", 1)
        self._dims = {name: sizes[name] for name in self.contract.free_dimensions if name in sizes}
        self._levels = levels

    def check_start(self, start: States) -> None:
        """Compare the start that the contract gives with the reference's."""
        with self._stream() as stream:
            for name, value in stream.state.items():
                self._note("start", 0, f"state.{name}", start[name], value)

    def check_fed(self, recorded: list[tuple[Values, States]], start: States) -> None:
        """Give the model the reference's states before each step."""
        before: States = start
        with self._stream() as stream:
            for step, (outputs, after) in enumerate(recorded):
                stream.state.update(before)
                self._compare("fed", step, outputs, after, stream.step(self._step_inputs(step)), stream)
                before = after

    def check_free(self, recorded: list[tuple[Values, States]]) -> None:
        """Let the model's own states run from the start."""
        with self._stream() as stream:
            for step, (outputs, after) in enumerate(recorded):
                got = stream.step(self._step_inputs(step))
                self._compare("free", step, outputs, after, got, stream)

    def check_chunks(self, recorded: list[tuple[Values, States]], seed: int) -> None:
        """Run all again in chunks: one for a whole-only model, of random lengths for others."""
        cuts = [0, self.steps]
        if not self.contract.whole_only:
            random = np.random.default_rng([seed, 0x63686E6B])
            cuts = sorted({*cuts, *random.integers(0, self.steps + 1, 3).tolist()})
        with self._stream() as stream:
            for begin, end in itertools.pairwise(cuts):
                got = stream.run(self._chunk_inputs(begin, end))
                self._compare_chunk(begin, end, recorded, got)
                for name, value in recorded[end - 1][1].items():
                    self._note("chunks", end - 1, f"state.{name}", value, stream.state[name])

    def _compare_chunk(
        self, begin: int, end: int, recorded: list[tuple[Values, States]], got: Values
    ) -> None:
        for spec in self.contract.outputs:
            value, tensor = got[spec.name], f"output.{spec.name}"
            if spec.name not in recorded[end - 1][0]:
                continue
            if not has_steps(self.contract, spec):
                if spec.name in recorded[end - 1][0]:
                    self._note("chunks", end - 1, tensor, recorded[end - 1][0][spec.name], value)
                continue
            rows = to_steps(value, chunk_shape(self.contract, spec))
            for step in range(begin, end):
                self._note("chunks", step, tensor, recorded[step][0][spec.name], rows[step - begin])

    def _compare(
        self, way: str, step: int, outputs: Values, after: States, got: Values, stream: Stream
    ) -> None:
        for name, value in outputs.items():
            self._note(way, step, f"output.{name}", value, got[name])
        for name, value in after.items():
            self._note(way, step, f"state.{name}", value, stream.state[name])

    def _note(self, way: str, step: int, tensor: str, expected: Array, got: Array) -> None:
        expected = np.asarray(expected)
        level = self._levels[tensor]
        bound = level.step if way in ("start", "fed") else level.drift
        if expected.shape != got.shape:
            found = f"{list(expected.shape)} for {tensor}"
            raise ParityError(
                "reference-shape",
                expected=f"a reference that gives {list(got.shape)}",
                found=found,
                fix="mend it",
            )
        expected, got = self._valid_rows(step, tensor, expected, got)
        error = relative_error(expected, got)
        largest = self.max_errors.setdefault(way, {})
        largest[tensor] = max(error, largest.get(tensor, 0.0))
        # Of one step, what was fed comes first: it shows the cause, where free shows what follows from it.
        if self.failure is not None and (self.failure.way == "start" or self.failure.step <= step):
            return
        beyond = error_beyond(bound, expected, got)
        if (beyond > 0).any():
            index = np.unravel_index(int(beyond.argmax()), beyond.shape)
            self.failure = Failure(
                way=way,
                step=step,
                tensor=tensor,
                index=[int(entry) for entry in index],
                expected=float(expected[index]),
                got=float(got[index]),
                max_error=error,
                absolute=bound.absolute,
                relative=bound.relative,
            )

    def _valid_rows(self, step: int, tensor: str, expected: Array, got: Array) -> tuple[Array, Array]:
        """Leave out rows of an output whose length ended before this step: nothing says what they hold."""
        kind, _, name = tensor.partition(".")
        lengths = next((self._inputs.get(spec.name) for spec in self.contract.inputs if spec.role), None)
        if kind == "state" or lengths is None:
            return expected, got
        shape = next(step_shape(spec) for spec in self.contract.outputs if spec.name == name)
        batch = axis_index(shape, "batch")
        if batch is None or not lengths.ndim:
            return expected, got
        # Values are blanked rather than dropped, so that indices in reports stay those of the whole tensor.
        ended = (lengths <= step).reshape(-1, *(1 for _ in shape[batch + 1 :]))
        return np.where(ended, np.zeros_like(expected), expected), np.where(ended, np.zeros_like(got), got)

    def _stream(self) -> Stream:
        return self._session.stream(batch=self._batch, dims=self._dims, initial=self._initial)

    def _step_inputs(self, step: int) -> dict[str, Array]:
        values = {}
        for spec in self.contract.inputs:
            if spec.name in self._inputs:
                value = self._inputs[spec.name]
                if spec.role == "length":
                    value = np.clip(value - step, 0, 1)
                elif has_steps(self.contract, spec):
                    value = value[step]
                values[spec.name] = np.asarray(value)
        return values

    def _chunk_inputs(self, begin: int, end: int) -> dict[str, Array]:
        values = {}
        for spec in self.contract.inputs:
            if spec.name in self._inputs:
                value = self._inputs[spec.name]
                if spec.role == "length":
                    value = np.clip(value - begin, 0, end - begin)
                elif has_steps(self.contract, spec):
                    value = from_steps(value[begin:end], chunk_shape(self.contract, spec))
                values[spec.name] = np.asarray(value)
        return values


def _count_steps(contract: Contract, inputs: Values) -> int:
    counts = {
        len(inputs[spec.name])
        for spec in contract.inputs
        if spec.name in inputs and has_steps(contract, spec)
    }
    if len(counts) != 1 or 0 in counts:
        raise InputError(
            "wrong-time",
            expected="inputs [step, ...] of one number of steps",
            found=f"{sorted(counts)} steps",
            fix="give every input with time the same number of steps, at least one",
        )
    return counts.pop()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
