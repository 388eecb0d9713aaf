"""Every runtime on every golden model: traces in all chunkings, errors word for word, texts, snapshots.

Which runtimes: those that have a folder in runtimes/. Where a language's tools are missing its tests are
reported as not run, and fail on CI.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import external_data_helper, helper, numpy_helper

import conftest
from cases.leak import leak_contract, leak_graph
from conftest import REPOSITORY
from rnnx.engines.registry import availability
from rnnx.formats.safetensors_file import decode_tensors, encode_tensors
from rnnx.formats.snapshot import Snapshot, encode_snapshot
from rnnx.formats.trace_file import read_trace
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import model_id, read_contract, read_model, write_contract
from rnnx.model.shapes import Array
from support import replay_programs
from support.replay_programs import GOLDEN, MODELS, TOOLS, run

LANGUAGES = [name for name in TOOLS if (REPOSITORY / "runtimes" / name).is_dir()]
CHUNKINGS = ("1", "0", "3,1,0", "5,2")
ERRORS = json.loads((GOLDEN / "errors.json").read_text(encoding="utf-8"))
TEXTS = json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8"))
DRAWS = json.loads((GOLDEN / "draws.json").read_text(encoding="utf-8"))
Change = Callable[[dict[str, Array]], None]

each_language = pytest.mark.parametrize("language", LANGUAGES)


@each_language
@pytest.mark.parametrize("chunks", CHUNKINGS)
@pytest.mark.parametrize("model", MODELS)
def test_agrees_with_the_trace_however_it_is_cut(language: str, model: str, chunks: str) -> None:
    said = run(language, f"{model}.onnx", f"{model}.trace.safetensors", "--chunks", chunks)
    assert said.code == 0, said.value
    whole = read_contract(read_model(GOLDEN / f"{model}.onnx")).whole_only is not None
    calls = 1 if whole else {"1": 12, "0": 1, "3,1,0": 3, "5,2": 3}[chunks]
    error = said.value.pop("max_error")
    assert said.value == {"agrees": True, "steps": 12, "calls": calls, "failure": None}
    assert 0 <= error < 1e-2


@each_language
@pytest.mark.parametrize("error", ERRORS, ids=[entry["name"] for entry in ERRORS])
def test_says_the_same_about_a_fault(language: str, error: dict[str, Any]) -> None:
    if language in error["except"]:
        pytest.skip(f"not run: {error['except'][language]}")
    if "cuda" in error["arguments"] and availability()["cuda"] is None:
        pytest.skip("not run: CUDA works here")
    said = run(language, *error["arguments"])
    assert said.code == 2
    found = said.value["error"]
    assert found["code"] == error["code"]
    assert re.fullmatch(r"expected .+; found .+; fix: .+", found["text"])
    assert error["text"] in (None, found["text"])


@each_language
@pytest.mark.parametrize("entry", TEXTS, ids=lambda entry: f"temperature {entry['temperature']:g}")
def test_makes_the_same_text(language: str, entry: dict[str, Any]) -> None:
    options = ["--length", entry["length"], "--temperature", entry["temperature"], "--seed", entry["seed"]]
    said = run(language, entry["model"], "--text", entry["prompt"], *map(str, options))
    assert said.code == 0, said.value
    assert said.value == {"text": entry["text"]}


@each_language
@pytest.mark.parametrize("entry", DRAWS, ids=lambda entry: f"seed {entry['seed']}")
def test_draws_the_same_bit_for_bit(language: str, entry: dict[str, Any]) -> None:
    weights = ",".join(str(weight) for weight in entry["weights"])
    said = run(language, "--draw", weights, "--seed", str(entry["seed"]), "--count", str(entry["count"]))
    assert said.value == {"draws": entry["draws"]}
    assert said.code == 0


@each_language
@pytest.mark.parametrize("model", ["gru", "half", "counter", "truth", "scalars", "several"])
def test_steps_with_the_same_outputs(language: str, model: str, tmp_path: Path) -> None:
    contract, trace = golden_trace(model)
    row = {name: value[3] if len(value) == 12 else value for name, value in trace.inputs.items()}
    for spec in contract.inputs:
        if spec.name in row and "batch" in spec.shape:
            row[spec.name] = row[spec.name][:1]
    feed = tmp_path / "feed.safetensors"
    feed.write_bytes(encode_tensors(row, {}))
    arguments = (f"{model}.onnx", "--feed", feed, "--times", "4")
    expected, got = run("python", *arguments), run(language, *arguments)
    assert got.code == expected.code == 0, got.value
    assert got.value["outputs"].keys() == expected.value["outputs"].keys()
    for name, values in expected.value["outputs"].items():
        np.testing.assert_allclose(got.value["outputs"][name], values, rtol=1e-5, atol=1e-5)


@each_language
def test_flush_gives_what_is_late(language: str, tmp_path: Path) -> None:
    """Python's is held to PyTorch in test_export_delay.py; here it is seen that the end counts."""
    feed = tmp_path / "feed.safetensors"
    feed.write_bytes(encode_tensors({"x": np.array([[0.5, -1, 0.25]], np.float32)}, {}))
    arguments = ("late.onnx", "--feed", feed, "--times", "5")
    expected, got = (run(name, *arguments, "--flush") for name in ("python", language))
    assert got.code == expected.code == 0, got.value
    late = np.array(expected.value["outputs"]["y"])
    assert late.shape == (8,)
    np.testing.assert_allclose(got.value["outputs"]["y"], late, rtol=1e-5, atol=1e-5)
    (tmp_path / "zeros").write_bytes(encode_tensors({"x": np.zeros((1, 3), np.float32)}, {}))
    nothing = run(language, "late.onnx", "--feed", tmp_path / "zeros", "--times", "5", "--flush")
    assert np.abs(np.array(nothing.value["outputs"]["y"]) - late).max() > 1e-2


