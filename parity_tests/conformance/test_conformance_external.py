"""Weights in other files, in every language: from the model's folder alone, refused before they are opened.

The core's own tests of the same are in parity_tests/formats/test_runtime_external.py; here each language's
`replay` loads the same models.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cases.leak import leak_contract, leak_graph
from conftest import REPOSITORY
from rnnx.formats.safetensors_file import encode_tensors
from rnnx.model import protobuf
from rnnx.model.onnx_file import write_contract
from support.external_models import PLACES, USED, Put, external, initializer, values, write
from support.replay_programs import TOOLS, run

LANGUAGES = [name for name in TOOLS if (REPOSITORY / "runtimes" / name).is_dir()]
REFUSED, MISSING = "external-data-refused", "external-data-missing"
# Location and entries of a float32 tensor [1], and how it is refused.
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("../half.bin", {}, REFUSED),
    ("inner/../half.bin", {}, REFUSED),
    ("..", {}, REFUSED),
    ("/half.bin", {}, REFUSED),
    ("", {}, REFUSED),
    (".", {}, REFUSED),
    ("C:half.bin", {}, REFUSED),
    ("\\half.bin", {}, REFUSED),
    ("..\\half.bin", {}, REFUSED),
    ("inner\\..\\half.bin", {}, REFUSED),
    ("a\0b", {}, REFUSED),
    ("link.bin", {}, REFUSED),
    ("linked/half.bin", {}, REFUSED),
    ("inner", {}, REFUSED),
    ("pipe", {}, REFUSED),
    ("device", {}, REFUSED),
    ("half.bin", {"offset": 1}, REFUSED),
    ("half.bin", {"offset": 2**63}, REFUSED),
    ("half.bin", {"offset": 2**64 - 2}, REFUSED),  # with the length added, 2 in 64 bits
    ("half.bin", {"length": 0}, REFUSED),
    ("half.bin", {"length": 8}, REFUSED),
    ("half.bin", {"offset": -4}, REFUSED),
    ("half.bin", {"offset": "+0"}, REFUSED),
    ("half.bin", {"offset": "/:"}, REFUSED),  # 0, if any letter were a digit
    ("half.bin", {"offset": ""}, REFUSED),
    ("half.bin", {"length": "4 "}, REFUSED),
    ("half.bin", {"length": "9" * 30}, REFUSED),
    ("half.bin", {"offset": "\u0661"}, REFUSED),
    ("none.bin", {}, MISSING),
    ("half.bin/half.bin", {}, MISSING),
    ("loop.bin", {}, MISSING),
]

each_language = pytest.mark.parametrize("language", LANGUAGES)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a good file, and one above and beside it, with ways out and what is no file."""
    made, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (made, elsewhere, made / "inner"):
        folder.mkdir()
    values(made, "half.bin", 0.5)
    values(made / "inner", "half.bin", 0.25)
    for folder in (tmp_path, elsewhere):
        values(folder, "half.bin", 0.125)
    (made / "link.bin").symlink_to(elsewhere / "half.bin")
    (made / "linked").symlink_to(elsewhere)
    (made / "within.bin").symlink_to("half.bin")
    (made / "loop.bin").symlink_to("loop.bin")
    (made / "device").symlink_to("/dev/zero")
    os.mkfifo(made / "pipe")  # opening it would wait for ever
    (made / "feed.safetensors").write_bytes(encode_tensors({"x": np.zeros((1, 1), np.float32)}, {}))
    return made


def first_output(language: str, model: Path, folder: Path) -> float:
    """Run in `folder`. The state begins with 2: the first output is 2 * factor + 0."""
    said = run(language, model, "--feed", model.parent / "feed.safetensors", folder=folder)
    assert said.code == 0, said.value
    return float(said.value["outputs"]["y"][0])


def code_of(language: str, model: Path, folder: Path) -> str:
    said = run(language, model, "--feed", folder / "feed.safetensors", folder=folder)
    assert said.code == 2, said.value
    return str(said.value["error"]["code"])


@each_language
@pytest.mark.parametrize("put", USED, ids=lambda put: put.__name__)
def test_values_come_from_the_models_folder_whatever_the_working_directory(
    language: str, put: Put, home: Path
) -> None:
    """A file of the same name lies where the program runs."""
    model = write(home, put, external("half", "half.bin"))
    assert first_output(language, model, home.parent / "elsewhere") == 1.0
    model = write(home, put, external("half", "inner/half.bin", offset=0, length=4))
    assert first_output(language, model, home.parent) == 0.5
    assert first_output(language, Path("model.onnx"), home) == 0.5


@each_language
def test_a_link_within_the_folder_is_followed(language: str, home: Path) -> None:
    model = write(home, initializer, external("half", "./within.bin"))
    assert first_output(language, model, home.parent) == 1.0


