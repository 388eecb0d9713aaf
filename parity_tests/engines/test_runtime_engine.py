"""Loading: providers, options, files; nothing falls back silently and nothing is printed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
import onnxruntime
import pytest

import rnnx
from cases import onnx_models
from cases.leak import leak_contract, leak_graph
from rnnx.engines import ort_engine, registry
from rnnx.errors import ModelError, ProviderError, RnnxError, UsageError
from rnnx.model.onnx_file import model_id, read_contract, read_model, write_contract


def code_of(call: Callable[[], object], kind: type[RnnxError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.exit_code == 2
    assert caught.value.expected
    assert caught.value.fix
    return caught.value.code


def test_load_takes_paths_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "lstm.onnx"
    path.write_bytes(onnx_models.lstm())
    for source in (path, str(path), path.read_bytes()):
        session = rnnx.load(source)
        assert session.provider == "cpu"
        assert session.id == session.contract.id
        assert session.path == (path if not isinstance(source, bytes) else None)
        assert "lstm" in repr(session)


def test_weights_beside_the_file_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = onnx_models.lstm()
    model = onnx.load_model_from_string(data)
    path = tmp_path / "big.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="big.data", size_threshold=100)
    contract = read_contract(read_model(path))
    path.write_bytes(write_contract(path.read_bytes(), contract))
    monkeypatch.chdir("/")
    frame = np.ones((1, 3), "f4")
    session = rnnx.load(path)
    assert (session.stream().step(frame)["y"] == rnnx.load(data).stream().step(frame)["y"]).all()
    assert session.id == model_id(path.read_bytes(), tmp_path) != session.contract.id
    assert code_of(lambda: rnnx.load(path.read_bytes()), ModelError) == "external-data-missing"
    (tmp_path / "big.data").unlink()
    assert code_of(lambda: rnnx.load(path), ModelError) == "external-data-missing"


def test_weights_beside_the_file_count_inside_a_scan_too(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(leak_graph())
    scan = model.graph.node[0]
    body = next(attribute.g for attribute in scan.attribute if attribute.name == "body")
    body.initializer.append(onnx.numpy_helper.from_array(np.full(1, 0.5, "f4"), "half"))
    outer = model.graph.initializer.pop()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(3, 7, "f4"), "unused"))
    for tensor, name in ((body.initializer[0], "inner.data"), (model.graph.initializer[0], "outer.data")):
        onnx.external_data_helper.set_external_data(tensor, name)
        (tmp_path / name).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
    path = tmp_path / "beside.onnx"
    path.write_bytes(write_contract(model.SerializeToString(), leak_contract()))
    found = read_model(path)
    assert outer.name == "half"
    assert (found.external, found.parameters) == (True, 4)
    beside = (tmp_path / "outer.data").read_bytes() + (tmp_path / "inner.data").read_bytes()
    assert found.id == f"sha256:{hashlib.sha256(model.SerializeToString() + beside).hexdigest()}"
    assert rnnx.load(path).stream().step([[1.0]])["y"].tolist() == [[2.0]]
    (tmp_path / "inner.data").write_bytes(np.full(1, 0.25, "f4").tobytes())
    assert read_model(path).id != found.id


def test_an_unknown_provider_is_refused_by_name() -> None:
    with pytest.raises(ProviderError, match="cpu, cuda, native or auto") as caught:
        rnnx.load(onnx_models.lstm(), "gpu")
    assert caught.value.code == "provider-unknown"


def test_a_provider_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PROVIDERS, "native", "rnnx_absent.engine")
    assert code_of(lambda: rnnx.load(onnx_models.lstm(), "native"), ProviderError) == "provider-unavailable"


def test_cuda_without_cuda_is_refused_and_auto_says_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="without CUDA") as caught:
        rnnx.load(onnx_models.lstm(), "cuda")
    assert caught.value.code == "provider-unavailable"
    assert rnnx.load(onnx_models.lstm(), "auto").provider == "cpu"


def test_a_session_that_fell_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A wheel with CUDA inside and no driver: ONNX Runtime loads the model on the CPU and says nothing.
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda source, settings, providers: real(source, settings, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(ProviderError, match="only CPUExecutionProvider") as caught:
        rnnx.load(onnx_models.lstm(), "cuda")
    assert caught.value.code == "provider-unavailable"
    assert rnnx.load(onnx_models.lstm(), "auto").provider == "cpu"


def test_both_wheels_are_a_conflict_for_cuda_and_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.32.0")
    for provider in ("cuda", "auto"):
        with pytest.raises(ProviderError, match="pip uninstall onnxruntime onnxruntime-gpu") as caught:
            rnnx.load(onnx_models.lstm(), provider)
        assert caught.value.code == "onnxruntime-conflict"
    assert rnnx.load(onnx_models.lstm()).provider == "cpu"
    reason = registry.availability()["cuda"]
    assert reason is not None
    assert reason.code == "onnxruntime-conflict"


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for provider in ("cpu", "cuda", "auto"):
        with pytest.raises(ProviderError, match="pip install") as caught:
            rnnx.load(onnx_models.lstm(), provider)
        assert caught.value.code == "onnxruntime-missing"


def test_an_interrupted_import_is_no_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As packages in C do: the interrupt is the cause of an ImportError."""
    source = "raise ImportError('initialization failed') from KeyboardInterrupt()\n"
    (tmp_path / "onnxruntime.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "onnxruntime")
    with pytest.raises(KeyboardInterrupt):
        rnnx.load(onnx_models.lstm())


def test_what_a_signal_raises_while_a_model_is_loaded_comes_out_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def handler() -> None:
        raise TimeoutError("too long")

    class Interrupted(onnxruntime.InferenceSession):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            handler()

    monkeypatch.setattr(onnxruntime, "InferenceSession", Interrupted)
    with pytest.raises(TimeoutError, match="too long"):
        rnnx.load(onnx_models.lstm())


def test_availability_tries_what_it_names() -> None:
    found = registry.availability()
    assert list(found) == list(registry.PROVIDERS)
    assert found["cpu"] is None


def test_options_reach_onnxruntime() -> None:
    options = {
        "threads": 2,
        "spinning": True,
        "graph_optimization": "none",
        "arena": False,
        "memory_pattern": False,
    }
    session: Any = rnnx.load(onnx_models.lstm(), options=options)
    used = session.engine.session.get_session_options()
    assert used.intra_op_num_threads == 2
    assert not used.enable_cpu_mem_arena
    assert not used.enable_mem_pattern
    assert "DISABLE_ALL" in str(used.graph_optimization_level)
    assert used.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    session.stream().step(np.ones((1, 3), "f4"))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"thread": 2}, "unknown-option"),
        ({"threads": 0}, "wrong-option"),
        ({"threads": "2"}, "wrong-option"),
        ({"threads": True}, "wrong-option"),
        ({"spinning": 1}, "wrong-option"),
        ({"graph_optimization": "most"}, "wrong-option"),
        ({"shared_threads": True, "threads": 2}, "wrong-option"),  # which would spin unasked
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, code: str) -> None:
    assert code_of(lambda: rnnx.load(onnx_models.lstm(), options=options), UsageError) == code


