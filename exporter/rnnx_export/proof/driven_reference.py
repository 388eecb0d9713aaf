"""The module driven as its author would drive it: what an exported file has to equal.

Its own forward is called with its own objects. What came back as state goes in again just as it came, nested,
replaced or changed in place; buffers and attributes stay where they are. Of the export this knows how forward
is called (`plan.Convention`) and what the results are called, and nothing of what became a state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnx.errors import InputError, ParityError
from rnnx.spelling import spelled
from rnnx_export import refusals
from rnnx_export.diagnostics import quiet
from rnnx_export.module import attributes
from rnnx_export.module.attributes import Place
from rnnx_export.module.parts import parts
from rnnx_export.module.structure import flatten, part_at, replace
from rnnx_export.module.subject import precision
from rnnx_export.module.tensors import to_numpy
from rnnx_export.proof.module_reference import (
    Arrays,
    ModuleReference,
    StepReference,
    chunk_rows,
    count_steps,
    cut,
    drawn_rows,
    running,
    state_array,
    tensor_of,
)
from rnnx_export.states.arguments import Feedback
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.layouts import split

_CHECKED_STEPS = 8
# Two ways through one module differ by rounding alone, relative to 1 + |value|, by the precision computed in.
_ROUNDING = {torch.float64: 1e-7, None: 2e-3}


class DrivenReference(ModuleReference):
    """A module called again and again from its own start: on whole chunks, or on single steps.

    Args:
        plan: of the export. What is used of it are its convention, the names of its outputs, and where in
            the module to look at those states that lie open there.
        dtype: compute in this precision instead of the module's own.
        lengths: steps of each call; None for one call of the whole sequence. A step model is called on
            single steps in any case.
        from_none: whether state arguments that may begin as None do; else with what `steps` is given.
    """

    def __init__(
        self,
        plan: Plan,
        dtype: torch.dtype | None = None,
        *,
        lengths: Sequence[int] | None = None,
        from_none: bool = True,
    ) -> None:
        super().__init__(plan, dtype)
        self.convention = plan.convention
        self._lengths, self._from_none = lengths, from_none

    def steps(self, inputs: Arrays, states: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs after each step; those without time, and states that lie open, after each call."""
        convention, subject = self.convention, self.convention.subject
        steps = count_steps(self.plan, inputs)
        chunked = convention.has_time
        lengths = (self._lengths or [steps]) if chunked else [1] * steps
        begin = 0
        with quiet(), precision(self.dtype):
            module = subject.fresh(self.dtype)
        arguments: dict[str, Any] = {}
        with contextlib.nullcontext() if chunked else _Resuming(module):
            for length in lengths:
                tensors = {
                    name: tensor_of(cut(inputs[name], spec, begin, length, chunked), spec, self.dtype)
                    for name, spec in subject.inputs.items()
                }
                place = "the inputs" if length == steps else f"the inputs from step {begin} on"
                with running(subject, list(tensors.values()), place), quiet(), precision(self.dtype):
                    arguments = arguments or self._start(tensors, states)
                    passed = {**subject.arguments(tensors, {}), **arguments}
                    result = subject.invoke(module, passed)
                    arguments = {
                        name: _handed_back(result, passed[name], feedback)
                        for name, feedback in convention.feedback.items()
                    }
                    shown = self._shown(module, result, arguments, length)
                yield from shown
                begin += length

    def _start(self, inputs: Mapping[str, Tensor], states: Arrays) -> dict[str, Any]:
        """Return the state arguments of the first call, which takes these inputs."""
        subject = self.convention.subject
        current: dict[str, Tensor | None] = {}
        for name, spec in subject.states.items():
            none = self._from_none and subject.starts_as_none(name)
            current[name] = None if spec is None or none else tensor_of(states[name], spec, self.dtype)
        arguments = subject.arguments(inputs, current)
        return {name: arguments[name] for name in self.convention.feedback}

    def _shown(
        self, module: nn.Module, result: Any, arguments: Mapping[str, Any], length: int
    ) -> list[tuple[Arrays, Arrays]]:
        """Return what one call gave: outputs step by step, and at its end the states that can be seen."""
        convention = self.convention
        leaves = dict(flatten(result))
        rows, last = {}, {}
        for output in convention.outputs:
            value = to_numpy(leaves[output.path])
            if output.spec.has("time"):
                rows[output.name] = _late(chunk_rows(value, output.spec, length), convention.delay)
            else:
                last[output.name] = value
        ends: dict[str, np.ndarray[Any, Any]] = {}
        if convention.delay:  # the model is not as far as the module
            return [({name: each[step] for name, each in rows.items()}, ends) for step in range(length)]
        held = {name: dict(flatten(value)) for name, value in arguments.items()}
        subject = convention.subject
        for state in self.plan.states:
            if state.name in subject.states:
                parameter, path = subject.place(state.name)
                ends[state.name] = state_array(held[parameter][path], state.spec)
            elif isinstance(state.origin, Place):
                value = attributes.read(module, state.origin)
                ends[state.name] = state_array(split(value, state.fold), state.spec)
        final = length - 1
        return [
            (
                {name: each[step] for name, each in rows.items()} | (last if step == final else {}),
                ends if step == final else {},
            )
            for step in range(length)
        ]


