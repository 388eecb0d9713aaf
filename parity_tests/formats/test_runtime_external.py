"""External data: found wherever a tensor may stand, read from the model's folder only, part of the id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

import rnnx
from cases.leak import leak_contract, leak_graph
from rnnx.errors import ModelError
from rnnx.model.external_data import external_tensors
from rnnx.model.onnx_file import read_model, write_contract
from support.external_models import PLAIN, USED, constant, external, initializer, values, write


def first_output(path: Path) -> float:
    """The state begins with 2: 2 * factor + 0."""
    return float(rnnx.load(path).stream().step([[0.0]])["y"][0, 0])


@pytest.mark.parametrize("put", USED, ids=lambda put: put.__name__)
def test_values_come_from_the_models_folder_and_count_for_its_id(
    put: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    values(home, "half.bin", 0.5)
    values(elsewhere, "half.bin", 0.125)
    path = write(home, put, external("half", "half.bin"))
    monkeypatch.chdir(elsewhere)
    assert first_output(path) == 1.0
    before = read_model(path)
    assert before.external
    values(home, "half.bin", 0.25)
    assert read_model(path).id != before.id
    assert first_output(path) == 0.5
    (home / "half.bin").unlink()
    with pytest.raises(ModelError) as refusal:
        rnnx.load(path)
    assert refusal.value.code == "external-data-missing"


@pytest.mark.parametrize("put", PLAIN, ids=lambda put: put.__name__)
@pytest.mark.parametrize("provider", ["cpu", "native"])
def test_both_engines_take_what_the_file_says(put: Any, provider: str, tmp_path: Path) -> None:
    for factor in (0.5, 0.75):  # the second time from a cache, if it were kept by the model alone
        values(tmp_path, "half.bin", 0, 0, factor)
        path = write(tmp_path, put, external("half", "half.bin", offset=8, length=4))
        stream = rnnx.load(path, provider).stream()
        assert stream.step([[0.0]])["y"].tolist() == [[2 * factor]]


def test_sparse_tensors_functions_and_training_graphs_are_looked_into() -> None:
    model = onnx.load_model_from_string(leak_graph())
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external("values", "a.bin"))
    sparse.indices.CopyFrom(external("indices", "b.bin"))
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    node.attribute[0].sparse_tensor.values.CopyFrom(external("inner", "c.bin"))
    node.attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(external("one", "d.bin"))
    function = model.functions.add(name="f", domain="d")
    function.node.append(node)
    model.training_info.add().initialization.initializer.append(external("start", "e.bin"))
    found = [tensor.location for tensor in external_tensors(model.SerializeToString())]
    assert sorted(found) == ["a.bin", "b.bin", "c.bin", "d.bin", "e.bin"]


@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("../half.bin", {}),
        ("/half.bin", {}),
        ("", {}),
        ("C:half.bin", {}),
        ("..\\half.bin", {}),
        ("link.bin", {}),
        ("linked/half.bin", {}),
        ("folder", {}),
        ("pipe", {}),
        ("half.bin", {"offset": 8}),
        ("half.bin", {"length": 8}),
        ("half.bin", {"offset": -4}),
        ("half.bin", {"length": "9" * 30}),
        ("half.bin", {"offset": "\u0661"}),
        ("a\0b", {}),
    ],
)
def test_what_leads_elsewhere_or_says_what_is_not_there_is_refused_before_it_is_opened(
    location: str, entries: dict[str, Any], tmp_path: Path
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    for folder in (tmp_path, home, elsewhere):
        values(folder, "half.bin", 0.5)
    (home / "link.bin").symlink_to(elsewhere / "half.bin")
    (home / "linked").symlink_to(elsewhere)
    (home / "folder").mkdir()
    os.mkfifo(home / "pipe")  # opening it would wait for ever
    path = write(home, initializer, external("half", location, **entries))
    with pytest.raises(ModelError) as refusal:
        rnnx.load(path)
    assert refusal.value.code == "external-data-refused"


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    values(tmp_path, "half.bin", 0.5)
    (tmp_path / "link.bin").symlink_to("half.bin")
    assert first_output(write(tmp_path, constant, external("half", "link.bin"))) == 1.0


def test_a_link_that_leads_to_itself_is_missing(tmp_path: Path) -> None:
    (tmp_path / "loop.bin").symlink_to("loop.bin")
    with pytest.raises(ModelError) as refusal:
        rnnx.load(write(tmp_path, initializer, external("half", "loop.bin")))
    assert refusal.value.code == "external-data-missing"


def test_many_tensors_of_one_place_are_not_read_without_end(tmp_path: Path) -> None:
    values(tmp_path, "half.bin", 0.5)
    model = onnx.load_model_from_string(leak_graph())
    for index in range(100):
        model.graph.initializer.append(external(f"unused_{index}", "half.bin"))
    path = tmp_path / "model.onnx"
    path.write_bytes(write_contract(model.SerializeToString(), leak_contract()))
    with pytest.raises(ModelError) as refusal:
        rnnx.load(path)
    assert refusal.value.code == "external-data-refused"