@each_language
@pytest.mark.parametrize("model", ["no_batch", "two_layers", "scalars", "truth", "step_length", "whole_only"])
def test_snapshots_go_from_language_to_language(language: str, model: str, tmp_path: Path) -> None:
    """They have batch 1, since `--restore` opens a stream of batch 1."""
    trace = one_row(model, tmp_path)
    after = 0 if model == "whole_only" else 5
    for name in ("python", language):
        said = run(name, f"{model}.onnx", "--snapshot", tmp_path / name, "--after", str(after), trace)
        assert (said.code, said.value) == (0, {"position": after})
        for reader in ("python", language):
            restored = run(reader, f"{model}.onnx", "--restore", tmp_path / name)
            assert (restored.code, restored.value) == (0, {"position": after})
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("python", language))
    head = 8 + int.from_bytes(ours[:8], "little")
    assert theirs[:head] == ours[:head], "the header differs"
    (left, _), (right, _) = (decode_tensors(data, what="a snapshot") for data in (ours, theirs))
    for name, value in left.items():
        np.testing.assert_allclose(right[name], value, rtol=1e-5, atol=1e-5)


@each_language
def test_says_where_a_trace_is_off(language: str, tmp_path: Path) -> None:
    def change(tensors: dict[str, Array]) -> None:
        tensors["output.y"][7, 1, 3] += 0.25
        tensors["output.y"][9, 0, 0] += 0.25
        tensors["state.state.h"][8, 0, 0, 0] += 0.25

    trace = changed_trace("gru", change, tmp_path)
    for chunks in ("1", "0", "5,2"):
        failure = refused(language, GOLDEN / "gru.onnx", trace, "--chunks", chunks)
        _, right = golden_trace("gru")
        wanted = float(right.outputs["y"][7, 1, 3])
        assert failure["got"] == pytest.approx(wanted, abs=1e-5)
        assert failure["expected"] == pytest.approx(wanted + 0.25, abs=1e-5)
        assert (failure["tensor"], failure["step"], failure["index"]) == ("output.y", 7, [1, 3])


@each_language
def test_a_number_that_is_none_is_told_from_one(language: str, tmp_path: Path) -> None:
    def change(tensors: dict[str, Array]) -> None:
        tensors["output.y"][2, 0, 1] = np.nan

    failure = refused(language, GOLDEN / "gru.onnx", changed_trace("gru", change, tmp_path))
    assert failure["expected"] == "nan"
    assert (failure["tensor"], failure["step"], failure["index"]) == ("output.y", 2, [0, 1])


