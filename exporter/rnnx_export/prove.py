"""The proof: an exported file compared with the module, before it is written.

At other batch sizes and lengths than it was captured with: the whole sequence, step by step from the
module's own states, running free, and in random chunks; against the module in its own precision and in
float64. Nothing may look ahead, and what every state is good for is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rnnx
from rnnx.compare import Comparison, Reference, compare_runtimes
from rnnx.contract import Contract, Proof, axis_index
from rnnx.drift import WORSE
from rnnx.errors import InputError, RnnxError
from rnnx.files import write_bytes
from rnnx.model_file import write_contract
from rnnx.session import Session
from rnnx.shapes import chunk_shape, from_steps, to_steps
from rnnx.tolerance import Level, coarser, error_beyond, level_of
from rnnx.trace_file import Trace, encode_trace
from rnnx_export import refusals
from rnnx_export.explore import to_numpy
from rnnx_export.plan import Plan
from rnnx_export.reference import ModuleReference, StepReference, WholeReference, reference_name, stepped
from rnnx_export.truth import open_truth

_STEPS = 200
_TRACE_STEPS = 12


class ProofError(Exception):
    """The file does not compute what the module computes; the message is one line."""


def prove(
    plan: Plan, model: bytes, contract: Contract, computed: str, folder: Path | None = None
) -> tuple[Proof, bytes]:
    """Compare the model with the module in every way.

    Args:
        plan: what was found in the module.
        model: the ONNX file's bytes, without contract.
        contract: its contract, without proof.
        computed: the coarsest floating dtype that it computes in; no value is more exact than that.
        folder: where weights lie that are too large for the file; None if it holds them all.

    Returns:
        The proof for the contract, and a trace of the module.

    Raises:
        ProofError: something differs: tensor, step, index, expected and got are in the message.
    """
    try:
        source: bytes | Path = write_contract(model, contract)
        if folder is not None:
            source = folder / "model.onnx"
            write_bytes(source, write_contract(model, contract))
        session = rnnx.load(source, options={"threads": 1})
    except RnnxError as error:
        raise ProofError(f"ONNX Runtime does not take it: {refusals.engine_says(error.found)}") from error
    prover = _Prover(plan, session, computed)
    batches = [1, 4] if contract.has_batch else [1]
    for seed, batch in enumerate(batches):
        prover.compare(batch, 9 + seed * 4, seed)
    prover.compare_long(batches[-1])
    if not plan.whole_only:
        prover.look_ahead()
        prover.dead_states()
    loosest = max(prover.levels.values(), key=lambda level: level.step.absolute)
    proof = Proof(
        reference=reference_name(),
        tolerance=loosest.name,
        batches=batches,
        steps=_STEPS,
        id=contract.id,
        max_error=float(f"{prover.max_error:.2g}"),
    )
    return proof, prover.trace()


class _Prover:
    """The comparisons of one export."""

    def __init__(self, plan: Plan, session: Session, computed: str) -> None:
        self.plan = plan
        self.session = session
        self.max_error = 0.0
        contract = session.contract
        specs = [(f"output.{spec.name}", spec.dtype) for spec in contract.outputs]
        specs += [(f"state.{state.name}", state.dtype) for state in contract.states]
        self._table = {name: level_of(coarser(dtype, computed)) for name, dtype in specs}
        self.levels = {name: _strict(level) for name, level in self._table.items()}

    def compare(self, batch: int, steps: int, seed: int) -> None:
        """Compare with the module whole and in steps, in its own precision and in float64."""
        sizes = self._sizes(batch, steps, seed)
        inputs = self.inputs(sizes, seed)
        where = f"batch {batch}, {steps} steps"
        for dtype in (None, torch.float64):
            try:
                for reference in self._references(dtype):
                    self._compare(reference, inputs, sizes, seed, where)
            except (RuntimeError, TypeError, NotImplementedError, InputError):
                if dtype is None:
                    raise
                self._note("the module does not run in float64: it was compared in its own precision only")
        if not self.plan.whole_only:
            self._from_other_states(sizes, inputs, seed)
        self._compare_ends(sizes, inputs, where)

    def _compare_ends(
        self, sizes: Mapping[str, int], inputs: Mapping[str, np.ndarray[Any, Any]], where: str
    ) -> None:
        """Compare outputs without time in every row, also in those that ended before the call did.

        Nothing says what such a row gives at a later step, but what the module says of it after a whole call
        is what its caller reads: the last hidden state of a padded batch.
        """
        contract = self.session.contract
        ends = [spec for spec in contract.outputs if axis_index(chunk_shape(contract, spec), "time") is None]
        if not ends or not any(spec.role == "length" for spec in contract.inputs):
            return
        reference = WholeReference(self.plan)
        *_, (expected, _) = reference.steps(inputs, reference.start(sizes))
        got = self._whole(inputs, sizes)
        for spec in ends:
            bound = self.levels[f"output.{spec.name}"].step
            wrong = error_beyond(bound, expected[spec.name], got[spec.name]) > 0
            if wrong.any():
                index = tuple(int(place) for place in np.argwhere(wrong)[0])
                raise ProofError(
                    f"{where}: output.{spec.name}{list(index)} after rows of unequal lengths: "
                    f"expected {expected[spec.name][index]:.9g}, got {got[spec.name][index]:.9g}"
                )

    def compare_long(self, batch: int) -> None:
        """Compare a long run, held to what the table of tolerances allows a run of any length."""
        sizes = self._sizes(batch, _STEPS, 2)
        inputs = self.inputs(sizes, 2)
        self._compare(self._references(None)[0], inputs, sizes, 2, f"{_STEPS} steps", long=True)

    def _references(self, dtype: torch.dtype | None) -> list[ModuleReference]:
        whole: list[ModuleReference] = [WholeReference(self.plan, dtype)] if self.plan.has_time else []
        return whole if self.plan.whole_only else [*whole, StepReference(self.plan, dtype)]

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

        def run(against: Reference, truth: Reference | None) -> Comparison:
            return compare_runtimes(
                [self.session],
                against,
                inputs=inputs,
                sizes=sizes,
                initial=initial,
                seed=seed,
                levels=[self._table if long else self.levels],
                truth=truth,
            )[0]

        try:
            result = run(reference, None)
            ways = dict(result.max_errors)
            if result.failure is not None:
                # A chaotic network enlarges rounding, PyTorch's own too: the float64 one shows how much.
                truth = self._truth(type(reference), sizes, inputs)
                again = None if truth is None else run(type(reference)(self.plan), truth)
                if again is None or not _only_rounding(again):
                    precision = "own precision" if reference.dtype is None else "float64"
                    raise ProofError(f"{where}, {precision}: {result.failure}")
                self._note(
                    "the network is chaotic: it enlarges rounding, PyTorch's own as much as the model's"
                )
                ways = {"fed": again.max_errors.get("fed", {})}
        except RnnxError as error:
            if error.code == "forward-failed":  # the module itself, about which the file is not to blame
                raise
            raise ProofError(f"{where}: {refusals.engine_says(error.found)}") from error
        self.max_error = max([self.max_error, *(error for way in ways.values() for error in way.values())])

    def _truth(
        self, kind: type[ModuleReference], sizes: Mapping[str, int], inputs: Mapping[str, Any]
    ) -> ModuleReference | None:
        """Return the network in float64 if it computes in float32, the precision whose rounding is told."""
        dtypes = [state.spec.dtype for state in self.plan.states]
        dtypes += [output.spec.dtype for output in self.plan.outputs]
        if any(dtype.itemsize < 4 for dtype in dtypes if dtype.is_floating_point):
            return None
        return open_truth(kind(self.plan), inputs, sizes)

    def look_ahead(self) -> None:
        """Fill the future with other values: the past must not change by a bit."""
        contract = self.session.contract
        steps, cut = 10, 5
        sizes = self._sizes(2 if contract.has_batch else 1, steps, 3)
        inputs = self.inputs(sizes, 3)
        other = self.inputs(sizes, 4)
        mixed = {
            name: np.concatenate([rows[:cut], other[name][cut:]]) if self._stepped(name) else rows
            for name, rows in inputs.items()
        }
        first, second = self._whole(inputs, sizes), self._whole(mixed, sizes)
        for spec in contract.outputs:
            shape = chunk_shape(contract, spec)
            if "time" not in [str(d).rpartition("*")[2] for d in shape]:
                continue
            left, right = to_steps(first[spec.name], shape)[:cut], to_steps(second[spec.name], shape)[:cut]
            if left.tobytes() != right.tobytes():
                raise ProofError(f"output {spec.name!r} changes when later inputs do")

    def dead_states(self) -> None:
        """Note each state that changes nothing."""
        contract = self.session.contract
        sizes = self._sizes(2 if contract.has_batch else 1, 6, 5)
        inputs = self.inputs(sizes, 5)
        base = self._after(inputs, sizes, {})
        for state in self.plan.states:
            moved = self._after(inputs, sizes, {state.name: _moved(base[1][state.name])})
            same = all(_equal(base[0][name], moved[0][name]) for name in base[0])
            if same and all(_equal(base[1][name], moved[1][name]) for name in base[1] if name != state.name):
                self._note(
                    f"state {state.name!r} may be dead: another value in it changed nothing in three steps"
                )

    def trace(self) -> bytes:
        """Return a small trace of the module."""
        contract = self.session.contract
        sizes = self._sizes(2 if contract.has_batch else 1, _TRACE_STEPS, 6)
        inputs = self.inputs(sizes, 6)
        whole = self.plan.whole_only
        reference: Reference = WholeReference(self.plan) if whole else StepReference(self.plan)
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
        bounds = {name: level.step for name, level in self.levels.items()}
        return encode_trace(Trace(self.session.id, reference_name(), bounds, inputs, outputs, states))

    def inputs(self, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return random inputs, [step, ...] each, those without time once."""
        generator = torch.Generator().manual_seed(1000 + seed)
        contract = self.session.contract
        arrays = {}
        for spec, entry in zip(self.plan.subject.inputs.values(), contract.inputs, strict=True):
            if self.plan.has_time or spec.is_length:
                value = to_numpy(spec.random(sizes, generator))
                arrays[entry.name] = to_steps(value, entry.shape) if spec.has("time") else value
            else:
                rows = [to_numpy(spec.random(sizes, generator)) for _ in range(sizes["time"])]
                arrays[entry.name] = np.stack(rows)
        return arrays

    def _from_other_states(self, sizes: Mapping[str, int], inputs: Mapping[str, Any], seed: int) -> None:
        """Begin from states that some other run led to."""
        reference = StepReference(self.plan)
        warm = list(reference.steps(self.inputs(sizes, seed + 50), reference.start(sizes)))[-1][1]
        generator = torch.Generator().manual_seed(seed)
        given = {
            name: to_numpy(spec.random(sizes, generator))
            for name, spec in self.plan.subject.states.items()
            if spec is not None and spec.low is not None
        }
        initial = {**warm, **given}
        self._compare(reference, inputs, sizes, seed, "from other states", initial=initial)

    def _whole(self, inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
        contract = self.session.contract
        stream = self.session.stream(batch=sizes.get("batch", 1), dims=self._free(sizes))
        return stream.run(
            {
                spec.name: from_steps(inputs[spec.name], chunk_shape(contract, spec))
                if self._stepped(spec.name)
                else inputs[spec.name]
                for spec in contract.inputs
            }
        )

    def _after(
        self, inputs: Mapping[str, Any], sizes: Mapping[str, int], states: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run two halves with `states` put in between; return the second half's outputs and final states."""
        contract = self.session.contract
        stream = self.session.stream(batch=sizes.get("batch", 1), dims=self._free(sizes))
        halves = []
        for part in (slice(0, 3), slice(3, None)):
            chunk = {
                spec.name: from_steps(inputs[spec.name][part], chunk_shape(contract, spec))
                if self._stepped(spec.name)
                else np.minimum(inputs[spec.name], 3)
                if spec.role == "length"
                else inputs[spec.name]
                for spec in contract.inputs
            }
            if part.start:
                stream.state.update(states)
            halves.append(stream.run(chunk))
        return halves[1], dict(stream.state)

    def _sizes(self, batch: int, steps: int, seed: int) -> dict[str, int]:
        sizes = {name: size + 2 * seed for name, size in self.plan.sizes.items()}
        return sizes | {"batch": batch, "time": steps}

    def _free(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {name: sizes[name] for name in self.session.contract.free_dimensions}

    def _stepped(self, name: str) -> bool:
        return stepped(self.plan, self.plan.subject.inputs[name])

    def _note(self, text: str) -> None:
        if text not in self.plan.notes:
            self.plan.notes.append(text)


def _only_rounding(result: Comparison) -> bool:
    """Whether a comparison shows no more than the rounding that PyTorch's own float32 suffers too."""
    own = [
        (drift, max((error for _, error in drift.reference), default=None)) for drift in result.drift.values()
    ]
    lost = any(drift.reference_left is not None for drift, _ in own)
    within = all(drift.largest <= WORSE * error for drift, error in own if error is not None)
    return result.failure is None and (lost or within)


def _strict(level: Level) -> Level:
    """Return a level whose free runs are held to the bound of a step: the proof is short."""
    return Level(level.name, level.step, level.step, level.reason)


def _moved(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return other values of the same dtype: finite, and valid wherever the old ones were."""
    if value.dtype.kind == "f":
        return np.where(np.isfinite(value), value * 0.5 + 0.25, 0.25).astype(value.dtype)
    return ~value if value.dtype.kind == "b" else np.zeros_like(value) if value.any() else np.ones_like(value)


def _equal(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    return left.tobytes() == right.tobytes()
