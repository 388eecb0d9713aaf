"""Drift: how an error grows over free-running states.

The float64 reference is the same network in float64. An error against it says little by itself; in units of
the error that PyTorch's own float32 makes against it (`rnnx.parity.rounding`), it does: 1 is as good as
PyTorch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

# How many times PyTorch's largest error of a run one error may be that leaves the tolerance: single errors
# scatter more than the root mean squares that `rnnx.parity.rounding` judges. See docs/tolerances.md.
WORSE = 30.0
_POINTS = 256
_FLAT = 1e-9


class Curve:
    """The largest errors over the steps, in at most 256 stretches of equal length: memory stays bounded."""

    def __init__(self, width: int = 1) -> None:
        self.width = width  # steps in a stretch
        self.largest: list[float] = []
        self.maximum = 0.0

    def add(self, step: int, error: float) -> None:
        """Take the error of `step`; steps come in order."""
        place = step // self.width
        if place >= _POINTS:
            self.largest = [max(self.largest[i : i + 2]) for i in range(0, len(self.largest), 2)]
            self.width *= 2
            place = step // self.width
        self.largest += [0.0] * (place + 1 - len(self.largest))
        self.largest[place] = max(self.largest[place], error)
        self.maximum = max(self.maximum, error)

    def points(self) -> list[tuple[int, float]]:
        """Return (first step, largest error) of every stretch."""
        return [(index * self.width, error) for index, error in enumerate(self.largest)]

    def growth(self) -> float:
        """Return by how many powers of e the error grows a step, 0 where it does not grow.

        A straight line through the logarithms (least squares), from the first error that is not 0 up to
        a tenth of the largest: past that, an error that grew has reached the size of the values.
        """
        rows = [(step, error) for step, error in self.points() if 0 < error < math.inf]
        if len(rows) < 4:
            return 0.0
        top = max(error for _, error in rows)
        end = next((i for i, (_, error) in enumerate(rows) if error >= top / 10), len(rows))
        # A curve that begins within a tenth of its top never grew: all of it is the line.
        part = rows[:end] if end >= 4 else rows
        steps = np.array([step for step, _ in part], np.float64)
        logs = np.log([error for _, error in part])
        steps -= steps.mean()
        slope = float((steps * (logs - logs.mean())).sum() / max((steps * steps).sum(), _FLAT))
        # Less than a factor of e over all steps is the scatter of rounding.
        return slope if slope * (rows[-1][0] - rows[0][0]) > 1 and end >= 4 else 0.0


@dataclasses.dataclass(frozen=True)
class Drift:
    """How far one tensor of a runtime drifted.

    Attributes:
        curve: (first step, largest error) of stretches of steps, relative to 1 + |true value|.
        reference: the same for the reference's own error, empty without a float64 reference.
        largest: of all errors.
        ratio: the largest of `ratios`; None where there is none.
        ratios: (first step, error in units of the reference's own) of stretches of steps, the largest of
            teacher-forced, free-running and chunks: what `parity.rounding` measures, up to the step at which
            the reference is lost.
        growth_per_step: powers of e by which the error grows a step, 0 for an error that stays.
        bound: the tolerance.
        left: the step at which the error leaves the tolerance, None if it never does.
        reference_left: the same for the reference: trajectories are comparable until then.
    """

    curve: list[tuple[int, float]]
    reference: list[tuple[int, float]]
    largest: float
    ratio: float | None
    ratios: list[tuple[int, float]]
    growth_per_step: float
    bound: float
    left: int | None
    reference_left: int | None


class Track:
    """The errors of every tensor of one free-running comparison against the float64 reference."""

    def __init__(self, bounds: Mapping[str, float]) -> None:
        self.curves: dict[str, Curve] = {}
        self.left: dict[str, int] = {}
        self.bounds = bounds

    def add(self, step: int, tensor: str, error: float) -> None:
        """Take the error of `tensor` at `step`."""
        self.curves.setdefault(tensor, Curve()).add(step, error)
        if error > self.bounds[tensor]:
            self.left.setdefault(tensor, step)

    @property
    def maximum(self) -> float:
        """The largest error of any tensor so far."""
        return max((curve.maximum for curve in self.curves.values()), default=0.0)

    def against(self, reference: Track | None, ratios: Mapping[str, Curve]) -> dict[str, Drift]:
        """Return the drift of each tensor.

        Args:
            reference: the reference's own errors against the one in float64.
            ratios: by tensor, the errors in units of rounding.
        """
        found = {}
        for tensor, curve in self.curves.items():
            own = reference.curves.get(tensor) if reference else None
            ratio = ratios.get(tensor)
            found[tensor] = Drift(
                curve=curve.points(),
                reference=own.points() if own else [],
                largest=curve.maximum,
                ratio=ratio.maximum if ratio else None,
                ratios=ratio.points() if ratio else [],
                growth_per_step=curve.growth(),
                bound=self.bounds[tensor],
                left=self.left.get(tensor),
                reference_left=reference.left.get(tensor) if reference else None,
            )
        return found
