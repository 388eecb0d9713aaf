"""A pool: many independent streams of one session, stepped together as the rows of one batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rnnx.arguments import mapping
from rnnx.formats.snapshot import Sampling, Snapshot, decode_snapshot, encode_snapshot
from rnnx.model.shapes import Array
from rnnx.pool import chunks, input_checks
from rnnx.pool.batch import Batch, Batches
from rnnx.pool.state_table import PoolStates
from rnnx.runtime import initial_states
from rnnx.runtime.busy_lock import Guarded, exclusive

if TYPE_CHECKING:
    from rnnx.engines.protocol import Loaded

# Numbers are never used twice in a process: a stream that was closed, or is another pool's, is told apart.
_NUMBERS = itertools.count(1)


class Pool(Guarded):
    """Streams that open, step, pause and close at any time. Made by `Session.pool`; for one thread at a time.

    A stream is named by the int that `open` returns. It takes and gives what a `Stream` of batch 1 does, and
    has what it would have alone, to rounding. Whichever streams have input are stepped as one batch; the
    others pause. An exception or interrupt leaves the states of all streams as they were before the call,
    or as they are after it.

    Attributes:
        session: what it runs.
        dims: sizes of the free dimensions that were bound when it was made.
    """

    _kind = "pool"
    _turns = (
        "take turns: one thread opens, steps and closes, and the others hand it theirs, as in a queue.Queue"
    )

    def __init__(
        self,
        session: Loaded,
        *,
        capacity: int = 64,
        dims: Mapping[str, int] | None = None,
        initial: Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> None:
        super().__init__()
        self.session = session
        self.dims = mapping("dims", dims, "sizes by dimension")
        self._contract = contract = session.contract
        self._check = check
        capacity = input_checks.check_pooled(contract, capacity)
        self._sizes = initial_states.sizes(contract, 1, self.dims, capacity)
        begins = mapping("initial", initial, "starts by state")
        self._own_initial: dict[int, Mapping[str, Array]] = {}
        with initial_states.room({**self._sizes, "capacity": capacity}):
            self._initial = initial_states.starts(contract, self._sizes, begins)
            self._states = PoolStates(session.engine, contract, self._sizes, capacity)
        self._batches = Batches(contract, session.engine, self._sizes, check=check)

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        return f"<rnnx.Pool of {self.session!r}, {len(self.streams)} streams open>"

    @property
    def capacity(self) -> int:
        """How many streams there is room for; it doubles when one more is opened."""
        return self._states.capacity

    @property
    def streams(self) -> tuple[int, ...]:
        """The streams that are open."""
        return tuple(self._states.rows)

    @exclusive
    def open(self, *, initial: Mapping[str, Any] | None = None, snapshot: bytes | None = None) -> int:
        """Open a stream, at its start or where a snapshot was made.

        Args:
            initial: other starts than the pool's, by state name, in a state's shape at batch 1 (a single
                number fills it); `reset` goes back to these.
            snapshot: of a stream of this pool, of another one, or of a `Stream` of batch 1. `restore` tells
                where sampling stopped, too.

        Returns:
            The number of the stream, never used again in this process.

        Raises:
            InputError: `unknown-state`, `wrong-dtype`, `wrong-shape`, `non-finite` or `out-of-memory`.
            FileError: as `Stream.restore`.
            StreamError: `stream-busy` or `stream-closed`.
        """
        starts = self._initial | {
            name: initial_states.state_array(self._contract, name, value, self._sizes)
            for name, value in mapping("initial", initial, "starts by state").items()
        }
        states, position = starts, 0
        if snapshot is not None:
            found = self._decode(snapshot)
            states, position = dict(found.states), found.position
        stream = next(_NUMBERS)
        with initial_states.room({**self._sizes, "capacity": 2 * self.capacity}):
            self._states.add(stream, states, position)
        if initial:
            self._own_initial[stream] = starts
        return stream

    def step(self, inputs: Mapping[int, Any]) -> dict[int, dict[str, Array]]:
        """Run one time step of those streams that have input; the others pause.

        Args:
            inputs: by stream, what `Stream.step` takes at batch 1: arrays by input name, or one bare. An
                input without a batch axis holds for all rows: the streams of a step must agree on it.

        Returns:
            By stream, what `Stream.step` gives at batch 1: the outputs by name. They are yours to keep; those
            of one step are views of one array, which lives as long as any of them.

        Raises:
            InputError: for inputs that do not fit, with the stream they are of, or `streams-disagree`;
                nothing was computed for any stream.
            StreamError: `stream-busy` or `stream-closed`.
            ModelError: `engine-failed`; the states are unchanged.
        """
        try:
            del self._gate["open"]
        except KeyError:
            raise self._unusable() from None
        try:
            if type(inputs) is not dict or not inputs:
                inputs = input_checks.by_stream(inputs)
                if not inputs:
                    return {}
            streams = self._states.order(inputs)
            feeds = [inputs[stream] for stream in streams]
            batch = self._batches.step(len(feeds))
            if batch is None or not batch.fill(feeds):
                batch = self._fit(streams, feeds)
            self._states.step(streams, batch)
            return batch.results(streams)
        finally:
            self._gate["open"] = True

    @exclusive
    def run(self, inputs: Mapping[int, Any]) -> dict[int, dict[str, Array]]:
        """Run a chunk of each stream that has input. The chunks may have different lengths.

        At each step all streams whose chunk is not over yet run as one batch.

        Args:
            inputs: by stream, what `Stream.run` takes at batch 1.

        Returns:
            By stream, what `Stream.run` gives at batch 1.

        Raises:
            InputError, StreamError, ModelError: as `step`; either all chunks were run or none.
        """
        named = input_checks.by_stream(inputs)
        streams = self._states.order(named)
        self._states.require(streams)
        if not streams:
            return {}
        feeds = [named[stream] for stream in streams]
        parts = input_checks.match_streams(
            self._contract, streams, feeds, self._sizes, whole=True, finite=self._check
        )
        return chunks.run(self._contract, self._states, self._batches, streams, parts)

    @exclusive
    def _run_matched(self, matched: Mapping[int, input_checks.Matched]) -> dict[int, dict[str, Array]]:
        """Run chunks as `run` does whose inputs `joining.match_streams` has seen, alone or in longer ones.

        Raises:
            StreamError: `stream-busy` or `stream-closed`.
            InputError: `streams-disagree`.
            ModelError: `engine-failed`; the states are unchanged.
        """
        streams = self._states.order(matched)
        self._states.require(streams)
        parts = [matched[stream] for stream in streams]
        input_checks.check_joined(self._contract, streams, parts)
        return chunks.run(self._contract, self._states, self._batches, streams, parts)

    @exclusive
    def reset(self, stream: int) -> None:
        """Put a stream back to its start, and its position to 0.

        Raises:
            StreamError: `stream-closed` or `stream-busy`.
        """
        self._states.require([stream])
        self._states.put(stream, self._own_initial.get(stream, self._initial), 0)

    @exclusive
    def snapshot(self, stream: int, *, sampling: Sampling | None = None) -> bytes:
        """Return all that is needed to continue a stream elsewhere, as `Stream.snapshot` does at batch 1.

        Raises:
            StreamError: `stream-closed` or `stream-busy`.
        """
        states, position = self._states.get(stream)
        return encode_snapshot(Snapshot(self.session.id, position, states, sampling))

    @exclusive
    def restore(self, stream: int, data: bytes) -> Sampling | None:
        """Continue a stream where a snapshot was made; return where sampling stopped, if it has that.

        Raises:
            FileError: as `Stream.restore`; the states are unchanged.
            StreamError: `stream-closed` or `stream-busy`.
        """
        self._states.require([stream])
        found = self._decode(data)
        self._states.put(stream, found.states, found.position)
        return found.sampling

    @exclusive
    def position(self, stream: int) -> int:
        """Return the number of steps of a stream since it was opened or reset. Raises as `snapshot`."""
        return self._states.get(stream)[1]

    @exclusive
    def state(self, stream: int) -> dict[str, Array]:
        """Return copies of the states of a stream by name, at batch 1. Raises as `snapshot`."""
        return self._states.get(stream)[0]

    def close(self, stream: int) -> None:
        """Close a stream; its place is free for another. Closing it twice is fine.

        Raises:
            StreamError: `stream-busy`, or `stream-closed` for what never was a stream of any pool.
        """
        if not self._closed:
            self._remove(stream)

    def close_all(self) -> None:
        """Close every stream and let go of the buffers. The pool cannot be used any more; twice is fine.

        Raises:
            StreamError: `stream-busy`.
        """
        if not self._closed:
            self._let_go()

    def __enter__(self) -> Pool:
        """Return the pool itself; leaving the block closes it with all its streams."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the pool."""
        self.close_all()

    @exclusive
    def _remove(self, stream: int) -> None:
        if not isinstance(stream, int):
            self._states.require([stream])
        self._states.remove(stream)
        self._own_initial.pop(stream, None)

    @exclusive
    def _let_go(self) -> None:
        self._closed = True
        self._batches.clear()
        self._states.clear()

    def _fit(self, streams: Iterable[int], feeds: list[Any]) -> Batch:
        """Return a batch filled with these inputs: the long way, taken where the short one finds a fault."""
        self._states.require(streams)
        parts = input_checks.match_streams(
            self._contract, streams, feeds, self._sizes, whole=False, finite=self._check
        )
        dims = {**parts[0][1], "batch": len(parts)}
        batch = self._batches.get(dims, whole=False)
        if not batch.fill([arrays for arrays, _ in parts]):
            raise AssertionError("a batch refused inputs that are valid")
        return batch

    def _decode(self, data: bytes) -> Snapshot:
        return decode_snapshot(data, self._contract, model_id=self.session.id, sizes=self._sizes)
