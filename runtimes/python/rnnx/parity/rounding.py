"""Errors in units of rounding: how far a runtime is from the float64 reference beside how far PyTorch is.

The float64 reference is the network in float64. A fixed tolerance has to allow what large networks need, and
lets a wrong weight of a small one pass. PyTorch's own float32 error against it is the scale that the network
itself has, at that step and in that tensor. At a single value it may be 0 by luck, so both errors are
measured as root mean squares: of each element, over the rows of the batch and a window of steps.
docs/decisions/0012-verdict-in-units-of-rounding.md has the reasons and what was measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from rnnx.model.contract import Contract, axis_index, step_shape
from rnnx.model.shapes import Array

WINDOW = 64  # steps that are judged together
LEAST = 32  # of the last window: what a few steps show may be luck
_ULP = 1 / 8  # of a float's epsilon: about what rounding one value costs
_SMALLEST = 0.5  # values below are held to the rounding of this: engines' sigmoids are exact to that of 1


@dataclasses.dataclass(frozen=True)
class Excess:
    """The element of a tensor that is furthest from the float64 reference in a window, in units of rounding.

    Attributes:
        tensor: `output.NAME` or `state.NAME`.
        begin, end: the window's first step, and the one after its last.
        ratio: its error over the unit, both root mean squares.
        step, index: where its error is largest.
        expected, got: the true value there, and the runtime's.
    """

    tensor: str
    begin: int
    end: int
    ratio: float
    step: int
    index: list[int]
    expected: float
    got: float


class Meter:
    """One route of running a runtime: measures its errors window by window.

    Args:
        contract: of the model.
    """

    def __init__(self, contract: Contract) -> None:
        self._windows: dict[str, _Window] = {}
        shapes = {f"output.{spec.name}": step_shape(spec) for spec in contract.outputs}
        shapes |= {f"state.{spec.name}": spec.shape for spec in contract.states}
        self._batch = {name: axis_index(shape, "batch") for name, shape in shapes.items()}

    def add(
        self, step: int, tensor: str, true: Array, got: Array, own: Array, rough: Sequence[Array] = ()
    ) -> Excess | None:
        """Take one value; steps come in order.

        Args:
            step: which.
            tensor: `output.NAME` or `state.NAME`; one of whole numbers is left out.
            true: in float64.
            got: the runtime's.
            own: PyTorch's in its own precision.
            rough: those of further good runs, whose errors count as PyTorch's own too.

        Returns:
            The element that is furthest off, if a window ended with this step.
        """
        if got.dtype.kind != "f":
            return None
        window = self._windows.get(tensor)
        if window is None:
            window = self._windows[tensor] = _Window(step, got, self._batch[tensor])
        window.add(step, true, got, own, rough)
        if window.end - window.begin < WINDOW:
            return None
        return self._windows.pop(tensor).excess(tensor)

    def whole(self, tensor: str, true: Array, got: Array, own: Array) -> Excess | None:
        """Return the element that is furthest off in a window of its own; the arrays are [step, ...].

        Args:
            tensor: `output.NAME` or `state.NAME`; None is returned for one of whole numbers.
            true, got, own: as `add` has them.
        """
        if got.dtype.kind != "f":
            return None
        window = _Window(0, got[0], self._batch[tensor])
        window.add_all(true, got, own)
        return window.excess(tensor)

    def rest(self) -> list[Excess]:
        """Return what the windows that have not ended show, if they are long enough."""
        left = [
            (name, window) for name, window in self._windows.items() if window.end - window.begin >= LEAST
        ]
        self._windows.clear()
        return [window.excess(name) for name, window in left]


class _Window:
    """Squared errors of every element of a tensor over some steps."""

    def __init__(self, begin: int, like: Array, batch: int | None) -> None:
        self.begin = self.end = begin
        self._count = 0  # of steps at which there was a value
        self._batch = batch
        self._epsilon = float(np.finfo(like.dtype).eps)
        shape = like.shape
        self._got, self._own, self._true = (np.zeros(shape) for _ in range(3))
        # Where the error of each element is largest: its square, the step, the true value and the runtime's.
        self._peak = np.full(shape, -1.0)
        self._at = np.zeros(shape, np.int64)
        self._values = np.zeros((2, *shape))

    def add(self, step: int, true: Array, got: Array, own: Array, rough: Sequence[Array]) -> None:
        self.end = step + 1
        self._count += 1
        true, got = np.asarray(true, np.float64), got.astype(np.float64)
        squares = _squares(got, true)
        self._got += squares
        self._own += _squares(np.asarray(own, np.float64), true)
        if rough:
            others = [_squares(np.asarray(each, np.float64), true) for each in rough]
            self._own += np.mean(others, axis=0)
        self._true += np.where(np.isfinite(true), true, 0.0) ** 2
        higher = squares > self._peak
        self._peak = np.where(higher, squares, self._peak)
        self._at = np.where(higher, step, self._at)
        self._values = np.where(higher, np.stack([true, got]), self._values)

    def add_all(self, true: Array, got: Array, own: Array) -> None:
        self.end = self.begin + len(got)
        self._count = len(got)
        true, got = np.asarray(true, np.float64), got.astype(np.float64)
        squares = _squares(got, true)
        self._got = squares.sum(0)
        self._own = _squares(np.asarray(own, np.float64), true).sum(0)
        self._true = (np.where(np.isfinite(true), true, 0.0) ** 2).sum(0)
        self._at = np.asarray(squares.argmax(0))
        self._peak, *values = (
            np.take_along_axis(each, self._at[None], 0)[0] for each in (squares, true, got)
        )
        self._values = np.stack(values)

    def excess(self, tensor: str) -> Excess:
        got, own, true = (self._rows(sums) / self._count for sums in (self._got, self._own, self._true))
        floor = (self._epsilon * _ULP) ** 2 * max(float(true.mean() if true.size else 0), _SMALLEST**2)
        # An element that PyTorch happens to get right has the scale of its tensor.
        unit = np.maximum(own, max(float(own.mean() if own.size else 0), floor))
        ratios = np.broadcast_to(np.sqrt(got / unit), self._got.shape)
        if not ratios.size:
            return Excess(tensor, self.begin, self.end, 0.0, self.begin, [], 0.0, 0.0)
        worst = ratios.max()
        place = np.unravel_index(int(np.where(ratios == worst, self._peak, -2).argmax()), ratios.shape)
        expected, found = (float(value[place]) for value in self._values)
        return Excess(
            tensor=tensor,
            begin=self.begin,
            end=self.end,
            ratio=float(worst),
            step=int(self._at[place]),
            index=[int(entry) for entry in place],
            expected=expected,
            got=found,
        )

    def _rows(self, sums: Array) -> Array:
        """Return the mean over the rows of the batch."""
        return sums if self._batch is None else sums.mean(self._batch, keepdims=True)


def _squares(values: Array, true: Array) -> Array:
    """Return squared errors; what is not finite on either side is left to the fixed tolerance."""
    with np.errstate(invalid="ignore", over="ignore"):
        squares = (values - true) ** 2
        if np.isfinite(squares).all():
            return np.asarray(squares)
        return np.asarray(np.where(np.isfinite(values) & np.isfinite(true), values - true, 0.0) ** 2)