def _handed_back(result: Any, passed: Any, feedback: Feedback) -> Any:
    """Return what the next call takes for a state argument: a part of the result, or the argument itself."""
    if feedback.part is not None:
        return part_at(result, feedback.part)
    if not feedback.leaves:
        return passed
    leaves = dict(flatten(result))
    return replace(passed, {own: leaves[path] for own, path in feedback.leaves.items()})


def _late(rows: np.ndarray[Any, Any], delay: int) -> np.ndarray[Any, Any]:
    """Return [step, ...] rows that come some steps later, zeros before them."""
    first = np.zeros_like(rows[: min(delay, len(rows))])
    return np.concatenate([first, rows[: len(rows) - len(first)]])


class _Resuming:
    """Lets recurrent layers and cells that are called without an initial state go on from where they ended.

    A step model that calls them so forgets everything between steps, which nobody means: what is meant is
    the sequence. A call that is given a state, or a layer that runs over several steps at once, is left as
    it is, and so are second calls within a step.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kept: dict[int, Any] = {}
        self._calls: dict[int, int] = {}
        self._open: set[int] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        self._handles.append(self._module.register_forward_pre_hook(self._begins))
        for part in parts(self._module).values():
            if isinstance(part, nn.RNNBase | nn.RNNCellBase):
                self._handles.append(part.register_forward_pre_hook(self._before, with_kwargs=True))
                self._handles.append(part.register_forward_hook(self._after, with_kwargs=True))

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _begins(self, module: nn.Module, args: Any) -> None:
        self._calls.clear()

    def _before(self, part: nn.Module, args: Any, kwargs: Any) -> Any:
        self._calls[id(part)] = self._calls.get(id(part), 0) + 1
        free = len(args) < 2 and kwargs.get("hx") is None and self._calls[id(part)] == 1
        if not free or not _is_one_step(part, args[0] if args else kwargs["input"]):
            return None
        self._open.add(id(part))
        return (args, {**kwargs, "hx": self._kept[id(part)]}) if id(part) in self._kept else None

    def _after(self, part: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if id(part) in self._open:
            self._open.discard(id(part))
            self._kept[id(part)] = result[1] if isinstance(part, nn.RNNBase) else result


def _is_one_step(part: nn.Module, value: Any) -> bool:
    if isinstance(part, nn.RNNCellBase):
        return True
    time = 1 if part.batch_first and value.dim() == 3 else 0
    return isinstance(value, Tensor) and value.shape[time] == 1


def check_driven(plan: Plan) -> None:
    """Hold the plan's own steps to the module driven as its author would, for a few steps.

    Raises:
        ParityError: `reference-differs`: what the plan makes of the module is not what the module does.
    """
    try:
        found = _first_difference(plan, torch.float64)
    except (RuntimeError, TypeError, NotImplementedError, InputError):
        found = _first_difference(plan, None)  # not every module runs in float64
    if found is not None:
        raise ParityError(
            "reference-differs",
            expected=f"{refusals.location(plan.subject)}, called by itself, to give what its states give",
            found=found,
            fix=f"say which part of the result is which: {spelled('returns', ('y', 'h'))}; "
            "if that does not help, this is a fault of rnnx",
        )


def check_explained(plan: Plan) -> None:
    """Refuse a reading of the module in which a state stands still beside an output that looks like it.

    A state that forward neither returns nor changes is no memory; where a result has its shape, that is
    more likely its next value. The calls are made as an author would who reads the module so.

    Raises:
        RefusedError: `state-ambiguous`.
    """
    convention = plan.convention
    subject = convention.subject
    open_ = [
        name
        for name, (parameter, inside) in ((name, subject.place(name)) for name in subject.states)
        if inside not in convention.feedback[parameter].leaves
    ]
    if not open_:
        return
    sizes = {**plan.sizes, "time": _CHECKED_STEPS}
    inputs, driven = drawn_rows(plan, sizes, 8), DrivenReference(plan)
    before: dict[str, Any] = {name: value for name, value in driven.start(sizes).items() if name in open_}
    still = set(before)
    for _, states in driven.steps(inputs, driven.start(sizes)):
        still -= {name for name in still & set(states) if not np.array_equal(before[name], states[name])}
    for name in sorted(still):
        spec = subject.states[name]
        like = [
            o.name
            for o in convention.outputs
            if spec and (o.spec.dtype, o.spec.shape) == (spec.dtype, spec.shape)
        ]
        if like:
            raise refusals.stands_still(subject, name, like[0])


def _first_difference(plan: Plan, dtype: torch.dtype | None) -> str | None:
    sizes = {**plan.sizes, "time": _CHECKED_STEPS}
    inputs = drawn_rows(plan, sizes, 7)
    driven, stepped = DrivenReference(plan, dtype), StepReference(plan, dtype)
    start = driven.start(sizes)
    pairs = zip(driven.steps(inputs, start), stepped.steps(inputs, start), strict=True)
    for step, ((expected, _), (got, _)) in enumerate(pairs):
        for name, value in expected.items():
            close = _ROUNDING[dtype if value.dtype.itemsize > 2 else None]
            if value.shape != got[name].shape or not np.allclose(
                got[name], value, close, close, equal_nan=True
            ):
                return f"another value of {name!r} at step {step}"
    return None