@each_language
@pytest.mark.parametrize("put", PLACES, ids=lambda put: put.__name__)
def test_it_is_refused_wherever_a_tensor_may_stand(language: str, put: Put, home: Path) -> None:
    model = write(home, put, external("half", "../half.bin"))
    assert code_of(language, model, home) == REFUSED
    model = write(home, put, external("half", "half.bin", offset=4))
    assert code_of(language, model, home) == REFUSED


@each_language
@pytest.mark.parametrize(("location", "entries", "code"), WRONG, ids=str)
def test_what_leads_elsewhere_or_is_not_there_is_refused(
    language: str, location: str, entries: dict[str, Any], code: str, home: Path
) -> None:
    model = write(home, initializer, external("half", location, **entries))
    assert code_of(language, model, home) == code


@each_language
def test_a_tensor_that_names_a_file_is_external_whatever_else_it_says(language: str, home: Path) -> None:
    tensor = external("half", "../half.bin")
    tensor.ClearField("data_location")
    tensor.raw_data = b"\0\0\0\0"
    assert code_of(language, write(home, initializer, tensor), home) == REFUSED
    tensor = external("half", "half.bin")
    tensor.data_type = TensorProto.STRING
    assert code_of(language, write(home, initializer, tensor), home) == REFUSED


@each_language
@pytest.mark.parametrize("dims", [[2], [2**31, 2**33], [-1], [2**62, 4], []], ids=str)
def test_dimensions_are_held_against_the_file(language: str, dims: list[int], home: Path) -> None:
    """Products that have no place in 64 bits are not taken for small ones."""
    tensor = external("half", "half.bin")
    tensor.ClearField("dims")
    tensor.dims.extend(dims)
    model = write(home, initializer, tensor)
    assert dims == [] or code_of(language, model, home) == REFUSED
    tensor.ClearField("dims")
    tensor.dims.extend([*dims, 0])  # none of it
    made = onnx.load_model_from_string(leak_graph())
    made.graph.initializer.append(tensor)
    made.graph.initializer[-1].name = "unused"
    model.write_bytes(write_contract(made.SerializeToString(), leak_contract()))
    said = run(language, model, "--feed", home / "feed.safetensors", folder=home)
    assert said.code == 0 or said.value["error"]["code"] == "engine-refused"


@each_language
def test_a_hundred_thousand_dimensions_cost_little(language: str, home: Path) -> None:
    """Their product would be a number of 800 kilobytes."""
    tensor = external("half", "half.bin")
    tensor.dims.extend([2**63 - 1] * 100_000)
    model = write(home, initializer, tensor)
    code_of(language, Path("none.onnx"), home)  # builds the program, if need be
    began = time.monotonic()
    assert code_of(language, model, home) == REFUSED
    assert time.monotonic() - began < 20  # two minutes, where it was computed


@each_language
def test_many_tensors_of_one_place_are_not_read_without_end(language: str, home: Path) -> None:
    made = onnx.load_model_from_string(leak_graph())
    for index in range(100):
        made.graph.initializer.append(external(f"unused_{index}", "half.bin"))
    (home / "model.onnx").write_bytes(write_contract(made.SerializeToString(), leak_contract()))
    assert code_of(language, home / "model.onnx", home) == REFUSED


@each_language
def test_messages_that_are_damaged_or_too_deep_are_no_model(language: str, home: Path) -> None:
    damaged = helper.make_node("Constant", [], ["c"], value=external("half", "half.bin"))
    graphs = {
        "as deep as protobuf goes": (nested(32), False),
        "deeper": (nested(34), True),
        "much deeper": (nested(3000), True),
        "cut short": (protobuf.encode_bytes(1, damaged.SerializeToString()[:-1]), True),
        "a group": (protobuf.encode_bytes(1, b"\x2b\x2c"), True),
        "field number 0": (protobuf.encode_bytes(1, b"\x00\x01"), True),
        "a number without end": (protobuf.encode_bytes(1, b"\x08" + b"\xff" * 11), True),
    }
    for name, (graph, is_damaged) in graphs.items():
        hurt = leak_graph() + protobuf.encode_bytes(20, protobuf.encode_bytes(1, graph))  # for training
        (home / "model.onnx").write_bytes(write_contract(hurt, leak_contract()))
        said = run(language, home / "model.onnx", "--feed", home / "feed.safetensors", folder=home)
        assert (said.value.get("error", {}).get("code") == "not-onnx") == is_damaged, (name, said)


def nested(times: int) -> bytes:
    """Return a graph in an attribute of a node of a graph, and so on: three messages each time."""
    graph = b""
    for _ in range(times):
        graph = protobuf.encode_bytes(1, protobuf.encode_bytes(5, protobuf.encode_bytes(6, graph)))
    return graph
