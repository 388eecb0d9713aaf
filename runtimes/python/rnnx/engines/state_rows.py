"""Rows of states as an engine's mover takes them, from one set of buffers to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rnnx.model.shapes import Array


class StateRows:
    """The part of an engine's state buffers that moves rows; what a buffer is made of is the engine's own.

    Args:
        mover: of the engine.
        count: how many buffers there are.
    """

    def __init__(self, mover: Any, count: int) -> None:
        self._mover = mover
        self._moved: list[Mapping[str, Any] | None] = [None] * count

    def gather(self, index: int, table: StateRows, rows: Array) -> None:
        """Overwrite all states of buffer `index` with those rows of `table`."""
        self._mover.gather(table.moved(0), rows, self.moved(index))

    def scatter(self, index: int, table: StateRows, rows: Array) -> None:
        """Write all states of buffer `index` to those rows of `table`."""
        self._mover.scatter(self.moved(index), rows, table.moved(0))

    def moved(self, index: int) -> Mapping[str, Any]:
        """Return buffer `index` as the mover takes it."""
        found = self._moved[index]
        if found is None:
            found = {name: self._mover.view(name, *pair) for name, pair in self._states(index)}
            self._moved[index] = found
        return found

    def _states(self, index: int) -> Iterator[tuple[str, Sequence[Any]]]:
        """Yield each state of buffer `index`: its name, the engine's value, the host's array or None."""
        raise NotImplementedError
