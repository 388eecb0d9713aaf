"""What an export would take for inputs, states and outputs, and what they could be; nothing is proved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rnnx.errors import RnnxError
from rnnx.model.contract import describe
from rnnx_export.api import check_trees, only_refusals, planned, undisturbed
from rnnx_export.diagnostics import quiet
from rnnx_export.module.attributes import Place
from rnnx_export.module.spec import TensorSpec, boundary_dtype
from rnnx_export.module.structure import Path, tensors
from rnnx_export.module.subject import Subject
from rnnx_export.states.arguments import result_names
from rnnx_export.states.discover import explored
from rnnx_export.states.export_plan import Argument, Plan, State
from rnnx_export.states.observations import Exploration
from rnnx_export.states.outputs import returned


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor that goes in, comes out or is carried.

    Attributes:
        name: as the contract would have it, or where it lies.
        spec: dtype and shape: `float32[batch, 8]`.
        place: where it lies, and what else it could be.
    """

    name: str
    spec: str
    place: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What was found in a module, and how to say it otherwise.

    Attributes:
        inputs, states, outputs: what they would be; states and outputs are empty where `refusal` says why.
        result: the parts of what the method returns, each with what it could be.
        notes: what the user should know; a reason why the model takes whole sequences only is one.
        refusal: why it cannot be exported as it stands, or None.
    """

    inputs: list[Part]
    states: list[Part]
    outputs: list[Part]
    result: list[Part]
    notes: list[str]
    refusal: RnnxError | None


def explain(
    module: nn.Module,
    *,
    inputs: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    returns: Any = None,
    method: str = "forward",
    constants: Mapping[str, Any] | None = None,
    time: bool = False,
    longest: int | None = None,
    delay: int | str | None = None,
) -> Explanation:
    """Return what `rnnx.export` would take for what, without capturing, proving or writing anything.

    Args:
        module, inputs, state, returns, method, constants, time, longest, delay: as `rnnx.export` takes them.

    Raises:
        UsageError: the arguments make no sense.
        RefusedError: the module does not run.
        TypeError: one is of another kind than it should be.
    """
    check_trees(inputs, state, constants)
    with undisturbed(), only_refusals(module, method):
        subject = Subject(module, inputs, state, method, constants)
        with quiet():
            seen = explored(subject)
        plan, refusal = None, None
        try:
            again = Subject(module, inputs, state, method, constants)
            plan = planned(again, returns, time=time, longest=longest, delay=delay)
        except RnnxError as error:
            refusal = error
    return Explanation(
        inputs=[Part(name, _text(spec), f"parameter {name}") for name, spec in subject.inputs.items()],
        states=[] if plan is None else [_state(each) for each in plan.states],
        outputs=[] if plan is None else [Part(o.name, _text(o.spec), _shown(o.path)) for o in plan.outputs],
        result=_result(seen, plan, returns),
        notes=[] if plan is None else [*plan.notes, *_whole_only(plan)],
        refusal=refusal,
    )


def _whole_only(plan: Plan) -> list[str]:
    return [] if plan.whole_only is None else [f"it takes whole sequences only: {plan.whole_only}"]


def _state(state: State) -> Part:
    origin = state.origin
    if isinstance(origin, Argument):
        place = f"argument {'.'.join((origin.parameter, *origin.inside))}, which forward changes"
    elif isinstance(origin, tuple):
        place = f"an argument; its next value is {_shown(origin)}"
    elif isinstance(origin, Place):
        place = f"{origin.name} of the module, which forward changes"
    elif origin.startswith("delay:"):
        place = "kept for outputs that come late"
    else:
        place = "hidden in a call of the module"
    return Part(state.name, _text(state.spec), place)


def _result(seen: Exploration, plan: Plan | None, returns: Any) -> list[Part]:
    """Return the tensors of the result: what each is, and which states it could be the next value of."""
    subject = seen.subject
    names = result_names(
        seen.base.first.result, returns, getattr(type(subject.original), subject.method, None)
    )
    parts = []
    for path, leaf in tensors(seen.base.first.result):
        shape = seen.shape(returned(path))
        spec = f"{leaf.dtype}: {shape}" if isinstance(shape, str) else _text(TensorSpec(leaf.dtype, shape))
        parts.append(Part(_shown(path), spec, _what(seen, plan, path, leaf, names.get(path))))
    return parts


def _what(seen: Exploration, plan: Plan | None, path: Path, leaf: Tensor, called: str | None) -> str:
    alike = [
        name
        for name, value in seen.base.passed.items()
        if value is not None and (value.shape, value.dtype) == (leaf.shape, leaf.dtype)
    ]
    said = [f"called {called!r}"] if called else []
    if plan is not None:
        known = [f"output {output.name!r}" for output in plan.outputs if output.path == path]
        known += [f"next value of state {state.name!r}" for state in plan.states if state.origin == path]
        said += known or ["no output of a step: a hidden state, or lengths"]
    if alike:
        said.append(f"of the shape of {', '.join(alike)}")
    return "; ".join(said)


def _text(spec: TensorSpec) -> str:
    return describe(boundary_dtype(spec.dtype), spec.shape)


def _shown(path: Path) -> str:
    return f"result{''.join(f'[{part}]' for part in path)}"
