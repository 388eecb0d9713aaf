"""Rows of states that lie in the memory of the host."""

from __future__ import annotations

import math
from typing import Any

from rnnx.engines.ort_moving import Buffers, batch_axes
from rnnx.model.contract import Contract
from rnnx.model.shapes import Array


class HostMover:
    """Moves rows between buffers on the host."""

    def __init__(self, contract: Contract) -> None:
        self._axes = batch_axes(contract)
        self._places = {name: (slice(None),) * axis for name, axis in self._axes.items()}

    def view(self, name: str, value: Any, array: Array | None) -> Array:
        """Return [..., batch] over a contiguous state: all behind the batch axis as one element of raw bytes.

        NumPy copies such an element in one piece, twice as fast as the numbers in it.
        """
        assert array is not None
        leading = array.shape[: self._axes[name] + 1]
        return array.reshape(*leading, -1).view(f"V{array.nbytes // math.prod(leading)}")[..., 0]

    def gather(self, table: Buffers, rows: Array, buffer: Buffers) -> None:
        """Overwrite the states of `buffer` with `rows` of `table`."""
        for name, axis in self._axes.items():
            # "raise" would go through a buffer, and the rows exist.
            table[name].take(rows, axis, buffer[name], "clip")

    def scatter(self, buffer: Buffers, rows: Array, table: Buffers) -> None:
        """Write the states of `buffer` to `rows` of `table`."""
        for name, place in self._places.items():
            table[name][(*place, rows)] = buffer[name]