@each_language
def test_does_not_compare_outputs_past_the_length_of_their_row(language: str, tmp_path: Path) -> None:
    def change(tensors: dict[str, Array]) -> None:
        tensors["output.y"][5:, 1] = 99  # row 1 has 5 valid steps

    trace = changed_trace("default_and_length", change, tmp_path)
    for chunks in CHUNKINGS:
        said = run(language, "default_and_length.onnx", trace, "--chunks", chunks)
        assert said.code == 0, said.value

    def change_state(tensors: dict[str, Array]) -> None:
        tensors["state.total"][12, 1] += 1  # but its state must stay as it was

    trace = changed_trace("default_and_length", change_state, tmp_path)
    failure = refused(language, GOLDEN / "default_and_length.onnx", trace)
    assert (failure["tensor"], failure["step"], failure["index"]) == ("state.total", 11, [1, 0])


@each_language
def test_sees_swapped_states(language: str, tmp_path: Path) -> None:
    model = read_model(GOLDEN / "lstm.onnx")
    contract = read_contract(model)
    h, c = contract.states
    swapped = [msgspec.structs.replace(h, output=c.output), msgspec.structs.replace(c, output=h.output)]
    path = tmp_path / "swapped.onnx"
    path.write_bytes(write_contract(model.data, msgspec.structs.replace(contract, states=swapped)))
    failure = refused(language, path, GOLDEN / "lstm.trace.safetensors")
    assert (failure["tensor"], failure["step"]) == ("state.state.h", 0)


@each_language
@pytest.mark.parametrize("name", ["gru", "lstm", "elman"])
def test_sees_dropped_states(language: str, name: str, tmp_path: Path) -> None:
    """The graph gives back the state that came in, as it does for someone who forgets to hand it on."""
    model = onnx.load(GOLDEN / f"{name}.onnx")
    contract = read_contract(read_model(GOLDEN / f"{name}.onnx"))
    state = contract.states[0]
    for node in model.graph.node:
        node.output[:] = ["unused" if output == state.output else output for output in node.output]
    model.graph.node.append(helper.make_node("Identity", [state.input], [state.output]))
    data = model.SerializeToString()
    identity = model_id(data, None)
    path = tmp_path / "dropped.onnx"
    path.write_bytes(write_contract(data, msgspec.structs.replace(contract, id=identity)))
    tensors, metadata = decode_tensors((GOLDEN / f"{name}.trace.safetensors").read_bytes(), what="a trace")
    trace = tmp_path / "dropped.trace.safetensors"
    trace.write_bytes(encode_tensors(tensors, {**metadata, "model": identity}))
    failure = refused(language, path, trace)
    assert (failure["tensor"], failure["step"]) == (f"state.{state.name}", 0)


@each_language
@pytest.mark.parametrize("name", ["learned_start", "minus_infinity", "truth", "scalars"])
def test_sees_a_wrong_start(language: str, name: str, tmp_path: Path) -> None:
    model = read_model(GOLDEN / f"{name}.onnx")
    contract = read_contract(model)
    states = [msgspec.structs.replace(state, initial=0) for state in contract.states]
    path = tmp_path / "start.onnx"
    path.write_bytes(write_contract(model.data, msgspec.structs.replace(contract, states=states)))
    failure = refused(language, path, GOLDEN / f"{name}.trace.safetensors")
    assert (failure["tensor"], failure["step"]) == (f"state.{contract.states[0].name}", -1)


@each_language
@pytest.mark.parametrize(
    ("dtype", "initial", "good"),
    [
        ("bool", True, True),
        ("bool", [False, True, 1], True),
        ("bool", 2, False),
        ("int64", 1.6, True),
        ("int64", "inf", False),
        ("int64", 1e19, False),
        ("int64", ["nan"], False),
    ],
)
def test_starts_must_have_a_counterpart_in_their_dtype(
    language: str, dtype: str, initial: Any, good: bool, tmp_path: Path
) -> None:
    """A golden model with another start in its contract: refused, or other than its trace says."""
    name = {"bool": "truth", "int64": "counter"}[dtype]
    model = onnx.load(GOLDEN / f"{name}.onnx")
    (entry,) = (entry for entry in model.metadata_props if entry.key == "rnnx.contract")
    contract = json.loads(entry.value)
    assert contract["states"][0]["dtype"] == dtype
    contract["states"][0]["initial"] = initial
    entry.value = json.dumps(contract)
    onnx.save(model, tmp_path / "start.onnx")
    said = run(language, tmp_path / "start.onnx", GOLDEN / f"{name}.trace.safetensors")
    if good:
        assert said.value["failure"]["step"] == -1
    else:
        assert said.value["error"]["code"] == "contract-invalid"
        assert " does not fit " in said.value["error"]["text"]


