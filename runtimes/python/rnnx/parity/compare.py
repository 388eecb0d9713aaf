"""Parity: a model and a reference of it, run on the same inputs and compared step by step.

Nothing is kept but the latest block of steps, so that a run may be as long as one likes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnnx.errors import InputError, ParityError, UsageError
from rnnx.formats.trace_file import Trace, trace_sizes
from rnnx.model.contract import Contract
from rnnx.model.shapes import has_steps
from rnnx.parity.drift import Drift, Track
from rnnx.parity.lazy_inputs import fed_back, push
from rnnx.parity.lockstep import Beside, Failure, Setting, Step
from rnnx.parity.reference import Inputs, Reference, Reference64, States, TraceReference, Values
from rnnx.parity.yardstick import Yardstick
from rnnx.session import Session
from rnnx.tolerance import Level, coarser, level_of

_NOISY_RUNS = 8

__all__ = ["Comparison", "Failure", "Reference", "compare_runtimes", "compare_steps", "compare_trace"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of comparing a model with a reference.

    Attributes:
        model_id: identity of the model file.
        provider: what computed the model.
        reference: what it was compared with.
        steps: number of steps that were compared.
        batch: rows.
        seed: of the random inputs.
        max_errors: by route and tensor, the largest error relative to 1 + |expected|.
        failure: the first disagreement, None if all agree.
        worst: where the largest error was, allowed or not; None if nothing was compared.
        drift: by tensor, how the error of the free-running states grew against the network in float64, or,
            where nobody knows that, against the reference.
        interrupted: whether it was stopped before its last step.
    """

    model_id: str
    provider: str
    reference: str
    steps: int
    batch: int
    seed: int | None
    max_errors: Mapping[str, Mapping[str, float]]
    failure: Failure | None
    worst: Failure | None = None
    drift: Mapping[str, Drift] = dataclasses.field(default_factory=dict)
    interrupted: bool = False

    @property
    def agrees(self) -> bool:
        """Whether everything that was compared agrees."""
        return self.failure is None

    def to_json(self) -> str:
        """Return the result as JSON; infinite and undefined numbers become text."""
        document = {"agrees": self.agrees, **dataclasses.asdict(self)}
        return json.dumps(plain(document), indent=2, allow_nan=False)

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
    """Replay a trace on a session; the trace's own tolerances apply to every route."""
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
    inputs: Inputs,
    sizes: Mapping[str, int],
    initial: States | None = None,
    seed: int | None = None,
    levels: Mapping[str, Level] | None = None,
) -> Comparison:
    """Compare a session with a reference, outputs and every state, at every step.

    Args:
        session: the model.
        reference: what it should equal.
        inputs: by name, [step, ...]; those without time once. `parity.random_inputs` makes some,
            `parity.lazy_inputs` those for long runs.
        sizes: of batch and the free dimensions.
        initial: states that both begin with, in full shape; None lets each begin with its own and compares
            these too.
        seed: of the inputs, for the report.
        levels: tolerance by tensor (`output.NAME`, `state.NAME`); None takes them from the table by dtype and
            the session's provider.

    Raises:
        InputError: inputs that do not fit the contract.
        UsageError: `reference-steps` or `reference-shape`.
    """
    return compare_runtimes(
        [session],
        reference,
        inputs=inputs,
        sizes=sizes,
        initial=initial,
        seed=seed,
        levels=[levels or default_levels(session)],
    )[0]


def compare_runtimes(
    sessions: Sequence[Session],
    reference: Reference,
    *,
    inputs: Inputs,
    sizes: Mapping[str, int],
    initial: States | None = None,
    seed: int | None = None,
    levels: Sequence[Mapping[str, Level]] | None = None,
    reference64: Reference64 | None = None,
    loops: Mapping[str, str] | None = None,
    lenient: bool = False,
    others: Sequence[Reference] = (),
    looks: int = 2,
    advanced: Callable[[int], None] | None = None,
) -> list[Comparison]:
    """Compare several runtimes of one model with one reference, which is computed once.

    Ctrl-C ends the comparison early: what was compared until then is returned. With a float64 reference,
    a runtime is held to it in units of the reference's own error too. If only that disagrees, or only the
    free-running states, it is done again with more runs of the network, which round as another engine may:
    what chaos and coarser functions do to those is no fault.

    Args:
        sessions: one for each runtime.
        reference, inputs, sizes, initial, seed: as `compare_steps`.
        levels: for each session, the tolerance by tensor; None takes them from the table.
        reference64: the reference in float64, to measure errors against, and to know chaos from a fault.
        loops: inputs (name -> output) that take what came out a step before: the reference's own where
            states are teacher-forced, their own where they are free-running. They are compared in steps only.
        lenient: measure single steps too by the reference's own error: the inputs are extreme.
        others: further references, which the same free-running states and chunks are held to.
        looks: 1 for what the first comparison shows, without the second.
        advanced: called with the number of steps done so far.

    Raises:
        InputError: inputs that do not fit the contract.
        UsageError: `reference-steps` or `reference-shape`.
    """
    tables = list(levels or map(default_levels, sessions))
    run = _Run(reference, inputs, sizes, initial, seed, reference64, dict(loops or {}), lenient, others)
    found = run.compare(sessions, tables, advanced=advanced)
    for index, session in enumerate(sessions):
        failure = found[index].failure
        if looks < 2 or reference64 is None or failure is None or found[index].interrupted:
            continue
        if failure.way == "start" or (failure.way == "fed" and failure.ratio is None and not lenient):
            continue
        # One run of PyTorch may have been lucky: chaos enlarges whatever rounding it meets.
        again = run.compare([session], [tables[index]], runs=_NOISY_RUNS, until_failure=True)[0]
        if again.agrees and not again.interrupted:
            found[index] = again
    return found