SHARING = """
import os, sys, rnnx
def load(**options):
    sessions.append(rnnx.load(sys.argv[1], options=options))
    sessions[-1].stream().step([[0.0, 0.0, 0.0]])
    return len(os.listdir("/proc/self/task"))
sessions = []
print([load() for _ in range(4)])
print([load(threads=4) for _ in range(3)])
print([load(threads=4, spinning=True, shared_threads=True) for _ in range(4)])
try:
    load(threads=3, spinning=True, shared_threads=True)
except rnnx.UsageError as error:
    print(error.code, error.found)
print([load() for _ in range(2)] + [load(threads=3)])
print(rnnx.engines.registry.availability()["cpu"])
sessions[0].stream().step([[0.0, 0.0, 0.0]])  # loaded before the pool was there
"""


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="not run: counts threads as Linux shows them"
)
def test_sessions_add_no_threads_or_share_theirs(tmp_path: Path) -> None:
    """In a process of its own: the pool is there for good."""
    (tmp_path / "lstm.onnx").write_bytes(onnx_models.lstm())
    command = [sys.executable, "-c", SHARING, str(tmp_path / "lstm.onnx")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not process.stderr
    said = process.stdout.splitlines()
    alone, own, shared = map(json.loads, said[:3])
    assert len(set(alone)) == 1, "sessions of one thread make none"
    assert [count - alone[0] for count in own] == [3, 6, 9]
    assert [count - own[-1] for count in shared] == [3, 3, 3, 3]
    assert said[3] == "wrong-option 3"
    assert json.loads(said[4]) == [shared[-1]] * 3, "what is loaded later uses the pool"
    assert said[5:] == ["None"]


def test_a_model_the_engine_cannot_load_is_refused() -> None:
    model = onnx.load_model_from_string(onnx_models.lstm())
    model.graph.node[0].op_type = "Nonsense"
    assert code_of(lambda: rnnx.load(model.SerializeToString()), ModelError) == "engine-refused"


def test_a_tampered_file_still_loads_with_its_own_id() -> None:
    model = onnx.load_model_from_string(onnx_models.lstm())
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    session = rnnx.load(model.SerializeToString())
    assert session.id != session.contract.id


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for make in onnx_models.STREAMING.values():
        session = rnnx.load(make())
        stream = session.stream(dims=dict.fromkeys(session.contract.free_dimensions, 3))
        assert stream.position == 0
    rnnx.load(onnx_models.lstm()).stream().run(np.ones((1, 4, 3), "f4"))
    with pytest.raises(ModelError):
        rnnx.load(onnx_models.lstm().replace(b"Transpose", b"Transposx"))
    assert capfd.readouterr() == ("", "")


def test_the_probe_model_is_valid() -> None:
    onnx.checker.check_model(onnx.load_model_from_string(ort_engine._identity_model()), full_check=True)


def test_onnxruntime_is_told_not_to_report_its_use(tmp_path: Path) -> None:
    """Its official builds otherwise leave an identifier in the home folder, and send what they measure."""
    (tmp_path / "m.onnx").write_bytes(write_contract(leak_graph(), leak_contract()))
    (tmp_path / "home").mkdir()
    program = "import rnnx, sys; rnnx.load(sys.argv[1]).stream().step([[1.0]])"
    home = {"HOME": str(tmp_path / "home")}
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", program, tmp_path / "m.onnx"], env=kept | home, check=True)
    assert not list((tmp_path / "home").rglob("*"))


def test_whoever_decides_about_reports_is_left_alone() -> None:
    program = "import os; from rnnx.engines import ort_import as it; "
    program += "it.import_onnxruntime(); print(os.environ[it.VARIABLE])"
    for given in ("0", "1"):
        home = os.environ | {"ORT_DISABLE_TELEMETRY": given, "HOME": "/nonexistent"}
        result = subprocess.run([sys.executable, "-c", program], env=home, capture_output=True, text=True)
        assert result.stdout.strip() == given