@each_language
@pytest.mark.parametrize(
    ("place", "changes", "good"),
    [
        (0, {"range": [-1, 99]}, True),
        (0, {"range": None}, True),
        (0, {"range": [5, 5]}, True),
        (0, {"range": [-(2**53) + 1, 2**53 - 1]}, True),
        (0, {"range": [0, 2**53]}, False),
        (0, {"range": [0, 1.5]}, False),
        (0, {"range": [1, 0]}, False),
        (0, {"range": [0]}, False),
        (0, {"range": [0, 1, 2]}, False),
        (0, {"range": "0..36"}, False),
        (0, {"range": [0, "36"]}, False),
        (0, {"range": [0, True]}, False),
        (1, {"range": [-128, 127]}, True),
        (1, {"range": [0, 128]}, False),
        (1, {"range": [-129, 0]}, False),
        (1, {"default": 3.4}, True),
        (1, {"default": 3.6}, False),
        (1, {"default": -4}, False),
        (2, {"range": [-0.5, 1e300]}, True),
        (2, {"range": [1, 0.25]}, False),
        (2, {"default": 99}, True),
    ],
    ids=str,
)
def test_ranges_are_of_the_dtype_and_hold_the_default(
    language: str, place: int, changes: dict[str, Any], good: bool, tmp_path: Path
) -> None:
    feed = tmp_path / "feed.safetensors"
    values = {"token": np.array([5]), "shift": np.array([2], np.int8), "level": np.ones(1, np.float32)}
    feed.write_bytes(encode_tensors(values, {}))
    said = run(language, changed_input("ids", place, changes, tmp_path), "--feed", feed)
    if good:
        assert said.code == 0, said.value
    else:
        assert said.value["error"]["code"] == "contract-invalid"


@each_language
@pytest.mark.parametrize(
    ("model", "what", "text"),
    [
        ("truth", "bool", "a range of 'x', which takes truth values"),
        ("step_length", "length", "a range of 'lengths', which takes lengths"),
        ("characters", "symbols", "a range of 'token', which takes symbols"),
    ],
)
def test_no_range_stands_beside_another_bound(
    language: str, model: str, what: str, text: str, tmp_path: Path
) -> None:
    names = [spec.name for spec in read_contract(read_model(GOLDEN / f"{model}.onnx")).inputs]
    place = names.index(text.split("'")[1])
    changes = {"range": [0, 1]} | ({"dtype": "bool"} if what == "bool" else {})
    said = run(language, changed_input(model, place, changes, tmp_path), f"{model}.trace.safetensors")
    assert said.value["error"]["code"] == "contract-invalid"
    assert f"found {text};" in said.value["error"]["text"]


@each_language
@pytest.mark.parametrize(
    "dimension", [2**31, 2**40, 2**62, 2**70, f"{2**31}*time", f"{2**62}*time", f"{2**70}*time", "9" * 4000]
)
def test_a_dimension_that_no_machine_has_is_refused(
    language: str, dimension: int | str, tmp_path: Path
) -> None:
    model = changed_input("gru", 0, {"shape": ["batch", "time", dimension]}, tmp_path)
    if isinstance(dimension, str):
        model = changed_input("gru", 0, {"shape": ["batch", dimension, 4]}, tmp_path)
    said = run(language, model, "gru.trace.safetensors")
    assert said.value["error"]["code"] in ("contract-graph", "contract-invalid")