@dataclasses.dataclass
class _Run:
    """A comparison that can be done again; the fields are the arguments of `compare_runtimes`."""

    reference: Reference
    inputs: Inputs
    sizes: Mapping[str, int]
    initial: States | None
    seed: int | None
    reference64: Reference64 | None
    loops: dict[str, str]
    lenient: bool
    others: Sequence[Reference]

    def compare(
        self,
        sessions: Sequence[Session],
        levels: Sequence[Mapping[str, Level]],
        *,
        advanced: Callable[[int], None] | None = None,
        runs: int = 0,
        until_failure: bool = False,
    ) -> list[Comparison]:
        """Compare once.

        Args:
            sessions, levels, advanced: as `compare_runtimes`.
            runs: further runs of the network, each with rounding of its own, to measure its own error by.
            until_failure: stop at the first disagreement.
        """
        contract, reference64 = sessions[0].contract, self.reference64
        inputs = fed_back(self.inputs, self.loops)
        start = dict(self.reference.start(self.sizes) if self.initial is None else self.initial)
        steps = count_steps(contract, self.inputs)
        setting = Setting(inputs, self.sizes, self.initial, self.seed or 0, steps, self.loops, self.lenient)
        resumes = self.reference.resumes
        yardstick = (
            None
            if reference64 is None
            else Yardstick(
                reference64, contract, self.inputs, self.loops, start, levels[0], resumes=resumes, runs=runs
            )
        )
        own = yardstick.own if yardstick else None
        besides = [
            Beside(session, setting, table, own) for session, table in zip(sessions, levels, strict=True)
        ]
        interrupted, done = False, 0
        try:
            for beside in besides:
                beside.begin(start, compare=self.initial is None)
            before: States = start
            runs_of_others = [_exactly(other.steps(inputs, start), steps) for other in self.others]
            for outputs, after in _exactly(self.reference.steps(inputs, start), steps):
                found = Step(outputs, after)
                if yardstick is not None:
                    found = yardstick.measure(inputs, done, outputs, after, before)
                if runs_of_others:
                    found = dataclasses.replace(found, others=[next(each) for each in runs_of_others])
                for beside in besides:
                    beside.advance(done, found)
                before = after
                push(inputs, self.loops, outputs)
                done += 1
                if advanced is not None:
                    advanced(done)
                if until_failure and any(beside.failure for beside in besides):
                    break
        except KeyboardInterrupt:
            if not done:
                raise
            interrupted = True
        for beside in besides:
            beside.close()
        batch = self.sizes.get("batch", 1)
        return [
            _comparison(beside, self.reference.name, done, batch, self.seed, own, interrupted)
            for beside in besides
        ]


def _comparison(
    run: Beside,
    reference: str,
    steps: int,
    batch: int,
    seed: int | None,
    own: Track | None,
    interrupted: bool,
) -> Comparison:
    return Comparison(
        model_id=run.session.id,
        provider=run.session.provider,
        reference=reference,
        steps=steps,
        batch=batch,
        seed=seed,
        max_errors=run.max_errors,
        failure=run.failure,
        worst=run.failure or run.worst,
        drift=run.drift.against(own, run.ratios),
        interrupted=interrupted,
    )


def _exactly(steps: Any, wanted: int) -> Iterator[tuple[Values, States]]:
    """Yield what a reference yields. Raises UsageError `reference-steps` unless these are `wanted` steps."""
    count = 0
    for count, step in enumerate(steps, 1):
        if count > wanted:
            break
        yield step
    if count != wanted:
        raise UsageError(
            "reference-steps",
            expected=f"a reference that gives {wanted} steps",
            found="more" if count > wanted else str(count),
            fix="fix the reference: it should yield once for each row of its inputs",
        )


def default_levels(
    session: Session, *, dtype: str | None = None, quantisation: str | None = None
) -> dict[str, Level]:
    """Return the tolerance of each tensor from the one table.

    Args:
        session: the runtime.
        dtype: what floats were computed in, where that is not the dtype of the contract ("bfloat16").
        quantisation: as `rnnx.tolerance.level_of`.
    """
    contract = session.contract
    stored = stored_weights(session)  # what its numbers can be held to
    dtype = dtype or ("float16" if stored == "f16" else None)
    quantisation = quantisation or ("int8" if stored == "int8" else None)
    levels = {
        name: level_of(dtype or found if found.startswith("float") else found, session.provider, quantisation)
        for name, found in computed_dtypes(contract).items()
    }
    if stored == "f32":
        return levels
    # Other weights than the network's: PyTorch's own error is no measure of what they cost.
    return {name: dataclasses.replace(level, rounding=None) for name, level in levels.items()}


def computed_dtypes(contract: Contract) -> dict[str, str]:
    """Return for each output and state the coarsest dtype on the way to it, which its proof was held to."""
    dtypes = {f"output.{spec.name}": spec.dtype for spec in contract.outputs}
    dtypes |= {f"state.{state.name}": state.dtype for state in contract.states}
    proof = contract.proof
    return {
        name: dtype if proof is None else coarser(dtype, proof.tolerance) for name, dtype in dtypes.items()
    }


def stored_weights(session: Session) -> str:
    """Return what a session's engine stores weights in: "f32" for all but what was asked of `native`."""
    options = getattr(getattr(session, "engine", None), "options", None)
    return str(getattr(options, "weights", "f32"))


def count_steps(contract: Contract, inputs: Inputs) -> int:
    """Return the number of steps in `inputs`. Raises InputError `wrong-time` unless they agree on it."""
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


def plain(value: Any) -> Any:
    """Return a document as JSON can hold it: infinite and undefined numbers become text."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
