"""The file in float64 beside the module in float64: what parts the two is in the file, not in an engine.

An engine's float32 hides whatever is smaller than its rounding: a weight that is off by 0.02 %, a constant
that was computed in the wrong precision. The file's own graph in float64, evaluated by onnx's reference
evaluator, hides nothing. A good file departs from the module only by the constants that were computed for
it, such as a product of two weights, and what rounding those otherwise costs is measured.
docs/decisions/0012-verdict-in-units-of-rounding.md has the figures.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch

from rnnx.model.contract import Contract, axis_index
from rnnx.model.shapes import Array
from rnnx.parity.check import Request
from rnnx.parity.compare import computed_dtypes
from rnnx.parity.invariants import Check
from rnnx.parity.lockstep import Failure
from rnnx.parity.perturbed import advance
from rnnx.parity.reference import Inputs, Reference64, States, Values
from rnnx.parity.rows import Steps
from rnnx.parity.verdict import Parity, with_file_check
from rnnx.tolerance import error_beyond, level_of, relative_error
from rnnx_export.diagnostics import first_line
from rnnx_export.module.subject import Subject
from rnnx_export.module.tensors import to_numpy
from rnnx_export.proof.graph_values import Evaluator, Rounding, flat_graph, graph_inputs
from rnnx_export.proof.module_reference import ModuleReference

_NAME = "file in float64"
STEPS = 64
ALLOWED = 2.0  # times what rounding the constants anew costs
_ROUNDINGS = 3
_LARGEST = 1 << 22  # values in the graph's constants; beyond, several copies in float64 are too much
_EVALUATION = 1e-10  # of a value's size: what the evaluation in float64 costs itself


@dataclasses.dataclass
class InFloat64:
    """What came of it.

    Attributes:
        steps: how many were compared.
        ratio: the largest departure, in units of what rounding the file's constants costs.
        failure: the first departure that nothing explains.
        reason: why nobody can say, where that is so.
    """

    steps: int = 0
    ratio: float = 0.0
    failure: Failure | None = None
    reason: str = ""

    def as_check(self) -> Check:
        """Return it as a line of a report."""
        if self.failure is not None:
            return Check(_NAME, False, str(self.failure), self.failure.max_error)
        if self.reason:
            return Check(_NAME, None, self.reason)
        return Check(
            _NAME, True, f"{self.steps} steps: {self.ratio:.2g} times what rounding its constants costs"
        )


def hold_file(
    found: Parity,
    source: str | os.PathLike[str] | bytes,
    reference: ModuleReference,
    reference64: Reference64 | None,
    request: Request,
) -> Parity:
    """Return a verdict that holds the file in float64 as well.

    Args:
        found: the verdict on what runs it.
        source: the file, or its bytes.
        reference: the network.
        reference64: the network in float64, None where it does not run in it.
        request: of the verdict.
    """
    if found.interrupted:
        return found
    if reference64 is None:
        held = InFloat64(reason="the network was not run in float64")
    elif request.quantisation is not None:
        held = InFloat64(reason="the file's weights are stored in fewer bits than the network's")
    else:
        held = compare_in_float64(
            onnx.load_model_from_string(source)
            if isinstance(source, bytes)
            else onnx.load(os.fspath(source)),
            found.contract,
            reference,
            reference64,
            inputs=request.rows(found.contract),
            sizes=request.sizes,
            initial=request.initial or reference.start(request.sizes),
            steps=min(STEPS, found.steps),
        )
    return with_file_check(found, held.as_check(), held.failure)


def compare_in_float64(
    model: onnx.ModelProto,
    contract: Contract,
    reference: ModuleReference,
    reference64: Reference64,
    *,
    inputs: Inputs,
    sizes: Mapping[str, int],
    initial: States,
    steps: int,
    known: Steps | None = None,
) -> InFloat64:
    """Compare a file's graph with its network, both in float64.

    Each step is taken from one set of states, so that a fault stands alone.

    Args:
        model: the file's graph, its weights loaded.
        contract: of the file.
        reference: the network in its own precision.
        reference64: the network in float64.
        inputs: by name, [step, ...]; those without time once.
        sizes: of batch and the free dimensions.
        initial: states to begin with, in full shape.
        steps: how many.
        known: these steps of the network, from whatever states, where they were computed before.
    """
    if contract.whole_only:
        return InFloat64(reason="the model takes whole sequences only")
    if sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer) > _LARGEST:
        return InFloat64(reason=f"the file has more than {_LARGEST:,} weights")
    flat = flat_graph(model, single=True)
    exact = _values(reference.plan.subject)
    others = [Rounding(seed, exact) for seed in range(_ROUNDINGS)]
    if known is None:
        rows = _rows(contract, reference, reference64, inputs, sizes, initial, steps)
    else:
        rows = [
            _Row(graph_inputs(contract, inputs, sizes, step, step + 1, before), own, true)
            for step, (before, own, true) in enumerate(known.each(steps))
        ]
    try:
        evaluators = [Evaluator(flat, other) for other in (None, *others)]
        stacked = _stacked(contract, rows)
        if stacked is not None:
            found = _compared(
                contract, rows, [_split(contract, each(stacked), len(rows)) for each in evaluators]
            )
            if found.failure is None:
                return found  # else the rows of a batch may see each other: each step is taken by itself
        return _compared(contract, rows, [[each(row.feeds) for row in rows] for each in evaluators])
    except Exception as error:  # of whatever kind: it meets operators that it does not have
        return InFloat64(reason=f"onnx's reference evaluator cannot run the graph: {first_line(error)}")


class _Row(NamedTuple):
    """A step: what the graph takes, and what the network gives in its own precision and in float64."""

    feeds: Values
    own: tuple[Values, States]
    true: tuple[Values, States]


def _rows(
    contract: Contract,
    reference: ModuleReference,
    reference64: Reference64,
    inputs: Inputs,
    sizes: Mapping[str, int],
    states: States,
    steps: int,
) -> list[_Row]:
    """Return steps of the network from the states that it itself goes through."""
    rows = []
    for step in range(steps):
        own = advance(reference, contract, inputs, step, states)
        true = advance(reference64, contract, inputs, step, states)
        rows.append(_Row(graph_inputs(contract, inputs, sizes, step, step + 1, states), own, true))
        states = own[1]
    return rows


def _compared(contract: Contract, rows: Sequence[_Row], values: Sequence[Sequence[Values]]) -> InFloat64:
    """Return how far the file is from the network; `values` are the graph's, then those rounded otherwise."""
    departures = {
        name: _Departures(name, dtype)
        for name, dtype in computed_dtypes(contract).items()
        if "float" in dtype
    }
    for step, row in enumerate(rows):
        file, *rounded = (each[step] for each in values)
        for tensor, name, network, wide in _pairs(contract, row.own, row.true):
            departures[tensor].add(step, wide, network, file[name], [each[name] for each in rounded])
    failures = (each.failure() for each in departures.values() if each.at_fault)
    ratio = max((each.ratio for each in departures.values()), default=0.0)
    return InFloat64(len(rows), ratio, next(failures, None))


