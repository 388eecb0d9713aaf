"""Each invariant fails for a runtime that breaks just that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import rnnx
from cases import onnx_models
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.parity.compare import default_levels
from rnnx.parity.invariants import check_invariants
from rnnx.runtime.stream import Stream
from support.faults_in_models import constant, spoiled

SIZES = {"batch": 2, "memory": 5}


def checks(session: Any) -> dict[str, bool | None]:
    return {each.name: each.holds for each in check_invariants(session, default_levels(session), sizes=SIZES)}


@pytest.mark.parametrize("name", onnx_models.STREAMING)
def test_good_models_behave(name: str) -> None:
    session = rnnx.load(onnx_models.STREAMING[name]())
    found = check_invariants(session, default_levels(session), sizes=SIZES)
    assert all(each.holds is not False for each in found), found
    assert {each.name for each in found} == {
        "chunkings",
        "reset",
        "batch sizes",
        "rows",
        "snapshot",
        "look-ahead",
    }


def broken(monkeypatch: pytest.MonkeyPatch, method: str, change: Any) -> dict[str, bool | None]:
    """Return the checks of an LSTM of which one method of its streams is replaced."""
    old = getattr(Stream, method)
    monkeypatch.setattr(Stream, method, lambda stream, *args, **more: change(old, stream, *args, **more))
    return checks(rnnx.load(onnx_models.lstm()))


def test_chunks_that_forget_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(old: Any, stream: Any, inputs: Any) -> Any:
        results = old(stream, inputs)
        stream.state["lstm.c"] = stream.state["lstm.c"] * np.float32(0.99)
        return results

    found = broken(monkeypatch, "run", run)
    assert found["chunkings"] is False
    assert found["rows"] is True


def test_a_reset_that_leaves_something_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(old: Any, stream: Any) -> None:
        kept = stream.state["lstm.h"]
        old(stream)
        stream.state["lstm.h"] = kept * np.float32(1e-6)

    found = broken(monkeypatch, "reset", reset)
    assert [name for name, holds in found.items() if not holds] == ["reset"]


def test_a_snapshot_that_rounds_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def restore(old: Any, stream: Any, data: bytes) -> None:
        old(stream, data)
        stream.state["lstm.c"] = stream.state["lstm.c"].astype(np.float16).astype(np.float32)

    found = broken(monkeypatch, "restore", restore)
    assert [name for name, holds in found.items() if not holds] == ["snapshot"]


def with_front(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Put nodes that turn x into `seen` before everything else."""
    rest = list(model.graph.node)
    rest[0].input[0] = "seen"
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def test_rows_that_know_each_other_are_caught() -> None:
    def spoil(model: onnx.ModelProto) -> None:
        mean = onnx.helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1)
        with_front(model, [mean, onnx.helper.make_node("Sub", ["x", "mean"], ["seen"])])

    found = checks(rnnx.load(spoiled(onnx_models.lstm(), spoil)))
    assert found["rows"] is False
    assert found["batch sizes"] is False
    assert found["chunkings"] is True


def test_looking_ahead_is_caught() -> None:
    def spoil(model: onnx.ModelProto) -> None:
        for name, value in (("one", 1), ("far", 1 << 60), ("last", -1), ("time", 1)):
            constant(model, f"k_{name}", np.array([value], np.int64))
        later = onnx.helper.make_node("Slice", ["x", "k_one", "k_far", "k_time"], ["later"])
        end = onnx.helper.make_node("Slice", ["x", "k_last", "k_far", "k_time"], ["end"])
        with_front(model, [later, end, onnx.helper.make_node("Concat", ["later", "end"], ["seen"], axis=1)])

    found = checks(rnnx.load(spoiled(onnx_models.lstm(), spoil)))
    assert found["look-ahead"] is False
    assert found["chunkings"] is False


def test_a_model_without_batch_or_time_says_what_does_not_apply() -> None:
    sessions = [rnnx.load(make()) for make in onnx_models.STREAMING.values()]
    single = next(each for each in sessions if not each.contract.has_batch)
    assert checks(single)["rows"] is None
    steps = next(each for each in sessions if not each.contract.has_time)
    assert checks(steps)["look-ahead"] is None


def test_an_error_of_the_runtime_is_a_check_that_fails(tmp_path: Path) -> None:
    session = rnnx.load(onnx_models.lstm())
    assert read_contract(read_model(onnx_models.lstm())).has_batch

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        def stream(self, *, batch: int, dims: Any) -> Any:
            if batch == 5:
                raise rnnx.InputError("no-batch", expected="4 rows at most", found="5", fix="")
            return session.stream(batch=batch, dims=dims)

    found = {each.name: each for each in check_invariants(Failing(), default_levels(session), sizes=SIZES)}  # type: ignore[arg-type]
    assert found["batch sizes"].holds is False
    assert found["batch sizes"].detail == "no-batch: 5"
    assert found["rows"].holds is True
