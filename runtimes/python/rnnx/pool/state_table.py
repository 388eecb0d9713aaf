"""Where the states of a pool's streams are, so that all of them move together.

A table holds a row per stream. The streams of the latest step have their states in the batch that stepped
them instead, which reads one buffer and writes the other as long as the same streams step; only when others
do, rows move. Which of the two holds is one value, replaced in one assignment, so that an interrupt finds
every state old or every state new. What does not hold may be overwritten at any time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from rnnx.engines.protocol import Engine, StateBuffers
from rnnx.errors import StreamError
from rnnx.model.contract import Contract
from rnnx.model.shapes import Array
from rnnx.pool.batch import Batch, state_shapes


class _Table:
    """States and positions of streams, one to a row."""

    def __init__(self, engine: Engine, contract: Contract, sizes: Mapping[str, int], count: int) -> None:
        self.count = count
        self.buffers = engine.open(state_shapes(contract, {**sizes, "batch": count}), buffers=1)
        self.positions = np.zeros(count, np.int64)


class _Group:
    """Streams whose states are in buffers of their own rather than in the table."""

    def __init__(
        self, streams: tuple[int, ...], rows: Array, buffers: StateBuffers, positions: Array
    ) -> None:
        self.streams, self.rows, self.buffers, self.positions = streams, rows, buffers, positions

    def has(self, streams: Mapping[int, object]) -> bool:
        """Whether these are its streams, in any order."""
        return len(streams) == len(self.streams) and all(map(streams.__contains__, self.streams))


class PoolStates:
    """States and positions of the streams of a pool.

    Args:
        engine: that owns the buffers.
        contract: of the model.
        sizes: of the free dimensions that are bound; batch is 1.
        capacity: streams there is room for at first.

    Attributes:
        rows: the row of the table by open stream.
        capacity: streams there is room for.
    """

    def __init__(self, engine: Engine, contract: Contract, sizes: Mapping[str, int], capacity: int) -> None:
        self._engine, self._contract, self._sizes = engine, contract, sizes
        self.capacity = capacity
        self.rows: dict[int, int] = {}
        # One row is spare: what replaces a stream's states is written there, and the stream then moves.
        self._table = _Table(engine, contract, sizes, capacity + 1)
        self._free: list[int] = []  # rows that had a stream; those from `_fresh` on never had one
        self._fresh = 0
        self._one = engine.open(state_shapes(contract, {**sizes, "batch": 1}), buffers=1)
        # (streams outside the table or None, index of their current buffer, steps since they left it).
        self._now: tuple[_Group | None, int, int] = (None, 0, 0)

    def order(self, streams: Mapping[int, object]) -> tuple[int, ...]:
        """Return these streams in the order of the latest step, if it was of the same ones."""
        found, group = tuple(streams), self._now[0]
        return group.streams if group and (found == group.streams or group.has(streams)) else found

    def require(self, streams: Iterable[int]) -> None:
        """Refuse streams that are not open. Raises StreamError `stream-closed`."""
        for stream in streams:
            if not isinstance(stream, Hashable) or stream not in self.rows:
                raise StreamError(
                    "stream-closed",
                    expected="streams that are open in this pool",
                    found=f"{stream!r}, which was closed or is none of its own",
                    fix="use what pool.open() returned, until it is closed",
                )

    def step(self, streams: tuple[int, ...], batch: Batch) -> None:
        """Run a step of `batch`, whose inputs are filled, for streams in the order that `order` gave.

        Raises:
            StreamError: `stream-closed`.
            ModelError: `engine-failed`.
        """
        group, index, steps = self._now
        if group is None or group.streams is not streams or group.buffers is not batch.buffers:
            group, index, steps = self._gather(streams, batch.buffers), 0, 0
        batch.plan.run(index)
        self._now = (group, 1 - index, steps + 1)

    def set_aside(self, streams: tuple[int, ...]) -> None:
        """Keep the states of these streams in buffers of their own: their rows are then free to be written.

        What `take` and `give` do to the rows counts only when `settle` says so.
        """
        sizes = {**self._sizes, "batch": len(streams)}
        buffers = self._engine.open(state_shapes(self._contract, sizes), buffers=1)
        self._now = (self._gather(streams, buffers), 0, 0)

    def take(self, streams: Sequence[int], buffers: StateBuffers) -> None:
        """Copy the rows of these streams to buffer 0 of `buffers`."""
        buffers.gather(0, self._table.buffers, self._rows_of(streams))

    def give(self, streams: Sequence[int], buffers: StateBuffers, index: int) -> None:
        """Copy what buffer `index` holds to the rows of these streams."""
        buffers.scatter(index, self._table.buffers, self._rows_of(streams))

    def settle(self, steps: Array) -> None:
        """Let the rows of the streams that were set aside hold, so many steps [streams] further on."""
        group = self._now[0]
        assert group is not None
        self._table.positions[group.rows] = group.positions + steps
        self._now = (None, 0, 0)

    def get(self, stream: int) -> tuple[dict[str, Array], int]:
        """Return copies of the states of a stream at batch 1, and its position."""
        self.require([stream])
        self._write_back()
        row = self.rows[stream]
        self._one.gather(0, self._table.buffers, np.array([row]))
        states = {state.name: self._one.read(0, state.name) for state in self._contract.states}
        return states, int(self._table.positions[row])

    def put(self, stream: int, states: Mapping[str, Array], position: int) -> None:
        """Replace the states of a stream, all at once: written to a free row, which then becomes its own."""
        if stream in self.rows:
            self._leave(stream)
        row = self._free_row()
        for name, value in states.items():
            self._one.write(0, name, value)
        self._one.scatter(0, self._table.buffers, np.array([row]))
        self._table.positions[row] = position
        before = self.rows.get(stream)
        self.rows[stream] = row
        if before is not None:
            self._free.append(before)

    def add(self, stream: int, states: Mapping[str, Array], position: int) -> None:
        """Make room for one more stream and put it there."""
        if len(self.rows) == self.capacity:
            self._grow()
        self.put(stream, states, position)

    def remove(self, stream: int) -> None:
        """Forget a stream; one that is not there is fine."""
        if stream in self.rows:
            self._leave(stream)
            self._free.append(self.rows.pop(stream))

    def clear(self) -> None:
        """Let go of all streams and their buffers."""
        self._now = (None, 0, 0)
        self.rows.clear()
        self._table = _Table(self._engine, self._contract, self._sizes, 1)

    def _gather(self, streams: tuple[int, ...], buffers: StateBuffers) -> _Group:
        """Copy streams from the table, which holds from here on, to `buffers`."""
        self._write_back()
        self._now = (None, 0, 0)
        rows = self._rows_of(streams)
        buffers.gather(0, self._table.buffers, rows)
        return _Group(streams, rows, buffers, self._table.positions[rows])

    def _write_back(self) -> None:
        """Copy what is outside the table to its rows there; it still holds where it is."""
        group, index, steps = self._now
        if group is not None:
            group.buffers.scatter(index, self._table.buffers, group.rows)
            self._table.positions[group.rows] = group.positions + steps

    def _leave(self, stream: int) -> None:
        """Let the table hold, if this stream is outside it."""
        group = self._now[0]
        if group is not None and stream in group.streams:
            self._write_back()
            self._now = (None, 0, 0)

    def _rows_of(self, streams: Sequence[int]) -> Array:
        try:
            return np.fromiter(map(self.rows.__getitem__, streams), np.int64, len(streams))
        except KeyError:
            self.require(streams)
            raise

    def _free_row(self) -> int:
        if not self._free and self._fresh < self._table.count:
            self._fresh += 1
            return self._fresh - 1
        if not self._free:
            # An interrupt may lose a free row, never give one out twice: now they are counted again.
            used = set(self.rows.values())
            self._free = [row for row in range(self._table.count) if row not in used]
        return self._free.pop()

    def _grow(self) -> None:
        """Double the capacity. Rows keep their numbers."""
        old, count = self._table, 2 * self.capacity + 1
        new = _Table(self._engine, self._contract, self._sizes, count)
        old.buffers.scatter(0, new.buffers, np.arange(old.count))
        new.positions[: old.count] = old.positions
        self._table = new
        self.capacity = count - 1
