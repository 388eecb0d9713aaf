"""Good files to begin with: the small models of parity_tests, with what belongs to each."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from cases import onnx_models
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.model.shapes import chunk_shape

GOLDEN = Path(__file__).resolve().parents[2] / "parity_tests" / "golden"
LARGEST = 6000  # bytes of a model: edits of a larger one mostly meet its weights


@dataclasses.dataclass(frozen=True)
class Seed:
    """A good model.

    Attributes:
        name: for reports.
        model, trace, snapshot: the bytes of each; b"" where there is no trace.
        inputs: for a chunk of two steps at batch 1, by name.
    """

    name: str
    model: bytes
    trace: bytes
    snapshot: bytes
    inputs: dict[str, np.ndarray]


@functools.cache
def seeds() -> tuple[Seed, ...]:
    """Return all of them. Snapshots are made by hand: no engine may run before a child is forked."""
    found = []
    for path in sorted(GOLDEN.glob("*.onnx")):
        if path.stat().st_size <= LARGEST:
            trace = path.with_name(f"{path.stem}.trace.safetensors")
            found.append(_seed(path.stem, path.read_bytes(), trace.read_bytes() if trace.exists() else b""))
    found += [_seed(name, make(), b"") for name, make in onnx_models.STREAMING.items()]
    assert len(found) > 20
    return tuple(found)


def _seed(name: str, data: bytes, trace: bytes) -> Seed:
    from rnnx.formats.snapshot import Snapshot, encode_snapshot
    from rnnx.model.contract_values import value_array

    model = read_model(data)
    contract = read_contract(model)
    states = {}
    for state in contract.states:
        shape = [1 if entry == "batch" else 3 if isinstance(entry, str) else entry for entry in state.shape]
        states[state.name] = np.broadcast_to(value_array(state.initial, state.dtype), shape).copy()
    snapshot = encode_snapshot(Snapshot(model.id, 2, states))
    return Seed(name, data, trace, snapshot, _inputs(contract))


def _inputs(contract: Contract) -> dict[str, np.ndarray]:
    sizes = {"batch": 1, "time": 2}
    found = {}
    for spec in contract.inputs:
        shape = []
        for entry in chunk_shape(contract, spec):
            factor, _, name = str(entry).rpartition("*")
            shape.append(entry if isinstance(entry, int) else int(factor or 1) * sizes.get(name, 3))
        found[spec.name] = np.ones(shape, spec.dtype)
    return found