def _stacked(contract: Contract, rows: Sequence[_Row]) -> Values | None:
    """Return what the graph takes for all steps as rows of one batch, None where something has no batch."""
    axes = {spec.name: axis_index(spec.shape, "batch") for spec in contract.inputs}
    axes |= {state.input: axis_index(state.shape, "batch") for state in contract.states}
    if None in [*axes.values(), *(axis_index(spec.shape, "batch") for spec in contract.outputs)]:
        return None
    return {name: np.concatenate([row.feeds[name] for row in rows], axis) for name, axis in axes.items()}


def _split(contract: Contract, values: Values, count: int) -> list[Values]:
    """Return outputs and next states of stacked steps, step by step."""
    axes = {spec.name: axis_index(spec.shape, "batch") for spec in contract.outputs}
    axes |= {state.output: axis_index(state.shape, "batch") for state in contract.states}
    parts = {name: np.split(values[name], count, axis or 0) for name, axis in axes.items()}
    return [{name: each[step] for name, each in parts.items()} for step in range(count)]


def _values(subject: Subject) -> Array:
    """Return every parameter and buffer, in float64, sorted.

    A plain attribute may be what forward computes anew, such as a normalised weight.
    """
    module = subject.fresh()
    held = [*module.parameters(), *module.buffers()]
    real = [torch.view_as_real(value) if value.is_complex() else value for value in held]
    floats = [to_numpy(value) for value in real if value.is_floating_point()]
    return np.unique(np.concatenate([value.astype(np.float64).ravel() for value in floats] or [np.zeros(0)]))


