"""Whether a module can be stepped at all: its own answer, found by running it.

Run whole, and run step by step with the states of the plan, a module must give the same. Where it does
not, the reason is looked for: does it look ahead, and how far; or does it use its past in a way that no
state of fixed size carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rnnx.errors import RnnxError
from rnnx.model.contract import axis_index
from rnnx_export.diagnostics import Because, Reason, quiet, user_error
from rnnx_export.module.spec import TensorSpec, time_axis
from rnnx_export.module.structure import flatten
from rnnx_export.module.subject import Subject, precision
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.first_ahead import first_call_ahead
from rnnx_export.states.program import step_program

UNCARRIED = Because(
    "uses earlier steps of a call in a way that no state of fixed size carries", Reason.UNCARRIED
)

# A few values of the runs that look for what seldom happens are that many times larger than normal ones.
_FAR, _FAR_SHARE = 16.0, 0.05
# In float64 what is left is the rounding of constant starts, which the file holds in float32.
_CLOSE = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float32: 1e-3, torch.float64: 1e-6}


def why_not_stepped(plan: Plan) -> str | None:
    """Return why the module cannot be stepped, None if it can."""
    if not plan.has_time:
        return None
    with quiet():
        found = look_ahead(plan)
        if found is not None:
            return _ahead(plan, found)
        try:
            agree = _steps_agree(plan, *draw(plan, 5))
        except RnnxError:
            raise
        except Exception as error:  # the user's own code may refuse a single step in any way
            said = user_error(error, "does not run on a single step: ")
            return Because(said, said.reason or Reason.SINGLE_STEP)
        usual, rare = draw(plan, 5), _rare(plan, *draw(plan, 6))
        return (
            None
            if agree and _steps_agree_exactly(plan, *usual) and _steps_agree_exactly(plan, *rare)
            else UNCARRIED
        )


def _rare(
    plan: Plan, inputs: dict[str, Tensor], states: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return inputs with a few values far from the ordinary, such as trip a hold state."""
    generator = torch.Generator().manual_seed(0)
    for name, value in inputs.items():
        if value.dtype.is_floating_point and plan.subject.inputs[name].low is None:
            far = torch.rand(value.shape, generator=generator) < _FAR_SHARE
            inputs[name] = torch.where(far, value * _FAR, value)
    return inputs, states