@each_language
def test_floats_outside_their_range_are_taken_if_they_are_finite(language: str, tmp_path: Path) -> None:
    feed = tmp_path / "feed.safetensors"
    values = {"token": np.array([36]), "shift": np.array([-3], np.int8), "level": np.array([7.5], np.float32)}
    feed.write_bytes(encode_tensors(values, {}))
    expected, got = (run(name, "ids.onnx", "--feed", feed) for name in ("python", language))
    assert got.code == expected.code == 0, got.value
    pair = got.value["outputs"]["y"], expected.value["outputs"]["y"]
    np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-5)
    feed.write_bytes(encode_tensors(values | {"level": np.array([np.nan], np.float32)}, {}))
    assert run(language, "ids.onnx", "--feed", feed).value["error"]["code"] == "non-finite"


@each_language
@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_sees_a_contract_that_names_more_than_the_graph(language: str, kind: str, tmp_path: Path) -> None:
    model = read_model(GOLDEN / "gru.onnx")
    contract = msgspec.to_builtins(read_contract(model))
    contract[kind].append({"name": "z", "dtype": "float32", "shape": ["batch", "time", 1]})
    path = tmp_path / "more.onnx"
    path.write_bytes(write_contract(model.data, msgspec.convert(contract, Contract)))
    error = run(language, path, GOLDEN / "gru.trace.safetensors").value["error"]
    assert error["code"] == "contract-graph"
    assert f"agree on the {kind}; found " in error["text"]


@each_language
def test_a_missing_or_empty_golden_is_an_error(language: str, tmp_path: Path) -> None:
    assert run(language, "gru.onnx", tmp_path / "none").value["error"]["code"] == "file-missing"
    empty = tmp_path / "empty.trace.safetensors"
    empty.write_bytes(b"")
    said = run(language, "gru.onnx", empty)
    assert (said.code, said.value["error"]["code"]) == (2, "not-safetensors")
    said = run(language, "gru.onnx", GOLDEN / "faults" / "no-steps.safetensors")
    assert (said.code, said.value["error"]["code"]) == (2, "trace-invalid")
    shutil.copyfile(empty, tmp_path / "empty.onnx")
    said = run(language, tmp_path / "empty.onnx", "gru.trace.safetensors")
    assert (said.code, said.value["error"]["code"]) == (2, "not-onnx")


@each_language
@pytest.mark.parametrize(
    "offsets",
    [([0, 16], [0, 16]), ([0, 16], [4, 20]), ([0, 16], [20, 36]), ([4, 20], [20, 36])],
    ids=["the same bytes", "some bytes", "a hole", "a hole in front"],
)
def test_every_byte_of_a_tensor_file_belongs_to_one_tensor(
    language: str, offsets: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    """Else a small file could hold any number of large tensors."""
    x, z = ({"dtype": "F32", "shape": [1, 4], "data_offsets": pair} for pair in offsets)
    header = json.dumps({"x": x, "z": z}).encode()
    (tmp_path / "feed").write_bytes(len(header).to_bytes(8, "little") + header + bytes(offsets[1][1]))
    assert run(language, "gru.onnx", "--feed", tmp_path / "feed").value["error"]["code"] == "not-safetensors"


@each_language
def test_weights_beside_the_model_are_found(language: str, tmp_path: Path) -> None:
    model, feed = weights_outside(tmp_path)
    assert run(language, model, "--feed", feed).value == {"outputs": {"y": [2]}}


@each_language
@pytest.mark.parametrize(
    ("initial", "value", "good"),
    [
        (0.0, np.nan, False),
        ("inf", np.nan, False),
        ([0.0], np.nan, False),
        ("nan", np.nan, True),
        (["nan"], np.nan, True),
        ([["nan"]], 1.0, True),
        (0.0, np.inf, True),
        (0.0, -np.inf, True),
    ],
    ids=str,
)
def test_a_snapshot_holds_nan_only_where_the_state_starts_so(
    language: str, initial: Any, value: float, good: bool, tmp_path: Path
) -> None:
    contract = leak_contract()
    states = [msgspec.structs.replace(contract.states[0], initial=initial)]
    contract = msgspec.structs.replace(contract, id=model_id(leak_graph(), None), states=states)
    (tmp_path / "leak.onnx").write_bytes(write_contract(leak_graph(), contract))
    saved = Snapshot(contract.id, 3, {"sum": np.full((1, 1), value, "f4")})
    (tmp_path / "snapshot").write_bytes(encode_snapshot(saved))
    said = run(language, tmp_path / "leak.onnx", "--restore", tmp_path / "snapshot")
    if good:
        assert said.value == {"position": 3}
    else:
        assert said.value["error"]["code"] == "snapshot-invalid"
        assert "without NaN; found nan at index [0, 0]; fix: " in said.value["error"]["text"]


def weights_outside(folder: Path) -> tuple[Path, Path]:
    """Return the paths of a model with its weight in another file, and of x = 1, which it answers with 2."""
    model = onnx.load_from_string(leak_graph())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([0.5], np.float32), "half"))
    external_data_helper.set_external_data(model.graph.initializer[0], "leak.data", offset=0, length=4)
    model.graph.initializer[0].ClearField("raw_data")
    (folder / "leak.data").write_bytes(np.float32(0.5).tobytes())
    (folder / "leak.onnx").write_bytes(write_contract(model.SerializeToString(), leak_contract()))
    (folder / "feed.safetensors").write_bytes(encode_tensors({"x": np.ones((1, 1), np.float32)}, {}))
    return folder / "leak.onnx", folder / "feed.safetensors"