class _Departures:
    """How far one tensor of the file is from the network, both in float64, over all steps.

    Args:
        tensor: `output.NAME` or `state.NAME`.
        dtype: the coarsest on the way to it.
    """

    def __init__(self, tensor: str, dtype: str) -> None:
        self.ratio = 0.0
        self._tensor, self._bound = tensor, level_of(dtype).step
        self._epsilon = float(np.finfo(np.float32 if dtype == "bfloat16" else dtype).eps)
        self._furthest: dict[str, Any] = {}
        self._squares = self._shared = 0.0

    @property
    def at_fault(self) -> bool:
        """Whether nothing explains it: not rounding, nor that the network is another one in float64.

        What asks for its own precision, such as `torch.finfo(x.dtype).eps`, parts the network in float64
        from the network as well, in the same direction.
        """
        return self.ratio > ALLOWED and self._shared < self._squares / 2

    def add(self, step: int, true: Array, own: Array, file: Array, rounded: Sequence[Array]) -> None:
        """Take one value of each.

        Args:
            step: which.
            true, own: the network's, in float64 and in its own precision.
            file: the file's in float64.
            rounded: the same with constants rounded otherwise.
        """
        if file.size != true.size or not true.size:
            return
        file = file.reshape(true.shape)  # without the axis of the one step
        departure = _difference(file, true)
        cost = max(float(np.abs(_difference(each.reshape(true.shape), file)).max()) for each in rounded)
        size = float(np.abs(np.where(np.isfinite(true), true, 0.0)).max())
        unit = cost + _EVALUATION * (1 + size)
        place = np.unravel_index(int(np.abs(departure).argmax()), true.shape)
        furthest = float(np.abs(departure[place]))
        if furthest <= self._epsilon * size:
            return  # less than rounding the value itself once
        if error_beyond(self._bound, true[place], file[place]) > 0:
            # The engine itself would show it. If it does not, a value reaches a threshold exactly, where
            # rounding decides, or the evaluator is wrong.
            return
        self._squares += float((departure**2).sum())
        self._shared += float((departure * _difference(own.astype(np.float64), true)).sum())
        if furthest / unit <= self.ratio:
            return
        self.ratio = furthest / unit
        self._furthest = {
            "step": step,
            "index": [int(index) for index in place],
            "expected": float(true[place]),
            "got": float(file[place]),
            "max_error": relative_error(true[place], file[place]),
            "absolute": ALLOWED * unit,
            "window": (step, step + 1),
        }

    def failure(self) -> Failure:
        """Return where it is furthest off."""
        return Failure(
            way="float64",
            tensor=self._tensor,
            relative=0.0,
            ratio=self.ratio,
            allowed_ratio=ALLOWED,
            **self._furthest,
        )


def _difference(left: Array, right: Array) -> Array:
    """Return `left - right`, 0 where either is not finite."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(np.isfinite(left) & np.isfinite(right), left - right, 0.0), np.float64)


def _pairs(
    contract: Contract, own: tuple[Values, States], true: tuple[Values, States]
) -> Iterator[tuple[str, str, Array, Array]]:
    """Yield each tensor of floats: its names in reports and in the graph, and the network's values of it."""
    for spec in contract.outputs:
        if spec.name in true[0] and spec.dtype.startswith("float"):
            yield (
                f"output.{spec.name}",
                spec.name,
                np.asarray(own[0][spec.name]),
                np.asarray(true[0][spec.name]),
            )
    for state in contract.states:
        if state.dtype.startswith("float"):
            yield (
                f"state.{state.name}",
                state.output,
                np.asarray(own[1][state.name]),
                np.asarray(true[1][state.name]),
            )
