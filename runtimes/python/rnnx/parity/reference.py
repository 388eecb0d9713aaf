"""What a model is compared with: anything that yields outputs and states step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from rnnx.formats.trace_file import Trace
from rnnx.model.shapes import Array

States = Mapping[str, Array]
Values = Mapping[str, Array]
# By name: an array [step, ...], or anything with a length whose elements and slices are such rows, for
# inputs that are too long to keep (`lazy_inputs`); inputs without time are arrays that stand there once.
Inputs = Mapping[str, Any]


class Reference(Protocol):
    """What a model is compared with: a trace, or a PyTorch module.

    Attributes:
        name: what it is, for reports: "torch 2.15.0".
        resumes: whether it computes a single step from any states, rather than a sequence from its own start.
    """

    name: str
    resumes: bool

    def start(self, sizes: Mapping[str, int]) -> States:
        """Return the start of every state in full shape.

        Args:
            sizes: of batch and the free dimensions.
        """

    def steps(self, inputs: Inputs, states: States) -> Iterable[tuple[Values, States]]:
        """Yield outputs and next states after each step.

        Args:
            inputs: by name, [step, ...]: row t is what step t takes, and is read when step t is asked for;
                inputs without time stand there once. Optional inputs may be missing.
            states: what to begin with, in full shape.

        Yields:
            Outputs in the shape of one step, and the states after it in full shape. A reference that can
            only compute whole sequences leaves out the states, and outputs without time, save after the
            last step; it is not compared teacher-forced.
        """


class Reference64(Reference, Protocol):
    """A reference in float64, which errors are measured against."""

    def rough(self, seed: int) -> Reference:
        """Return the same network with rounding of its own, as another engine may have it."""


class TraceReference:
    """A trace as a reference: it gives what it recorded, and takes no other inputs than its own."""

    resumes = False

    def __init__(self, trace: Trace) -> None:
        self.name = trace.reference or "trace"
        self.trace = trace

    def start(self, sizes: Mapping[str, int]) -> States:
        """Return the recorded start of every state."""
        return {name: rows[0] for name, rows in self.trace.states.items()}

    def steps(self, inputs: Inputs, states: States) -> Iterable[tuple[Values, States]]:
        """Yield what was recorded."""
        for step in range(self.trace.steps):
            outputs = {name: rows[step] for name, rows in self.trace.outputs.items()}
            yield outputs, {name: rows[step + 1] for name, rows in self.trace.states.items()}