def draw(
    plan: Plan, seed: int, sizes: Mapping[str, int] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return random inputs, and declared states at their start, at the example sizes."""
    generator = torch.Generator().manual_seed(seed)
    dims = dict(sizes or plan.sizes)
    inputs = {name: spec.random(dims, generator) for name, spec in plan.subject.inputs.items()}
    for name, spec in plan.subject.inputs.items():
        if spec.is_length:
            inputs[name] = torch.full_like(inputs[name], dims["time"])
    return inputs, plan.start(dims)


def call_fresh(
    plan: Plan, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> list[Tensor]:
    """Return the outputs of a fresh module called once, in its own precision or in `dtype`."""
    subject = plan.subject
    declared = {name: states[name].clone() for name in subject.states}
    leaves = dict(flatten(subject.call(subject.fresh(dtype), dict(inputs), declared)))
    steps = plan.convention.delay
    return [late_by(leaves[output.path], output.spec, steps) for output in plan.outputs]


def late_by(value: Tensor, spec: TensorSpec, steps: int) -> Tensor:
    """Return an output of a whole call, later by some steps: zeros in front, and without its last steps."""
    axis = axis_index(spec.shape, "time")
    if axis is None or not steps:
        return value
    frames = steps * spec.axes()[axis].factor
    size = value.shape[axis]
    front = torch.zeros_like(value).narrow(axis, 0, min(frames, size))
    return torch.cat([front, value.narrow(axis, 0, max(size - frames, 0))], axis)


class Ahead(NamedTuple):
    """An output that depends on an input's step before that step: by how many, which output, which step."""

    steps: int
    output: str
    step: int


def look_ahead(plan: Plan) -> Ahead | None:
    """Return what looks ahead the furthest, None if nothing does."""
    inputs, states = draw(plan, 3)
    before = call_fresh(plan, inputs, states)
    steps = plan.sizes["time"]
    furthest: Ahead | None = None
    for step in range(1, steps):
        after = call_fresh(plan, _disturbed(plan, inputs, step), states)
        for output, old, new in zip(plan.outputs, before, after, strict=True):
            first = _first_change(old, new, output.spec, steps)
            if first is not None and first < step - (furthest.steps if furthest else 0):
                furthest = Ahead(step - first, output.name, step)
    return furthest


def _ahead(plan: Plan, found: Ahead) -> str:
    """Return how far the module looks ahead, at which call, and in which output it shows."""
    inputs, states = draw(plan, 3)
    steps = plan.sizes["time"]
    runs = {False: inputs, True: _disturbed(plan, inputs, found.step)}
    call = first_call_ahead(lambda changed: call_fresh(plan, runs[changed], states), found.step, steps)
    where = f"{call}, seen in {found.output!r}" if call else f"seen in {found.output!r}"
    if found.steps == steps - 1:
        return f"needs the whole sequence: its first step depends on the last: {where}"
    return f"looks {found.steps} step{'s' if found.steps > 1 else ''} ahead: {where}"


def _disturbed(plan: Plan, inputs: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
    """Return inputs that have other values at one step."""
    return {
        name: _disturb(value, plan.subject.inputs[name], step, plan.sizes["time"])
        for name, value in inputs.items()
    }


def _disturb(value: Tensor, spec: TensorSpec, step: int, steps: int) -> Tensor:
    """Return `value` with other finite values at one step."""
    axis = axis_index(spec.shape, "time")
    if axis is None:
        return value
    width = value.shape[axis] // steps
    new = value.clone()
    part = new.narrow(axis, step * width, width)
    if value.dtype == torch.bool:
        part.logical_not_()
    elif value.dtype.is_floating_point and spec.low is None:
        part.add_(1.5)
    else:  # mirrored, so that they stay in the range
        part.copy_(value.min() + value.max() - part)
    return new


def _first_change(old: Tensor, new: Tensor, spec: TensorSpec, steps: int) -> int | None:
    axis = axis_index(spec.shape, "time")
    if axis is None or old.shape != new.shape:
        return None
    different = (
        (old != new) & ~(torch.isnan(old) & torch.isnan(new)) if old.is_floating_point() else old != new
    )
    where = different.movedim(axis, 0).flatten(1).any(1).nonzero() if old.dim() > 1 else different.nonzero()
    return int(where[0]) // (old.shape[axis] // steps) if len(where) else None


def ends_agree(plan: Plan) -> bool:
    """Whether stepping rows of unequal lengths ends with what the module says of them after a whole call.

    It must where a whole call is made of steps: calls in a Python loop may not be given what they returned.
    """
    lengths = [name for name, spec in plan.subject.inputs.items() if spec.is_length]
    if not lengths or all(output.spec.has("time") for output in plan.outputs):
        return True
    inputs, states = draw(plan, 5)
    steps = plan.sizes["time"]
    for name in lengths:
        inputs[name] = 1 + torch.arange(inputs[name].numel()).reshape(inputs[name].shape) % steps
    with quiet():
        return _steps_agree(plan, inputs, states, ends=True)


def _steps_agree_exactly(plan: Plan, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> bool:
    """Whether they agree in float64 too, where a state that says little cannot pass for rounding."""
    doubles = [{name: _double(value) for name, value in named.items()} for named in (inputs, states)]
    try:
        with precision(torch.float64):
            return _steps_agree(plan, doubles[0], doubles[1], dtype=torch.float64)
    except Exception:  # not every module runs in float64, and it may say so in any way
        return True


def _double(value: Tensor) -> Tensor:
    return value.double() if value.dtype.is_floating_point else value


def _steps_agree(
    plan: Plan,
    inputs: Mapping[str, Tensor],
    states: Mapping[str, Tensor],
    *,
    ends: bool = False,
    dtype: torch.dtype | None = None,
) -> bool:
    """Whether a whole call and steps give the same outputs; with `ends`, only those without time count."""
    whole = call_fresh(plan, inputs, states, dtype)
    rows = stepped_rows(plan, inputs, states, plan.sizes["time"], dtype)
    for index, output in enumerate(plan.outputs):
        if ends and output.spec.has("time"):
            continue
        got = join_steps([row[index] for row in rows], output.spec)
        expected = whole[index]
        if got.shape != expected.shape:
            return False
        close = _CLOSE.get(expected.dtype, 0.0)
        if not torch.allclose(got.double(), expected.double(), rtol=close, atol=close, equal_nan=True):
            return False
    return True


def stepped_rows(
    plan: Plan,
    inputs: Mapping[str, Tensor],
    states: Mapping[str, Tensor],
    steps: int,
    dtype: torch.dtype | None = None,
    *,
    ends: int | None = None,
) -> list[list[Tensor]]:
    """Return the outputs of each step of a stream; at step `ends` it is told that its sequence is over."""
    program = step_program(plan, dtype)
    rows: list[list[Tensor]] = []
    carried = dict(states)
    for step in range(steps):
        if step == ends and plan.delay is not None and plan.delay.ended is not None:
            carried[plan.delay.ended] = torch.ones_like(carried[plan.delay.ended])
        arguments = [_step_of(value, plan.subject, name, step, steps) for name, value in inputs.items()]
        result = program(*arguments, *carried.values())
        rows.append([*result[: len(plan.outputs)]])
        carried = dict(zip(carried, result[len(plan.outputs) :], strict=True))
    return rows


def _step_of(value: Tensor, subject: Subject, name: str, step: int, steps: int) -> Tensor:
    spec = subject.inputs[name]
    if spec.is_length:
        return (value - step).clamp(0, 1)
    axis = axis_index(spec.shape, "time")
    if axis is None:
        return value
    width = value.shape[axis] // steps
    part = value.narrow(axis, step * width, width)
    return part.squeeze(axis) if time_axis(spec.shape) is not None else part


def join_steps(rows: list[Tensor], spec: TensorSpec) -> Tensor:
    """Return single steps as one chunk: stacked along `time`, joined along `N*time`, or the last one."""
    axis = time_axis(spec.shape)
    if axis is not None:
        return torch.stack(rows, axis)
    joined = axis_index(spec.shape, "time")
    return rows[-1] if joined is None else torch.cat(rows, joined)
