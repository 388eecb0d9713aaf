"""Chunks of different lengths, run together: all streams whose chunk is not over are one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnnx.model.contract import Contract
from rnnx.model.shapes import Array
from rnnx.pool.batch import Batches
from rnnx.pool.input_checks import Matched
from rnnx.pool.state_table import PoolStates
from rnnx.runtime.chunks import join_chunks, part_of


def run(
    contract: Contract,
    states: PoolStates,
    batches: Batches,
    streams: tuple[int, ...],
    inputs: Sequence[Matched],
) -> dict[int, dict[str, Array]]:
    """Run a chunk of each stream; either all of them move on or none.

    Args:
        contract: of the model.
        states: of all streams.
        batches: that compute.
        streams: that have a chunk.
        inputs: the chunk of each, checked.

    Returns:
        The outputs by stream.
    """
    times = np.array([dims["time"] for _, dims in inputs], np.int64)
    states.set_aside(streams)
    parts: list[list[dict[str, Array]]] = [[] for _ in streams]
    begin = 0
    for end in sorted(set(times.tolist())):
        rows = np.flatnonzero(times >= end).tolist()
        chunks = {
            row: inputs[row][0]
            if end - begin == times[row]
            else part_of(contract, inputs[row][0], begin, end)
            for row in rows
        }
        dims = {**inputs[0][1], "batch": len(rows), "time": end - begin if contract.has_time else 1}
        batch = batches.get(dims, whole=contract.has_time)
        running = [streams[row] for row in rows]
        states.take(running, batch.buffers)
        results, index = batch.run_chunk(chunks, end - begin)
        states.give(running, batch.buffers, index)
        for row, result in results.items():
            parts[row].append(result)
        begin = end
    states.settle(times)
    return {
        stream: join_chunks(contract, chunk) if len(chunk) > 1 else chunk[0]
        for stream, chunk in zip(streams, parts, strict=True)
    }
