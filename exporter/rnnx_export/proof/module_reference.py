"""The module as a reference that is advanced from any states, one step at a time, all states shown.

It is run by the plan of the export, and says where a file goes wrong; whether the plan itself is right is
said by `driven.DrivenReference`, which knows nothing of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnx.errors import RnnxError
from rnnx.model.shapes import from_steps, to_steps
from rnnx_export import refusals
from rnnx_export.diagnostics import quiet
from rnnx_export.module.spec import TensorSpec
from rnnx_export.module.subject import Subject, precision
from rnnx_export.module.tensors import to_numpy
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.program import Program, step_program

Arrays = Mapping[str, np.ndarray[Any, Any]]
CHUNK = 16  # steps; states are seen as often


def reference_name() -> str:
    """Return what contracts and reports call PyTorch: "torch 2.15.0"."""
    return f"torch {torch.__version__.split('+')[0]}"


class ModuleReference:
    """What all views of a module share: a name, a plan, a start, and the precision computed in."""

    resumes = False

    def __init__(self, plan: Plan, dtype: torch.dtype | None = None) -> None:
        self.name = reference_name()
        self.plan = plan
        self.dtype = dtype

    def start(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the start of every state in full shape."""
        return {name: to_numpy(value) for name, value in self.plan.start(sizes).items()}

    def steps(self, inputs: Arrays, states: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs and next states after each step, as `rnnx.parity.reference.Reference` has it."""
        raise NotImplementedError


class StepReference(ModuleReference):
    """A module advanced one step at a time, from any states, all states shown.

    Memory in arguments, buffers and attributes is the module's own; what hides inside it is carried by the
    plan's lifts.

    Args:
        plan: what was found in the module.
        dtype: compute in this precision instead of the module's own.
    """

    resumes = True

    def __init__(self, plan: Plan, dtype: torch.dtype | None = None) -> None:
        super().__init__(plan, dtype)
        self._program = step_program(plan, dtype)

    def steps(self, inputs: Arrays, states: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs and next states after each step."""
        plan = self.plan
        count = len(plan.outputs)
        carried = [tensor_of(states[state.name], state.spec, self.dtype) for state in plan.states]
        for step in range(count_steps(plan, inputs)):
            arguments = [
                tensor_of(row_of(inputs[name], spec, step, plan), spec, self.dtype)
                for name, spec in plan.subject.inputs.items()
            ]
            place = f"the inputs of step {step}"
            with running(plan.subject, arguments, place), quiet(), precision(self.dtype):
                result = self._program(*arguments, *carried)
            carried = list(result[count:])
            outputs = {o.name: to_numpy(value) for o, value in zip(plan.outputs, result, strict=False)}
            yield (
                outputs,
                {s.name: state_array(value, s.spec) for s, value in zip(plan.states, carried, strict=True)},
            )


class ChunkReference(ModuleReference):
    """A module advanced in chunks of a few steps, by the plan's lifts; states are shown where a chunk ends.

    Args:
        plan: what was found in the module, one that `runs_chunks`.
        dtype: compute in this precision instead of the module's own.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype | None = None) -> None:
        super().__init__(plan, dtype)
        self._program = Program(plan, plan.subject.fresh(dtype))

    def steps(self, inputs: Arrays, states: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs after each step; those without time, and states, after each chunk."""
        plan, steps = self.plan, count_steps(self.plan, inputs)
        carried = [tensor_of(states[state.name], state.spec, self.dtype) for state in plan.states]
        for begin in range(0, steps, CHUNK):
            length = min(CHUNK, steps - begin)
            arguments = [
                tensor_of(cut(inputs[name], spec, begin, length, True), spec, self.dtype)
                for name, spec in plan.subject.inputs.items()
            ]
            place = f"the inputs from step {begin} on"
            with running(plan.subject, arguments, place), quiet(), precision(self.dtype):
                result = self._program(*arguments, *carried)
            carried = list(result[len(plan.outputs) :])
            rows, last = {}, {}
            for output, value in zip(plan.outputs, result, strict=False):
                if output.spec.has("time"):
                    rows[output.name] = chunk_rows(to_numpy(value), output.spec, length)
                else:
                    last[output.name] = to_numpy(value)
            for step in range(length - 1):
                yield {name: each[step] for name, each in rows.items()}, {}
            yield (
                {name: each[-1] for name, each in rows.items()} | last,
                {s.name: state_array(value, s.spec) for s, value in zip(plan.states, carried, strict=True)},
            )


def runs_chunks(plan: Plan) -> bool:
    """Whether the plan's states are carried from chunk to chunk, and not from step to step only."""
    stepped = plan.loops or plan.step_graph is not None or plan.delay is not None
    return plan.has_time and not (plan.whole_only or stepped)


@contextlib.contextmanager
def running(subject: Subject, inputs: Sequence[Tensor], place: str) -> Iterator[None]:
    """Say which inputs they were if the module fails on them; the user's own code may do so in any way."""
    try:
        yield
    except RnnxError:
        raise
    except Exception as error:
        named = dict(zip(subject.inputs, inputs, strict=True))
        raise refusals.inputs_fail(subject, error, named, place) from error


def count_steps(plan: Plan, inputs: Arrays) -> int:
    """Return the number of steps in recorded inputs, [step, ...] each."""
    return next(len(inputs[n]) for n, spec in plan.subject.inputs.items() if stepped(plan, spec))


def stepped(plan: Plan, spec: TensorSpec) -> bool:
    """Whether each step has its own value of an input; else one value holds for the whole call."""
    return spec.has("time") or (not plan.has_time and not spec.is_length)


def drawn_rows(
    plan: Plan, sizes: Mapping[str, int], seed: int, *, odd: bool = False
) -> dict[str, np.ndarray[Any, Any]]:
    """Return random inputs of `sizes["time"]` steps, [step, ...] each, those without time once.

    Args:
        plan: of the export.
        sizes: of each dimension.
        seed: of the values.
        odd: whether they are such as decisions are made on: all alike, 0 and 1, large, tiny.
    """
    draw = TensorSpec.odd if odd else TensorSpec.random
    generator = torch.Generator().manual_seed(1000 + seed)
    arrays = {}
    for name, spec in plan.subject.inputs.items():
        if plan.has_time or spec.is_length:
            value = to_numpy(draw(spec, sizes, generator))
            arrays[name] = to_steps(value, spec.shape) if spec.has("time") else value
        else:
            rows = [to_numpy(draw(spec, sizes, generator)) for _ in range(sizes["time"])]
            arrays[name] = np.stack(rows)
    return arrays


def cut(
    value: np.ndarray[Any, Any], spec: TensorSpec, begin: int, length: int, chunked: bool
) -> np.ndarray[Any, Any]:
    """Return what a call of `length` steps takes of an input's rows, [step, ...]; a step model takes one."""
    if spec.is_length:
        return np.asarray(np.clip(value - begin, 0, length))
    if not chunked:
        return np.asarray(value[begin])
    return from_steps(value[begin : begin + length], spec.shape) if spec.has("time") else value


def chunk_rows(chunk: np.ndarray[Any, Any], spec: TensorSpec, steps: int) -> np.ndarray[Any, Any]:
    """Return an output chunk as [step, ...] rows; a chunk that ends early is filled up with zeros."""
    rows = to_steps(chunk, spec.shape)
    missing = steps - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing > 0 else rows


def row_of(value: np.ndarray[Any, Any], spec: TensorSpec, step: int, plan: Plan) -> np.ndarray[Any, Any]:
    """Return what step `step` takes of an input."""
    if spec.is_length:
        return np.asarray(np.clip(value - step, 0, 1))
    return np.asarray(value[step]) if stepped(plan, spec) else value


def state_array(value: Tensor, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return a state in its own precision, whatever the module computed in."""
    return to_numpy(value.to(spec.dtype))


def tensor_of(value: np.ndarray[Any, Any], spec: TensorSpec, dtype: torch.dtype | None) -> Tensor:
    """Return an array as a tensor of its spec, floats in `dtype` where one is given."""
    tensor = torch.from_numpy(np.array(value))
    return tensor.to(dtype if dtype is not None and spec.dtype.is_floating_point else spec.dtype)
