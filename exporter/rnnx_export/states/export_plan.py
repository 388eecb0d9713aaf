"""The plan of an export: which tensor is an input, an output, a state; and the pure function it describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnx_export.calls.delays import Delay
from rnnx_export.calls.types import Lift
from rnnx_export.module import attributes
from rnnx_export.module.attributes import Place
from rnnx_export.module.spec import TensorSpec
from rnnx_export.module.structure import Path
from rnnx_export.module.subject import Subject
from rnnx_export.states.arguments import Feedback
from rnnx_export.states.layouts import AnyFold


@dataclasses.dataclass(frozen=True)
class Argument:
    """A leaf of a state argument: where forward leaves the next value if it changes the argument."""

    parameter: str
    inside: Path


@dataclasses.dataclass(frozen=True)
class State:
    """One state of the exported model.

    Attributes:
        name: its name in the contract.
        spec: dtype and shape; no time axis.
        initial: its start, broadcastable to the shape with every named axis of size 1.
        origin: where its next value is: a path in forward's result, the leaf of the argument that forward
            changes, the place in the module that holds it, or the key of the call that carries it.
        fold: how the module has it, where that is not as the contract does.
    """

    name: str
    spec: TensorSpec
    initial: np.ndarray[Any, Any]
    origin: Path | Argument | Place | str
    fold: AnyFold | None = None

    @property
    def is_declared(self) -> bool:
        """Whether forward takes it as an argument."""
        return isinstance(self.origin, tuple | Argument)


@dataclasses.dataclass(frozen=True)
class Output:
    """One output: its name, spec, and path in forward's result."""

    name: str
    spec: TensorSpec
    path: Path


@dataclasses.dataclass(frozen=True)
class Convention:
    """How the author of a module calls it: settled before any state is looked for.

    Attributes:
        subject: the module and its arguments.
        feedback: by state argument, what is handed back for it after a call.
        outputs: the parts of the result that are outputs.
        delay: by how many steps the model gives each of them later than forward does.
    """

    subject: Subject
    feedback: Mapping[str, Feedback]
    outputs: Sequence[Output]
    delay: int = 0

    @property
    def has_time(self) -> bool:
        """Whether a call takes a whole chunk of steps."""
        return any(spec.has("time") for spec in self.subject.inputs.values())


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything an export needs to know about a module, found by running it. What changes it makes another.

    Attributes:
        subject: the module and its arguments.
        convention: how its author calls it, which the proof drives it by.
        outputs, states: in contract order.
        lifts: calls that take their memory from states.
        whole_only: why the model cannot be stepped, or None.
        loops: a call inside a Python loop over time is lifted, so only single steps can be captured.
        notes: things that running the module showed and the user should know.
        templates: attributes that hold memory, to know their structure.
        sizes: sizes of the dimensions that work as examples.
        sides: by key, what decisions on a tensor's value are in the graph.
        both: keys of those of which the graph computes both sides, and chooses.
        longest: how many steps a sequence may have, None for any number.
        delay: how outputs come late, where forward looks ahead and is stepped all the same.
        hint: why the model may be one that cannot be stepped, for want of a better reason.
        fallbacks: kinds of calls that could be lifted too, by a fallback rule.
        step_graph: a single step as a graph of its own, where it was found by unrolling a loop.
    """

    subject: Subject
    convention: Convention
    outputs: list[Output]
    states: list[State]
    lifts: dict[str, Lift]
    whole_only: str | None
    loops: bool
    notes: Sequence[str]
    templates: attributes.Templates
    sizes: dict[str, int]
    fallbacks: frozenset[str] = frozenset()
    step_graph: nn.Module | None = None
    hint: str | None = None
    sides: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    both: tuple[str, ...] = ()
    longest: int | None = None
    delay: Delay | None = None

    @property
    def has_time(self) -> bool:
        """Whether inputs have a time axis."""
        return any(spec.has("time") for spec in self.subject.inputs.values())

    def made_whole(self, reason: str) -> Plan:
        """Return a plan that gives up stepping: no call is lifted, states are what the caller asked for."""
        states = [state for state in self.states if not isinstance(state.origin, str)]
        return dataclasses.replace(
            self, whole_only=reason, lifts={}, loops=False, step_graph=None, states=states
        )

    def without_loop_lifts(self) -> Plan:
        """Return a plan without lifts of calls in a loop: they do not return what they get next."""
        if not self.loops:
            return self
        looped = {name for lift in self.lifts.values() if lift.axis < 0 for name in lift.names}
        return dataclasses.replace(self.without_states(looped), loops=False)

    def without_lifts_ahead(self) -> Plan:
        """Return a plan for whole calls: calls that look ahead run as they are."""
        ahead = {name for lift in self.lifts.values() if lift.ahead is not None for name in lift.names}
        lifts = {key: lift for key, lift in self.lifts.items() if lift.ahead is None}
        return dataclasses.replace(self.without_states(ahead), lifts=lifts)

    def without_states(self, names: Collection[str]) -> Plan:
        """Return a plan without states that nothing depends on; their calls run as they are."""
        states = [state for state in self.states if state.name not in names]
        kept = {state.name for state in states}
        lifts = {
            key: lift
            for key, lift in self.lifts.items()
            if not lift.names or any(name in kept for name in lift.names)
        }
        return dataclasses.replace(self, states=states, lifts=lifts)

    def start(self, dims: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the initial states as tensors of full shape."""
        return {
            state.name: torch.from_numpy(
                np.array(np.broadcast_to(state.initial, state.spec.sizes(dims)), order="C")
            ).to(state.spec.dtype)
            for state in self.states
        }
