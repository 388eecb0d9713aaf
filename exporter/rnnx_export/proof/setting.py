"""What the comparisons of a proof share: the module's plan, the file as a session, sizes and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnx.parity.lockstep import chunk_inputs
from rnnx.runtime.stream import Stream
from rnnx.session import Session
from rnnx.tolerance import Level, coarser, level_of
from rnnx_export.proof.float64_reference import ModuleReference64, open_reference64
from rnnx_export.proof.module_reference import ModuleReference, drawn_rows, stepped
from rnnx_export.states.export_plan import Plan

Arrays = dict[str, np.ndarray[Any, Any]]


class ProofError(Exception):
    """The file does not compute what the module computes; the message is one line."""


class ProofSetting:
    """A file and the module that it has to equal.

    Args:
        plan: what was found in the module.
        session: the file.
        computed: the coarsest floating dtype that it computes in; no value is more exact than that.

    Attributes:
        table: by tensor, what the table of tolerances allows.
        levels: the same, with free runs held to the bound of a step: the proof's own runs are short.
        notes: what the comparisons showed and the user should know.
    """

    def __init__(self, plan: Plan, session: Session, computed: str) -> None:
        self.plan = plan
        self.notes: list[str] = []
        self.session = session
        contract = self.contract = session.contract
        specs = [(f"output.{spec.name}", spec.dtype) for spec in contract.outputs]
        specs += [(f"state.{state.name}", state.dtype) for state in contract.states]
        self.table = {name: level_of(coarser(dtype, computed)) for name, dtype in specs}
        self.levels = {name: _strict(level) for name, level in self.table.items()}

    def sizes(self, batch: int, steps: int, seed: int) -> dict[str, int]:
        """Return a size for each dimension, other ones than the module was captured with."""
        sizes = {name: size + 2 * seed for name, size in self.plan.sizes.items()}
        return sizes | {"batch": batch, "time": min(steps, self.plan.longest or steps)}

    def inputs(self, sizes: Mapping[str, int], seed: int, *, odd: bool = False) -> Arrays:
        """Return random inputs, [step, ...] each, those without time once; or odd ones, for decisions."""
        return drawn_rows(self.plan, sizes, seed, odd=odd)

    def stepped(self, name: str) -> bool:
        """Whether each step has its own value of an input."""
        return stepped(self.plan, self.plan.subject.inputs[name])

    def stream(self, sizes: Mapping[str, int]) -> Stream:
        """Return a stream of the file."""
        dims = {name: sizes[name] for name in self.contract.free_dimensions}
        return self.session.stream(batch=sizes.get("batch", 1), dims=dims)

    def run_whole(self, inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> Mapping[str, Any]:
        """Return what the file gives for a whole sequence at once."""
        return self.stream(sizes).run(chunk_inputs(self.contract, inputs, 0, sizes["time"]))

    def reference64(
        self, kind: type[ModuleReference], sizes: Mapping[str, int], inputs: Mapping[str, Any]
    ) -> ModuleReference64 | None:
        """Return the network in float64 if it computes in float32, the precision whose rounding is told."""
        dtypes = [state.spec.dtype for state in self.plan.states]
        dtypes += [output.spec.dtype for output in self.plan.outputs]
        if any(dtype.itemsize < 4 for dtype in dtypes if dtype.is_floating_point):
            return None
        return open_reference64(kind(self.plan), inputs, sizes)

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in (*self.plan.notes, *self.notes):
            self.notes.append(text)


def _strict(level: Level) -> Level:
    """Return a level whose free runs are held to the bound of a step: the proof is short."""
    return Level(level.name, level.step, level.step, level.reason)
