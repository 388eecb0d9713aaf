"""Many recorded sequences of different lengths through one pool, its rows filled again as sequences end."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from rnnx.arguments import instance, number, shown
from rnnx.errors import InputError
from rnnx.model.contract import axis_index
from rnnx.model.shapes import Array, has_steps
from rnnx.pool.input_checks import check_pooled, named
from rnnx.pool.pool import Pool
from rnnx.runtime.chunks import join_chunks, part_of
from rnnx.runtime.input_checks import check_values, match_inputs
from rnnx.session import Session

Name = TypeVar("Name", bound=Hashable)
# Sequences that may have begun, by sequences that run at a time, where results wait for those before them.
_WINDOW = 4
_NO_MORE: Any = object()


@dataclasses.dataclass
class _Running(Generic[Name]):
    """A sequence that has a row of the pool: its inputs, how far it is, and what came out so far."""

    name: Name
    stream: int
    inputs: dict[str, Array]
    steps: int
    dims: dict[str, int]
    alike: tuple[int | bytes, ...]  # free sizes and values for all rows: what runs together has the same
    done: int = 0
    parts: list[dict[str, Array]] = dataclasses.field(default_factory=list)


def run_sequences(
    session: Session,
    sequences: Iterable[tuple[Name, Any]],
    *,
    capacity: int = 64,
    chunk: int = 256,
    check: bool = True,
    in_order: bool = False,
    advanced: Callable[[int], None] | None = None,
) -> Iterator[tuple[Name, dict[str, Array]]]:
    """Run sequences of any lengths, `capacity` at a time; one that ends makes room for the next.

    Those of other free dimensions, or of another value that holds for all rows and steps, run in a batch of
    their own.

    Sequences are read as rows become free, so any number of them takes the memory of `capacity`, or of four
    times as many where results are to come in order.

    Args:
        session: the model.
        sequences: a name, for errors and results, and what `Stream.run` takes at batch 1. Free dimensions
            that a state has are the same in all of them.
        capacity: sequences that run at a time, 1 or more.
        chunk: most steps that run at a time, 1 or more.
        check: as `Session.pool`.
        in_order: whether results come in the order of the sequences, instead of when each ends. One that
            is much longer than those after it then lets rows stay empty.
        advanced: called with the number of steps that were done, over and over.

    Yields:
        The name of a sequence and its outputs, as `Stream.run` gives them at batch 1.

    Raises:
        InputError: as `Stream.run`, with the name of the sequence; or as `Session.pool`.
        StreamError: `whole-only`.
        UsageError: `chunk-invalid`.
        ModelError: `engine-failed`.
    """
    instance("session", session, Session, "what rnnx.load returns")
    instance("sequences", sequences, Iterable, "pairs of a name and inputs")
    chunk = number(chunk, "a chunk of 1 step or more", least=1, code="chunk-invalid")
    capacity = check_pooled(session.contract, capacity)
    return _Runner(session, iter(sequences), capacity, chunk, check, in_order, advanced).run()


class _Runner(Generic[Name]):
    def __init__(
        self,
        session: Session,
        source: Iterator[tuple[Name, Any]],
        capacity: int,
        chunk: int,
        check: bool,
        in_order: bool,
        advanced: Callable[[int], None] | None,
    ) -> None:
        self._session, self._contract, self._source = session, session.contract, source
        self._capacity, self._chunk, self._check = capacity, chunk, check
        self._advanced = advanced or (lambda steps: None)
        # Inputs of which one value holds for all rows and all steps.
        self._shared = [
            spec.name
            for spec in session.contract.inputs
            if axis_index(spec.shape, "batch") is None
            and spec.role is None
            and not has_steps(session.contract, spec)
        ]
        self._pool: Pool | None = None
        self._active: list[_Running[Name]] = []
        # Begun and not given out yet, as they came; stays empty where order does not matter.
        self._begun: deque[_Running[Name]] = deque()
        self._most = _WINDOW * capacity if in_order else 0

    def run(self) -> Iterator[tuple[Name, dict[str, Array]]]:
        while self._refill():
            for alike in dict.fromkeys(running.alike for running in self._active):
                self._advance([running for running in self._active if running.alike == alike])
            ended = [running for running in self._active if running.done == running.steps]
            self._active = [running for running in self._active if running.done < running.steps]
            for running in ended:
                assert self._pool is not None
                self._pool.close(running.stream)
                running.inputs.clear()
            for running in self._given_out(ended):
                yield running.name, join_chunks(self._contract, running.parts)

    def _given_out(self, ended: list[_Running[Name]]) -> Iterator[_Running[Name]]:
        """Yield those that ended; in order, those that nothing before them holds up."""
        if not self._most:
            yield from ended
        while self._begun and self._begun[0].done == self._begun[0].steps:
            yield self._begun.popleft()

    def _refill(self) -> bool:
        """Give free rows to the next sequences; return whether anything is left to run."""
        while len(self._active) < self._capacity and (not self._most or len(self._begun) < self._most):
            following = next(self._source, _NO_MORE)
            if following is _NO_MORE:
                break
            if not isinstance(following, (tuple, list)) or len(following) != 2:
                raise TypeError(f"each of sequences must be a name and inputs, not {shown(following)}")
            running = self._open(*following)
            self._active.append(running)
            if self._most:
                self._begun.append(running)
        return bool(self._active)

    def _open(self, name: Name, inputs: Any) -> _Running[Name]:
        bound = {} if self._pool is None else self._pool.dims
        try:
            arrays, dims = match_inputs(self._contract, inputs, {**bound, "batch": 1}, whole=True)
            check_values(self._contract, arrays, dims, finite=self._check)
        except InputError as error:
            raise named(error, str(name)) from None
        if self._pool is None:
            self._pool = self._make_pool(dims)
        sizes = (dims[free] for free in self._contract.free_dimensions)
        values = (arrays[shared].tobytes() if shared in arrays else b"" for shared in self._shared)
        return _Running(name, self._pool.open(), arrays, dims["time"], dims, (*sizes, *values))

    def _make_pool(self, dims: Mapping[str, int]) -> Pool:
        """Return a pool with the free dimensions of states bound as the first sequence has them."""
        bound = {
            free: dims[free]
            for free in self._contract.free_dimensions
            if any(axis_index(state.shape, free) is not None for state in self._contract.states)
        }
        return self._session.pool(capacity=self._capacity, dims=bound, check=self._check)

    def _advance(self, group: list[_Running[Name]]) -> None:
        """Run as many steps as all of `group` have left, in one batch."""
        assert self._pool is not None
        steps = min(self._chunk, *(running.steps - running.done for running in group))
        results = self._pool._run_matched(
            {
                running.stream: (
                    part_of(self._contract, running.inputs, running.done, running.done + steps),
                    {**running.dims, "time": steps},
                )
                for running in group
            }
        )
        for running in group:
            # Copies: what a pool gives are rows of one array, which would live as long as the longest.
            running.parts.append({name: value.copy() for name, value in results[running.stream].items()})
            running.done += steps
        self._advanced(steps * len(group))
