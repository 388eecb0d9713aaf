"""Several streams as the rows of one call: buffers for so many rows, filled row by row, and a few kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rnnx.engines.protocol import Engine, Shape
from rnnx.model.contract import Contract, axis_index, default_array, resolve, step_shape
from rnnx.model.shapes import Array, chunk_shape
from rnnx.runtime import step_loop
from rnnx.runtime.bound_call import Plan
from rnnx.runtime.input_buffers import UNREADABLE, Feed, required

_KEPT_BATCHES = 32
_KEPT_BYTES = 64 << 20
_ONE, _ARRAYS = {1}, {np.ndarray}


class RowFeed:
    """One input of a batch, filled from one array per stream.

    Args:
        feed: where it is written.
        axis: of the batch in the shape a caller uses; None for an input that all rows share.
    """

    __slots__ = ("_axis", "_feed", "default", "dtype", "name", "shape")

    def __init__(self, feed: Feed, axis: int | None) -> None:
        self._feed, self._axis = feed, axis
        self.name, self.dtype, default = feed.name, feed.dtype, feed.default
        self.shape = feed.shape
        if axis is not None:
            self.shape = (*feed.shape[:axis], 1, *feed.shape[axis + 1 :])
            # Defaults are the same in all rows.
            default = None if default is None else default[(slice(None),) * axis + (slice(1),)]
        self.default = default

    def fill(self, values: Sequence[Any]) -> bool:
        """Write one array per row. False if one of them is not as it should be, or not valid."""
        if self._axis == 0:
            try:
                # Joining them compares their other axes and dtypes itself.
                if set(map(len, values)) != _ONE:
                    return False
                if set(map(type, values)) != _ARRAYS and any(map(np.ma.is_masked, values)):
                    return False
                np.concatenate(values, 0, self._feed.target, casting="no")
            except UNREADABLE:
                return False
            return self._feed.is_valid()
        for value in values:
            if type(value) is not np.ndarray or value.shape != self.shape or value.dtype != self.dtype:
                return False
        if self._axis is not None:
            np.concatenate(values, self._axis, self._feed.target)
        elif same_bits(values):
            self._feed.target[...] = values[0]
        else:
            return False
        return self._feed.is_valid()


def same_bits(values: Sequence[Array]) -> bool:
    """Whether arrays of one dtype and shape are equal bit for bit, as NaN is to itself."""
    first = values[0]
    wanted = first.tobytes()
    return all(value is first or value.tobytes() == wanted for value in values)


class Batch:
    """Buffers for the states, inputs and outputs of some streams, one to a row.

    Args:
        contract: of the model.
        engine: that computes.
        dims: the size of every dimension; batch is the number of rows.
        whole: whether a call is a chunk; else it is one step.
        check: whether NaN and infinity in inputs are refused.

    Attributes:
        buffers: the states.
        plan: the calls.
        nbytes: what it takes, outputs of unknown size aside.
    """

    def __init__(
        self, contract: Contract, engine: Engine, dims: Mapping[str, int], *, whole: bool, check: bool
    ) -> None:
        self._contract = contract
        self.buffers = engine.open(state_shapes(contract, dims))
        self.plan = Plan(contract, self.buffers, dims, whole=whole, check=check)
        axes = [
            axis_index(chunk_shape(contract, spec) if whole else step_shape(spec), "batch")
            for spec in contract.inputs
        ]
        self._rows = tuple(RowFeed(feed, axis) for feed, axis in zip(self.plan.feeds, axes, strict=True))
        needed = required(contract.inputs)
        self._only = needed[0] if len(needed) == 1 else None
        # (output, its batch axis, the index that puts a batch of 1 back once rows are the first axis).
        self._splits: list[tuple[str, int, tuple[slice | None, ...]]] = []
        for spec in contract.outputs:
            axis = axis_index(chunk_shape(contract, spec) if whole else step_shape(spec), "batch") or 0
            self._splits.append((spec.name, axis, (slice(None),) * (axis + 1) + (None,)))
        states = sum(
            np.dtype(state.dtype).itemsize * int(np.prod(resolve(state.shape, dims)))
            for state in contract.states
        )
        self.nbytes = 2 * states + sum(feed.target.nbytes for feed in self.plan.feeds)
        self.nbytes += sum(view.nbytes for _, view in self.plan.gives)

    def fill(self, feeds: Sequence[Any]) -> bool:
        """Write the inputs of a step, one feed per row. False if anything is not as it should be."""
        for feed in feeds:
            if type(feed) is not dict:
                if self._only is None:
                    return False
                feeds = [feed if type(feed) is dict else {self._only: feed} for feed in feeds]
                break
        left = sum(map(len, feeds))
        for row in self._rows:
            name = row.name
            values = [feed.get(name) for feed in feeds]
            left -= len(values)
            if row.default is not None:
                for index, value in enumerate(values):
                    if value is None:
                        values[index] = row.default
                        left += 1
            if not row.fill(values):
                return False
        return not left

    def results(self, names: Iterable[int]) -> dict[int, dict[str, Array]]:
        """Return the outputs of the latest step by row, so named: views of one fresh array each."""
        return self._split(names, self.plan.results())

    def run_chunk(
        self, parts: Mapping[int, Mapping[str, Array]], time: int
    ) -> tuple[dict[int, dict[str, Array]], int]:
        """Run a chunk from the states of buffer 0; return its outputs by row, and where the states are.

        Args:
            parts: inputs that were checked, by row.
            time: number of steps; a step model loops over them.
        """
        arrays = self._merge(list(parts.values()), time)
        if self._contract.has_time:
            if not self.plan.fill(arrays):
                raise AssertionError("a plan refused inputs that are valid")
            self.plan.run(0)
            return self._split(parts, self.plan.results()), 1
        moving = step_loop.moving_inputs(self._contract, self.plan, arrays, time)
        results = step_loop.run_steps(self._contract, self.plan, moving, time)
        return self._split(parts, results), time % 2

    def _merge(self, parts: Sequence[Mapping[str, Array]], time: int) -> dict[str, Array]:
        """Return the inputs of all rows as arrays of the batch; an input that no row gives stays out."""
        arrays = {}
        for spec in self._contract.inputs:
            values = [part.get(spec.name) for part in parts]
            first = next((value for value in values if value is not None), None)
            if first is None:
                continue
            axis = axis_index(chunk_shape(self._contract, spec), "batch")
            if axis is None:
                arrays[spec.name] = first
                continue
            default = first  # stands for no row unless the input may be left out
            if spec.role is not None:
                default = np.full(1, time, np.int64)
            elif spec.default is not None:
                default = default_array(spec, first.shape)
            rows = [default if value is None else value for value in values]
            arrays[spec.name] = np.concatenate(rows, axis)
        return arrays

    def _split(self, names: Iterable[int], results: Mapping[str, Array]) -> dict[int, dict[str, Array]]:
        """Return the outputs of a batch by row, each with a batch of 1."""
        rows: dict[int, dict[str, Array]] = {}
        for name, axis, place in self._splits:
            column = results[name]
            if axis:
                column = np.ascontiguousarray(np.moveaxis(column, axis, 0))
            column = column[place]
            if rows:
                for row, value in zip(rows.values(), column, strict=True):
                    row[name] = value
            else:
                rows = {row: {name: value} for row, value in zip(names, column, strict=True)}
        return rows or {row: {} for row in names}


def state_shapes(contract: Contract, dims: Mapping[str, int]) -> dict[str, Shape]:
    """Return the shape of every state by name."""
    return {state.name: resolve(state.shape, dims) for state in contract.states}


class Batches:
    """The batches used of late, so that a step prepares nothing; bounded in number and in memory.

    Args:
        contract: of the model.
        engine: that computes.
        sizes: of the free dimensions that are bound.
        check: as for `Batch`.
    """

    def __init__(self, contract: Contract, engine: Engine, sizes: Mapping[str, int], *, check: bool) -> None:
        self._contract, self._engine, self._check = contract, engine, check
        free = contract.free_dimensions
        # The free sizes of a step, where they are known before its inputs are seen.
        self._bound = tuple(sizes[name] for name in free) if all(name in sizes for name in free) else None
        self._kept: OrderedDict[tuple[int, ...], Batch] = OrderedDict()

    def step(self, count: int) -> Batch | None:
        """Return the batch for a step of `count` rows; None if it takes the inputs to know its sizes."""
        if self._bound is None:
            return None
        key = (0, 1, count, *self._bound)
        found = self._kept.get(key)
        if found is None:
            sizes = dict(zip(self._contract.free_dimensions, self._bound, strict=True))
            return self.get({**sizes, "batch": count, "time": 1}, whole=False)
        self._kept.move_to_end(key)
        return found

    def get(self, dims: Mapping[str, int], *, whole: bool) -> Batch:
        """Return the batch for calls of these sizes."""
        free = (dims[name] for name in self._contract.free_dimensions)
        key = (int(whole), dims["time"], dims["batch"], *free)
        found = self._kept.get(key)
        if found is None:
            found = Batch(self._contract, self._engine, dims, whole=whole, check=self._check)
            self._kept[key] = found
            self._shrink()
        self._kept.move_to_end(key)
        return found

    def clear(self) -> None:
        """Let go of all of them."""
        self._kept.clear()

    def _shrink(self) -> None:
        """Drop those used longest ago until few are left, but never the latest."""
        while len(self._kept) > 1 and (
            len(self._kept) > _KEPT_BATCHES
            or sum(batch.nbytes for batch in self._kept.values()) > _KEPT_BYTES
        ):
            self._kept.popitem(last=False)
