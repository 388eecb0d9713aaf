"""Checking parity: runtimes of a model beside its reference, and how each behaves, as one verdict."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rnnx.arguments import mapping, number
from rnnx.engines.environment import machine, package_versions
from rnnx.errors import InputError
from rnnx.model.contract import Contract
from rnnx.parity.compare import Comparison, compare_runtimes, count_steps, default_levels, stored_weights
from rnnx.parity.invariants import STEPS, Check, check_invariants
from rnnx.parity.lazy_inputs import KINDS, drawn_inputs, recorded_inputs
from rnnx.parity.reference import Inputs, Reference, Reference64, States
from rnnx.parity.text_checks import check_text
from rnnx.parity.verdict import VERSION, Parity, Runtime, summarise
from rnnx.runtime import initial_states
from rnnx.runtime.chunks import input_sizes
from rnnx.session import Session
from rnnx.tolerance import Level

FREE_SIZE = 5  # of free dimensions that are not named
_EXTREME_STEPS = 16


@dataclasses.dataclass(frozen=True)
class Request:
    """How thorough a verdict should be.

    Attributes:
        steps: number of steps.
        sizes: of batch and every free dimension.
        seed: of random inputs and chunks.
        inputs: recorded rows; None for random ones.
        inputs_label: what to call them in the report.
        loops: as `compare_runtimes`.
        initial: as `compare_runtimes`.
        levels: by session, None for the table's.
        quantisation: as `rnnx.tolerance.level_of`.
        invariants: whether invariants and extremes are checked too.
        text: held-out text for models over symbols.
    """

    steps: int
    sizes: Mapping[str, int]
    seed: int = 0
    inputs: Inputs | None = None
    inputs_label: str = "random"
    loops: Mapping[str, str] | None = None
    initial: States | None = None
    levels: Sequence[Mapping[str, Level]] | None = None
    quantisation: str | None = None
    invariants: bool = True
    text: str | None = None

    def rows(self, contract: Contract) -> Inputs:
        """Return the inputs of the comparison. Raises InputError `out-of-memory`."""
        with initial_states.room(self.sizes):
            return self.inputs or drawn_inputs(contract, steps=self.steps, sizes=self.sizes, seed=self.seed)


def make_request(
    contract: Contract,
    *,
    steps: int,
    batch: int | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    recorded: Any = None,
) -> Request:
    """Return a request with every size settled.

    Args:
        contract: of the model.
        steps: number of steps, unless inputs are recorded; not more than a sequence of the model may have.
        batch: rows; 2 where the model has a batch.
        dims: sizes of free dimensions; 5 for those left out.
        seed: of random inputs.
        recorded: arrays by input name in the shape of a chunk; the bare array will do for one input.

    Raises:
        InputError: recorded inputs that do not fit the contract; sizes as `runtime.initial_states.sizes`.
    """
    steps = number(steps, "steps as a number of 1 or more", least=1, code="empty-time", error=InputError)
    seed = number(seed, "a seed of 0 or more", code="seed-invalid")
    dims = mapping("dims", dims, "sizes by dimension")
    asked = {**dims, **({} if batch is None else {"batch": batch})}
    rows = batch if batch is not None else 2 if contract.has_batch else 1
    free = {**dict.fromkeys(contract.free_dimensions, FREE_SIZE), **dims}
    sizes = initial_states.sizes(contract, rows, free)
    if recorded is None:
        steps = min(steps, contract.longest or steps)
        return Request(steps=steps, sizes=sizes, seed=seed)
    found = input_sizes(contract, recorded)
    for name, size in asked.items():
        if found.get(name, size) != size:
            raise InputError(
                "wrong-dimension",
                expected=f"recorded inputs with {name}={size}, as was asked for",
                found=f"{name}={found[name]}",
                fix=f"leave {name} out: recorded inputs have sizes of their own",
            )
    inputs = recorded_inputs(contract, recorded, time=found.get("time", 1))
    sizes |= {name: size for name, size in found.items() if name != "time"}
    return Request(
        steps=count_steps(contract, inputs),
        sizes=sizes,
        seed=seed,
        inputs=inputs,
        inputs_label="recorded",
    )


def check_parity(
    sessions: Sequence[Session],
    reference: Reference,
    request: Request,
    *,
    reference64: Reference64 | None = None,
    command: str = "",
    digests: Mapping[str, str] | None = None,
    advanced: Callable[[int], None] | None = None,
) -> Parity:
    """Compare runtimes of one model with its reference, and check how each behaves.

    Ctrl-C during the long comparison ends it early; the verdict then speaks of what was done.

    Args:
        sessions: one for each runtime.
        reference: what the model should equal.
        request: how thoroughly.
        reference64: the reference in float64.
        command: that does this again, for the report.
        digests: of the reference's files, for the report.
        advanced: called with the number of steps done so far.

    Raises:
        InputError, UsageError: as `rnnx.parity.compare.compare_runtimes`.
    """
    contract = sessions[0].contract
    levels = list(
        request.levels or [default_levels(each, quantisation=request.quantisation) for each in sessions]
    )
    compared = compare_runtimes(
        sessions,
        reference,
        inputs=request.rows(contract),
        sizes=request.sizes,
        initial=request.initial,
        seed=request.seed,
        levels=levels,
        reference64=reference64,
        loops=request.loops,
        advanced=advanced,
    )
    interrupted = any(each.interrupted for each in compared)
    checks: list[list[Check]] = [[] for _ in sessions]
    if request.invariants and not interrupted:
        try:
            steps = min(_comparable(compared), contract.longest or STEPS)
            _check(checks, sessions, reference, request, levels, reference64, steps)
        except KeyboardInterrupt:
            interrupted = True
    runtimes = [
        _runtime(result, table, more) for result, table, more in zip(compared, levels, checks, strict=True)
    ]
    found = Parity(
        format="rnnx-parity",
        version=VERSION,
        agrees=all(runtime.agrees for runtime in runtimes),
        interrupted=interrupted,
        summary="",
        model=_model(sessions[0]),
        reference=reference.name,
        digests=dict(digests or {}),
        steps=compared[0].steps,
        batch=compared[0].batch,
        seed=request.seed if request.inputs is None else None,
        inputs=request.inputs_label,
        truth=reference64 is not None,
        runtimes=runtimes,
        finding=None,
        contract=contract,
        versions=package_versions(),
        machine=machine(),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
    )
    return dataclasses.replace(found, summary=summarise(found))


def _check(
    checks: list[list[Check]],
    sessions: Sequence[Session],
    reference: Reference,
    request: Request,
    levels: Sequence[Mapping[str, Level]],
    reference64: Reference64 | None,
    steps: int,
) -> None:
    """Add to `checks`, for each session, what is checked beside the long comparison."""
    for row, each, table in zip(checks, sessions, levels, strict=True):
        row += check_invariants(each, table, sizes=request.sizes, seed=request.seed, steps=steps)
    for kind in KINDS[1:]:
        # Without a float64 reference, or with coarser weights, nothing says how far large values may be off.
        if kind == "large" and (
            reference64 is None or any(stored_weights(each) != "f32" for each in sessions)
        ):
            continue
        drawn = drawn_inputs(
            sessions[0].contract,
            steps=_EXTREME_STEPS,
            sizes=request.sizes,
            seed=request.seed,
            kind=kind,
        )
        results = compare_runtimes(
            sessions,
            reference,
            inputs=drawn,
            sizes=request.sizes,
            levels=levels,
            reference64=reference64,
            lenient=True,
        )
        if any(result.interrupted for result in results):
            raise KeyboardInterrupt
        for row, result in zip(checks, results, strict=True):
            said = str(result.failure) if result.failure else f"{_EXTREME_STEPS} steps agree"
            row.append(Check(f"{kind} inputs", result.agrees, said, _largest(result)))
    contract = sessions[0].contract
    if contract.vocabulary is not None and contract.whole_only is None:
        for row, session in zip(checks, sessions, strict=True):
            row += check_text(session, reference, request.text, seed=request.seed)


def _comparable(compared: Sequence[Comparison]) -> int:
    """Return for how many steps two right runs must agree: in half of a chaotic network's horizon an error
    that begins as rounding comes half the way, in powers of e, to the tolerance.
    """
    drifts = [drift for result in compared for drift in result.drift.values()]
    left = [step for drift in drifts for step in (drift.left, drift.reference_left) if step is not None]
    return max(2, min([STEPS, *(step // 2 for step in left)]))


def _runtime(result: Comparison, levels: Mapping[str, Level], checks: list[Check]) -> Runtime:
    ratios = [drift.ratio for drift in result.drift.values() if drift.ratio is not None]
    allowed = [level.rounding for level in levels.values() if level.rounding is not None]
    return Runtime(
        provider=result.provider,
        tolerance=list(dict.fromkeys(level.name for level in levels.values())),
        agrees=result.agrees and all(check.holds is not False for check in checks),
        max_errors={route: dict(errors) for route, errors in result.max_errors.items()},
        failure=result.failure,
        worst=result.worst,
        drift=dict(result.drift),
        ratio=max(ratios, default=None),
        allowed_ratio=max(allowed, default=None) if ratios else None,
        checks=checks,
    )


def _largest(result: Comparison) -> float:
    return max((error for errors in result.max_errors.values() for error in errors.values()), default=0.0)


def _model(session: Session) -> dict[str, str]:
    return {"path": str(session.path or ""), "id": session.id, "name": session.contract.name}
