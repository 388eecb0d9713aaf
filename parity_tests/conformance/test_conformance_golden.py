"""The golden files are whole, cover what they should, and come out of scripts/golden with the same values."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from conftest import REPOSITORY
from rnnx.formats.safetensors_file import decode_tensors
from rnnx.formats.trace_file import read_trace
from rnnx.model.contract import Contract, StateSpec, axis_index
from rnnx.model.onnx_file import read_contract, read_model
from support.replay_programs import GOLDEN, MODELS

CONTRACTS = {model: read_contract(read_model(GOLDEN / f"{model}.onnx")) for model in MODELS}
LARGEST = 1_000_000  # bytes of all golden files together


def any_state(holds: Callable[[StateSpec], bool]) -> Callable[[Contract], bool]:
    return lambda contract: any(holds(state) for state in contract.states)


# By what must be covered: how a contract shows it.
KINDS: dict[str, Callable[[Contract], bool]] = {
    "two layers": any_state(lambda state: state.shape[:1] == [2]),
    "a learned start": any_state(lambda state: isinstance(state.initial, list)),
    "a start at minus infinity": any_state(lambda state: state.initial == "-inf"),
    "two states": lambda contract: len(contract.states) == 2,
    "a nested state": any_state(lambda state: state.name.count(".") >= 2),
    "step-only": lambda contract: not contract.has_time,
    "no batch": lambda contract: not contract.has_batch,
    "an integer input": lambda contract: any(spec.dtype == "int64" for spec in contract.inputs),
    "several inputs and outputs": lambda contract: len(contract.inputs) > 2 and len(contract.outputs) > 2,
    "an output without time": lambda contract: (
        contract.has_time and any(axis_index(spec.shape, "time") is None for spec in contract.outputs)
    ),
    "a range of ids": lambda contract: any(
        spec.range and spec.dtype == "int64" and contract.vocabulary is None for spec in contract.inputs
    ),
    "a range with negatives": lambda contract: any(
        spec.range and spec.range[0] < 0 for spec in contract.inputs
    ),
    "a range of floats": lambda contract: any(
        spec.range and spec.dtype == "float32" for spec in contract.inputs
    ),
    "a default": lambda contract: any(spec.default is not None for spec in contract.inputs),
    "a length": lambda contract: any(spec.role == "length" for spec in contract.inputs),
    "a length of a step model": lambda contract: (
        not contract.has_time and any(spec.role == "length" for spec in contract.inputs)
    ),
    "time last": lambda contract: any(spec.shape[-1:] == ["time"] for spec in contract.inputs),
    "hops of 160": lambda contract: any("160*time" in spec.shape for spec in contract.inputs),
    "a free dimension of a state": any_state(lambda state: "memory" in state.shape),
    "a free dimension of inputs alone": lambda contract: (
        contract.free_dimensions == ["memory"] and "memory" not in contract.states[0].shape
    ),
    "float16": any_state(lambda state: state.dtype == "float16"),
    "float64": any_state(lambda state: state.dtype == "float64"),
    "int64 states": any_state(lambda state: state.dtype == "int64"),
    "int32 states": any_state(lambda state: state.dtype == "int32"),
    "bool states": any_state(lambda state: state.dtype == "bool"),
    "a state shared by all rows": lambda contract: (
        contract.has_batch and any(axis_index(state.shape, "batch") is None for state in contract.states)
    ),
    "whole-only": lambda contract: contract.whole_only is not None,
    "a vocabulary beyond the basic plane": lambda contract: (
        contract.vocabulary is not None
        and any(ord(symbol) > 0xFFFF for symbol in contract.vocabulary.symbols)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_among_them(kind: str) -> None:
    assert [model for model, contract in CONTRACTS.items() if KINDS[kind](contract)]


def test_every_cell_is_among_them() -> None:
    models = {model: onnx.load(GOLDEN / f"{model}.onnx") for model in MODELS}
    operators = {node.op_type for model in models.values() for node in model.graph.node}
    assert {"RNN", "LSTM", "GRU", "Scan"} <= operators
    # The oldest runtime they are run with is the one of Java, 1.29.
    assert max(model.ir_version for model in models.values()) <= 10
    assert max(model.opset_import[0].version for model in models.values()) <= 21


def test_they_are_whole_and_small() -> None:
    assert len(MODELS) >= 15
    for model in MODELS:
        trace = read_trace(
            GOLDEN / f"{model}.trace.safetensors", CONTRACTS[model], model_id=CONTRACTS[model].id
        )
        assert trace.steps == 12
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST
    assert all(path.stat().st_size for path in files)


def test_the_script_makes_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    made = importlib.import_module("golden")
    monkeypatch.setattr(sys, "argv", ["golden", "--folder", str(tmp_path)])
    made.main()
    names = sorted(path.relative_to(GOLDEN) for path in GOLDEN.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for name in names:
        if name.suffix == ".safetensors" and name.stem != "short":  # which is none, on purpose
            assert_same_tensors(GOLDEN / name, tmp_path / name)
        elif name.suffix == ".json":
            assert without_ids(GOLDEN / name) == without_ids(tmp_path / name), name
        elif name.parent == Path():
            assert_same_model(GOLDEN / name, tmp_path / name)


def without_ids(path: Path) -> object:
    """Return JSON without the ids of models, which change with the version of PyTorch."""
    found = json.loads(path.read_text(encoding="utf-8"))
    for entry in found:
        if "sha256:" in (entry.get("text") or ""):
            entry["text"] = [word for word in entry["text"].split() if not word.startswith("sha256:")]
    return found


def assert_same_tensors(one: Path, other: Path) -> None:
    (left, _), (right, _) = (decode_tensors(path.read_bytes(), what="a golden") for path in (one, other))
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype
        np.testing.assert_allclose(right[name], value, rtol=1e-4, atol=1e-4, err_msg=f"{one.name} {name}")


def assert_same_model(one: Path, other: Path) -> None:
    left, right = (read_contract(read_model(path)) for path in (one, other))
    for field in ("inputs", "outputs", "states", "vocabulary", "whole_only", "steps_per_second"):
        assert getattr(left, field) == getattr(right, field), one.name
    weights = [
        sorted((numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer), key=in_order)
        for path in (one, other)
    ]
    assert len(weights[0]) == len(weights[1])
    for value, again in zip(*weights, strict=True):
        np.testing.assert_allclose(again, value, rtol=1e-6, atol=1e-6, err_msg=one.name)


def in_order(value: np.ndarray) -> tuple[object, ...]:  # type: ignore[type-arg]
    return value.shape, str(value.dtype), value.reshape(-1).tolist()
