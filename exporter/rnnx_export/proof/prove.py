"""The proof: an exported file compared with the module, before it is written.

At other batch sizes and lengths than it was captured with: the whole sequence, step by step from the
module's own states, running free, and in random chunks; against the module in its own precision and in
float64. Nothing may look ahead, and what every state is good for is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch

from rnnx.errors import InputError, RnnxError
from rnnx.files import write_bytes
from rnnx.formats.trace_file import Trace, encode_trace
from rnnx.model.contract import Contract, Proof
from rnnx.model.onnx_file import write_contract
from rnnx.model.shapes import chunk_shape, to_steps
from rnnx.parity.compare import Comparison, Reference, compare_runtimes
from rnnx.parity.drift import WORSE
from rnnx.parity.lockstep import chunk_inputs
from rnnx.parity.reference import Reference64
from rnnx.parity.rounding import WINDOW
from rnnx.session import load
from rnnx_export import refusals
from rnnx_export.module.tensors import to_numpy
from rnnx_export.proof.calls import compare_calls, compare_ends, compare_flush
from rnnx_export.proof.driven_reference import DrivenReference, check_explained
from rnnx_export.proof.first_look import long_run_agrees, short_runs_agree
from rnnx_export.proof.float64_file import compare_in_float64
from rnnx_export.proof.module_reference import (
    ChunkReference,
    ModuleReference,
    StepReference,
    reference_name,
    runs_chunks,
)
from rnnx_export.proof.setting import ProofError, ProofSetting
from rnnx_export.proof.states import explain_states
from rnnx_export.states.export_plan import Plan

_STEPS = 200
_ROUNDING_STEPS = 2 * WINDOW
_FILE_STEPS = 24
_TRACE_STEPS = 12
_DECISION_SEEDS = 6


class Proved(NamedTuple):
    """What a proof made."""

    proof: Proof
    trace: bytes
    notes: list[str]


def prove(plan: Plan, model: bytes, contract: Contract, computed: str, folder: Path | None = None) -> Proved:
    """Compare the model with the module on every route.

    Args:
        plan: what was found in the module.
        model: the ONNX file's bytes, without contract.
        contract: its contract, without proof.
        computed: the coarsest floating dtype that it computes in; no value is more exact than that.
        folder: where weights lie that are too large for the file; None if it holds them all.

    Returns:
        The proof for the contract, a trace of the module, and what the user should know.

    Raises:
        ProofError: something differs: tensor, step, index, expected and got are in the message.
    """
    try:
        source: bytes | Path = write_contract(model, contract)
        if folder is not None:
            source = folder / "model.onnx"
            write_bytes(source, write_contract(model, contract))
        session = load(source, options={"threads": 1})
    except RnnxError as error:
        raise ProofError(refusals.engine_says(error.found, "ONNX Runtime does not take it: ")) from error
    check_explained(plan)
    setting = ProofSetting(plan, session, computed)
    # Weights that lie outside are too large for copies in float64.
    prover = _Prover(setting, onnx.load_model_from_string(model) if folder is None else None)
    batches = [1, 4] if contract.has_batch else [1]
    for seed, batch in enumerate(batches):
        prover.compare(batch, 9 + seed * 4 + plan.convention.delay, seed)
    prover.compare_long(batches[-1])
    if plan.sides or plan.both:
        prover.compare_decisions(batches[-1])
    compare_calls(setting, batches[-1])
    compare_flush(setting, batches[-1])
    if not plan.whole_only:
        prover.look_ahead()
        explain_states(setting)
    loosest = max(setting.levels.values(), key=lambda level: level.step.absolute)
    proof = Proof(
        reference=reference_name(),
        tolerance=loosest.name,
        batches=batches,
        steps=min(_STEPS, plan.longest or _STEPS),
        id=contract.id,
        max_error=float(f"{prover.max_error:.2g}"),
    )
    return Proved(proof, prover.trace(), setting.notes)


class _Prover:
    """The comparisons of one export with the module at every step."""

    def __init__(self, setting: ProofSetting, graph: onnx.ModelProto | None) -> None:
        self.setting, self.graph = setting, graph
        self.plan, self.session = setting.plan, setting.session
        self.max_error = 0.0

    def compare(self, batch: int, steps: int, seed: int) -> None:
        """Compare with the module whole and in steps, in its own precision and in float64."""
        sizes = self.setting.sizes(batch, steps, seed)
        inputs = self.setting.inputs(sizes, seed)
        where = f"batch {batch}, {steps} steps"
        if not self._settled(short_runs_agree(self.setting, inputs, sizes, seed)):
            self._compare_one_by_one(inputs, sizes, seed, where)
        if not self.plan.whole_only:
            self._from_other_states(sizes, inputs, seed)
        compare_ends(self.setting, inputs, sizes)

    def _settled(self, error: float | None) -> bool:
        """Take the largest error of a first look, if that settled it."""
        self.max_error = max(self.max_error, error or 0.0)
        return error is not None

    def _compare_one_by_one(
        self, inputs: Mapping[str, Any], sizes: Mapping[str, int], seed: int, where: str
    ) -> None:
        """Compare with each reference by itself, which says what differs and may excuse it."""
        for dtype in (None, torch.float64):
            try:
                for reference in self._references(dtype):
                    self._compare(reference, inputs, sizes, seed, where)
            except (RuntimeError, TypeError, NotImplementedError, InputError):
                if dtype is None:
                    raise
                self.setting.note(
                    "the module does not run in float64: it was compared in its own precision only"
                )

    def compare_decisions(self, batch: int) -> None:
        """Compare on inputs that take the other sides of decisions on values."""
        for seed in range(_DECISION_SEEDS):
            sizes = self.setting.sizes(batch, 6 + self.plan.convention.delay, seed % 2)
            inputs = self.setting.inputs(sizes, 40 + seed, odd=True)
            for reference in self._references(None):
                self._compare(reference, inputs, sizes, seed, "inputs that decide otherwise")

    def compare_long(self, batch: int) -> None:
        """Compare a long run, held to what the table of tolerances allows a run of any length."""
        look = long_run_agrees(self.setting, self.graph, batch, steps=_STEPS, file_steps=_FILE_STEPS)
        if self._settled(look):
            return
        sizes = self.setting.sizes(batch, _STEPS, 2)
        inputs = self.setting.inputs(sizes, 2)
        self._compare(self._references(None)[0], inputs, sizes, 2, f"{sizes['time']} steps", long=True)
        self._compare_rounding(batch)

    def _compare_rounding(self, batch: int) -> None:
        """Hold a long run to the module in float64, in units of PyTorch's error: `rnnx.parity.rounding`."""
        sizes = self.setting.sizes(batch, _ROUNDING_STEPS, 2)
        inputs = self.setting.inputs(sizes, 2)
        reference = self._references(None)[-1]
        reference64 = self.setting.reference64(type(reference), sizes, inputs)
        if reference64 is None:
            return
        # Single steps were held to the table before; among so many one may be hard for PyTorch itself.
        found = compare_runtimes(
            [self.session],
            reference,
            inputs=inputs,
            sizes=sizes,
            seed=2,
            levels=[self.setting.table],
            reference64=reference64,
            lenient=True,
        )[0]
        if found.failure is not None:
            raise ProofError(f"{sizes['time']} steps: {found.failure}")
        if self.graph is not None:
            self._compare_file(reference, reference64, sizes, inputs)

    def _compare_file(
        self,
        reference: ModuleReference,
        reference64: Reference64,
        sizes: Mapping[str, int],
        inputs: Mapping[str, Any],
    ) -> None:
        """Hold the file itself in float64 to the module in float64."""
        assert self.graph is not None
        held = compare_in_float64(
            self.graph,
            self.session.contract,
            reference,
            reference64,
            inputs=inputs,
            sizes=sizes,
            initial=reference.start(sizes),
            steps=min(_FILE_STEPS, sizes["time"]),
        )
        if held.failure is not None:
            raise ProofError(str(held.failure))

    def _references(self, dtype: torch.dtype | None) -> list[ModuleReference]:
        """Return what the file is compared with: the module as its author drives it, and from any states."""
        driven = DrivenReference(self.plan, dtype)
        return [driven] if self.plan.whole_only else [driven, StepReference(self.plan, dtype)]

    def _compare(
        self,
        reference: ModuleReference,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        sizes: Mapping[str, int],
        seed: int,
        where: str,
        *,
        long: bool = False,
        initial: Mapping[str, Any] | None = None,
    ) -> None:
        """Compare with one reference. Raises ProofError where more than rounding parts the two."""

        def run(against: Reference, reference64: Reference64 | None) -> Comparison:
            return compare_runtimes(
                [self.session],
                against,
                inputs=inputs,
                sizes=sizes,
                initial=initial,
                seed=seed,
                levels=[self.setting.table if long else self.setting.levels],
                reference64=reference64,
            )[0]

        try:
            result = run(reference, None)
            errors = dict(result.max_errors)
            if result.failure is not None:
                # A chaotic network enlarges rounding, PyTorch's own too: the float64 one shows how much.
                reference64 = self.setting.reference64(type(reference), sizes, inputs)
                again = None if reference64 is None else run(type(reference)(self.plan), reference64)
                if again is None or not _only_rounding(again):
                    precision = "own precision" if reference.dtype is None else "float64"
                    raise ProofError(f"{where}, {precision}: {result.failure}")
                self.setting.note(
                    "the network is chaotic: it enlarges rounding, PyTorch's own as much as the model's"
                )
                errors = {"fed": again.max_errors.get("fed", {})}
        except RnnxError as error:
            if error.code == "forward-failed":  # the module itself, about which the file is not to blame
                raise
            raise ProofError(refusals.engine_says(error.found, f"{where}: ")) from error
        self.max_error = max(
            [self.max_error, *(error for each in errors.values() for error in each.values())]
        )

    def look_ahead(self) -> None:
        """Fill the future with other values: the past must not change by a bit."""
        contract, delay = self.session.contract, self.plan.convention.delay
        steps, cut = 10 + 2 * delay, 5 + delay
        sizes = self.setting.sizes(2 if contract.has_batch else 1, steps, 3)
        inputs = self.setting.inputs(sizes, 3)
        other = self.setting.inputs(sizes, 4)
        mixed = {
            name: np.concatenate([rows[:cut], other[name][cut:]]) if self.setting.stepped(name) else rows
            for name, rows in inputs.items()
        }
        first, second = self.setting.run_whole(inputs, sizes), self.setting.run_whole(mixed, sizes)
        for spec in contract.outputs:
            shape = chunk_shape(contract, spec)
            if "time" not in [str(d).rpartition("*")[2] for d in shape]:
                continue
            left, right = to_steps(first[spec.name], shape)[:cut], to_steps(second[spec.name], shape)[:cut]
            if left.tobytes() != right.tobytes():
                raise ProofError(f"output {spec.name!r} changes when later inputs do")

    def trace(self) -> bytes:
        """Return a small trace of the module."""
        contract = self.session.contract
        steps = max(_TRACE_STEPS, self.plan.convention.delay + _TRACE_STEPS // 2)
        sizes = self.setting.sizes(2 if contract.has_batch else 1, steps, 6)
        inputs = self.setting.inputs(sizes, 6)
        whole = self.plan.whole_only
        reference: Reference = DrivenReference(self.plan) if whole else StepReference(self.plan)
        start = reference.start(sizes)
        recorded = list(reference.steps(inputs, start))
        outputs = {
            spec.name: np.stack([row[0].get(spec.name, recorded[-1][0][spec.name]) for row in recorded])
            for spec in contract.outputs
        }
        states = {
            # A whole sequence shows its states at its end only; the rows before repeat the start.
            state.name: np.stack(
                [start[state.name], *(row[1].get(state.name, start[state.name]) for row in recorded)]
            )
            for state in contract.states
        }
        bounds = {name: level.step for name, level in self.setting.levels.items()}
        return encode_trace(Trace(self.session.id, reference_name(), bounds, inputs, outputs, states))

    def _from_other_states(self, sizes: Mapping[str, int], inputs: Mapping[str, Any], seed: int) -> None:
        """Begin from states that some other run led to."""
        stream, others = self.setting.stream(sizes), self.setting.inputs(sizes, seed + 50)
        stream.run(chunk_inputs(self.setting.contract, others, 0, sizes["time"]))
        reference = (ChunkReference if runs_chunks(self.plan) else StepReference)(self.plan)
        generator = torch.Generator().manual_seed(seed)
        overrides = {
            name: to_numpy(spec.random(sizes, generator))
            for name, spec in self.plan.subject.states.items()
            if spec is not None and spec.low is not None
        }
        initial = {**stream.state, **overrides}
        self._compare(reference, inputs, sizes, seed, "from other states", initial=initial)
        self._from_other_arguments(sizes, inputs, seed)

    def _from_other_arguments(self, sizes: Mapping[str, int], inputs: Mapping[str, Any], seed: int) -> None:
        """Begin from random values of the states that forward takes; the module is handed them as its own."""
        generator = torch.Generator().manual_seed(seed + 1)
        specs = self.plan.convention.subject.states
        drawn = {name: to_numpy(spec.random(sizes, generator)) for name, spec in specs.items() if spec}
        driven = DrivenReference(self.plan, from_none=False)
        try:
            rows = [part for row in driven.steps(inputs, drawn) for part in row] if drawn else []
        except InputError:  # such a state the module cannot have: an index beyond its table
            return
        if rows and all(np.isfinite(value).all() for part in rows for value in part.values()):
            self._compare(driven, inputs, sizes, seed, "from other arguments", initial=drawn)


def _only_rounding(result: Comparison) -> bool:
    """Whether a comparison shows no more than the rounding that PyTorch's own float32 suffers too."""
    own = [
        (drift, max((error for _, error in drift.reference), default=None)) for drift in result.drift.values()
    ]
    lost = any(drift.reference_left is not None for drift, _ in own)
    within = all(drift.largest <= WORSE * error for drift, error in own if error is not None)
    return result.failure is None and (lost or within)
