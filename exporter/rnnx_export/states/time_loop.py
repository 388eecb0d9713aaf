"""A step model given a time axis: the same program in a loop, so that one file serves steps and sequences."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from rnnx.model.contract import Dimension
from rnnx_export.module.subject import Subject
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.program import Program


class TimeLoop(nn.Module):
    """Runs a step program over the time axis of its inputs; time stands right after the batch.

    Args:
        plan: of the step model.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.program = Program(plan)
        self._plan = plan

    def forward(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Return outputs stacked along time, and the final states, by name."""
        plan = self._plan
        specs = plan.subject.inputs
        states = [tensors[state.name] for state in plan.states]
        first = next(name for name, spec in specs.items() if not spec.is_length)
        rows: list[tuple[Tensor, ...]] = []
        for step in range(tensors[first].shape[_axis(specs[first].shape)]):
            arguments = [
                (tensors[name] - step).clamp(0, 1)
                if spec.is_length
                else tensors[name].select(_axis(spec.shape), step)
                for name, spec in specs.items()
            ]
            result = self.program(*arguments, *states)
            states = list(result[len(plan.outputs) :])
            rows.append(result[: len(plan.outputs)])
        outputs = {
            output.name: torch.stack([row[index] for row in rows], _axis(output.spec.shape))
            for index, output in enumerate(plan.outputs)
        }
        return outputs | {
            f"{state.name}_next": value for state, value in zip(plan.states, states, strict=True)
        }


def with_time(plan: Plan) -> Plan:
    """Return the plan of a step model's loop over time; its states and their starts stay what they are."""
    inputs: dict[str, Any] = {
        name: spec if spec.is_length else dataclasses.replace(spec, shape=_timed(spec.shape))
        for name, spec in plan.subject.inputs.items()
    }
    state: dict[str, Any] = {entry.name: entry.spec for entry in plan.states}
    looped = discover(Subject(TimeLoop(plan), inputs, state))
    starts = {entry.name: entry.initial for entry in plan.states}
    return dataclasses.replace(
        looped,
        states=[dataclasses.replace(entry, initial=starts[entry.name]) for entry in looped.states],
        notes=plan.notes,
        fallbacks=frozenset(),
        convention=plan.convention,
    )


def _axis(shape: tuple[Dimension, ...]) -> int:
    return shape.index("batch") + 1 if "batch" in shape else 0


def _timed(shape: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    axis = _axis(shape)
    return (*shape[:axis], "time", *shape[axis:])