def refused(language: str, model: Path, trace: Path, *options: str) -> dict[str, Any]:
    """Return where the replay of `language` found that model and trace disagree."""
    said = run(language, model, trace, *options)
    assert said.code == 1, said.value
    assert said.value["agrees"] is False
    failure: dict[str, Any] = said.value["failure"]
    return failure


def golden_trace(model: str) -> Any:
    """Return contract and trace of a golden model."""
    contract = read_contract(read_model(GOLDEN / f"{model}.onnx"))
    return contract, read_trace(GOLDEN / f"{model}.trace.safetensors", contract)


def changed_input(model: str, place: int, changes: dict[str, Any], folder: Path) -> Path:
    """Return the path of a golden model with fields of one input replaced, as its contract holds them."""
    changed = onnx.load(GOLDEN / f"{model}.onnx")
    (entry,) = (entry for entry in changed.metadata_props if entry.key == "rnnx.contract")
    contract = json.loads(entry.value)
    contract["inputs"][place] |= changes
    entry.value = json.dumps(contract)
    onnx.save(changed, folder / "changed.onnx")
    return folder / "changed.onnx"


def changed_trace(model: str, change: Change, folder: Path) -> Path:
    """Return the path of a trace, changed."""
    data = (GOLDEN / f"{model}.trace.safetensors").read_bytes()
    tensors, metadata = decode_tensors(data, what="a trace")
    change(tensors)
    path = folder / f"{model}.trace.safetensors"
    path.write_bytes(encode_tensors(tensors, metadata))
    return path


def one_row(model: str, folder: Path) -> Path:
    """Return the path of a trace with the first row of its batch alone."""
    contract = read_contract(read_model(GOLDEN / f"{model}.onnx"))

    def change(tensors: dict[str, Array]) -> None:
        for kind, specs in (
            ("input", contract.inputs),
            ("output", contract.outputs),
            ("state", contract.states),
        ):
            for spec in specs:
                name = f"{kind}.{spec.name}"
                shape = [size for size in spec.shape if size != "time"]
                if name in tensors and "batch" in shape:
                    behind = tensors[name].ndim - len(shape)
                    tensors[name] = tensors[name].take([0], axis=behind + shape.index("batch"))

    return changed_trace(model, change, folder)


@pytest.mark.parametrize("on_ci", [True, False])
def test_a_missing_tool_fails_on_ci_and_is_reported_elsewhere(
    on_ci: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "ON_CI", on_ci)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    outcome = pytest.fail.Exception if on_ci else pytest.skip.Exception
    with pytest.raises(outcome, match=r"not run: rust \(cargo not found\)"):
        replay_programs.prepare("rust")


def test_the_script_runs_from_any_folder_and_passes_the_exit_code_on(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "replay"
    (tmp_path / "golden").symlink_to(GOLDEN)
    for arguments, code in (
        (["python", "golden/gru.onnx", "golden/gru.trace.safetensors", "--chunks", "3,1,0"], 0),
        (["python", "golden/gru.onnx", "golden/lstm.trace.safetensors"], 2),
        (["python", "golden/gru.onnx"], 2),
        (["perl"], 2),
        ([], 2),
    ):
        done = subprocess.run([script, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert code == 0 or "expected" in done.stderr
