"""The runtime of JavaScript in a browser, where ONNX Runtime is another package, held to the same as in Node.

All of it is done by one page, since a browser takes a second to start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_conformance import CHUNKINGS, DRAWS, ERRORS, TEXTS, changed_trace, one_row, weights_outside

from conftest import REPOSITORY
from rnnx.formats.safetensors_file import decode_tensors
from rnnx.model.onnx_file import read_contract, read_model
from support.browser import chromium, posted
from support.external_models import USED, external, initializer, write
from support.replay_programs import GOLDEN, MODELS, Said, prepare, run

PAGE = "/runtimes/web/tests/replay.html"
TRACES = [
    (f"{model}.onnx", f"{model}.trace.safetensors", "--chunks", cut) for model in MODELS for cut in CHUNKINGS
]
FAULTS = [tuple(entry["arguments"]) for entry in ERRORS]
# By model: where its weight is said to lie, and how it is refused.
OUTSIDE = {
    "absent": ("none.data", "external-data-missing"),
    "above": ("../parity_tests/golden/gru.onnx", "external-data-refused"),
    "escaped": ("%2e%2e/parity_tests/golden/gru.onnx", "external-data-missing"),
    "far": ("http://127.0.0.1/x", "external-data-missing"),
    "other": ("//127.0.0.1/x", "external-data-refused"),
    "asked": ("leak.data?x", "external-data-missing"),
}
# Where onnxruntime-web does not find the weights that it is handed.
UNREAD = ("inner_constant", "inner_initializer", "sparse")
SNAPSHOTS = ("two_layers", "scalars", "truth")


def text_words(entry: dict[str, Any]) -> tuple[str, ...]:
    options = {name: str(entry[name]) for name in ("length", "temperature", "seed")}
    named = (word for name, value in options.items() for word in (f"--{name}", value))
    return (entry["model"], "--text", entry["prompt"], *named)


def draw_words(entry: dict[str, Any]) -> tuple[str, ...]:
    weights = ",".join(map(str, entry["weights"]))
    return ("--draw", weights, "--seed", str(entry["seed"]), "--count", str(entry["count"]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the page reads and writes."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def said(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Said]:
    """What the program said in the browser, by its arguments."""
    prepare("node")
    chromium()
    jobs = [
        *TRACES,
        *FAULTS,
        *map(text_words, TEXTS),
        *map(draw_words, DRAWS),
        *spoilt(made),
        *snapshots(made),
        *outside(made),
    ]
    (made / "jobs.json").write_text(json.dumps(jobs))
    folders = {"/": REPOSITORY, "/made/": made}
    found = posted(PAGE, folders, tmp_path_factory.mktemp("profile"))
    assert len(found) == len(jobs), found[-1]
    return {words: Said(entry["code"], entry["value"]) for words, entry in zip(jobs, found, strict=True)}


def spoilt(made: Path) -> list[tuple[str, ...]]:
    """Jobs with a trace that is off in one number."""

    def change(tensors: dict[str, Any]) -> None:
        tensors["output.y"][7, 1, 3] += 0.25

    changed_trace("gru", change, made)
    return [("gru.onnx", "/made/gru.trace.safetensors", "--chunks", "5,2")]


def snapshots(made: Path) -> list[tuple[str, ...]]:
    """Jobs that write a snapshot, and that restore one written in Python."""
    jobs: list[tuple[str, ...]] = []
    for model in SNAPSHOTS:
        trace = one_row(model, made)
        assert run("python", f"{model}.onnx", "--snapshot", made / model, "--after", "5", trace).code == 0
        jobs.append(
            (f"{model}.onnx", "--snapshot", f"/made/{model}.web", "--after", "5", f"/made/{trace.name}")
        )
        jobs.append((f"{model}.onnx", "--restore", f"/made/{model}"))
    return jobs


def outside(made: Path) -> list[tuple[str, ...]]:
    """Jobs with weights beside the model, wherever a tensor may stand, or missing, or above its folder."""
    weights_outside(made)
    for put in USED:
        for name, entries in (("", {}), ("_far", {"offset": 4})):
            write(made, put, external("half", "leak.data", **entries)).rename(
                made / f"{put.__name__}{name}.onnx"
            )
    for name, (location, _) in OUTSIDE.items():
        write(made, initializer, external("half", location)).rename(made / f"{name}.onnx")
    names = ["leak", *OUTSIDE, *(f"{put.__name__}{end}" for put in USED for end in ("", "_far"))]
    return [(f"/made/{name}.onnx", "--feed", "/made/feed.safetensors") for name in names]


@pytest.mark.parametrize("words", TRACES, ids=" ".join)
def test_agrees_with_the_trace_however_it_is_cut(
    words: tuple[str, ...], said: dict[tuple[str, ...], Said]
) -> None:
    found = said[words]
    whole = read_contract(read_model(GOLDEN / words[0])).whole_only is not None
    calls = 1 if whole else {"1": 12, "0": 1, "3,1,0": 3, "5,2": 3}[words[3]]
    expected = {"agrees": True, "steps": 12, "calls": calls, "failure": None}
    assert {name: value for name, value in found.value.items() if name != "max_error"} == expected
    assert found.code == 0
    assert 0 <= found.value["max_error"] < 1e-2


@pytest.mark.parametrize("error", ERRORS, ids=[entry["name"] for entry in ERRORS])
def test_says_the_same_about_a_fault(error: dict[str, Any], said: dict[tuple[str, ...], Said]) -> None:
    found = said[tuple(error["arguments"])]
    assert (found.code, found.value["error"]["code"]) == (2, error["code"])
    assert error["text"] in (None, found.value["error"]["text"])


def test_makes_the_same_texts_and_draws(said: dict[tuple[str, ...], Said]) -> None:
    for entry in TEXTS:
        assert said[text_words(entry)].value == {"text": entry["text"]}
    for entry in DRAWS:
        assert said[draw_words(entry)].value == {"draws": entry["draws"]}


def test_says_where_a_trace_is_off(made: Path, said: dict[tuple[str, ...], Said]) -> None:
    found = said["gru.onnx", "/made/gru.trace.safetensors", "--chunks", "5,2"]
    failure = found.value["failure"]
    assert (failure["tensor"], failure["step"], failure["index"]) == ("output.y", 7, [1, 3])
    assert found.code == 1


@pytest.mark.parametrize("model", SNAPSHOTS)
def test_snapshots_go_to_and_fro(model: str, made: Path, said: dict[tuple[str, ...], Said]) -> None:
    assert said[f"{model}.onnx", "--restore", f"/made/{model}"].value == {"position": 5}
    assert run("python", f"{model}.onnx", "--restore", made / f"{model}.web").value == {"position": 5}
    ours, theirs = ((made / name).read_bytes() for name in (model, f"{model}.web"))
    head = 8 + int.from_bytes(ours[:8], "little")
    assert theirs[:head] == ours[:head]
    (left, _), (right, _) = (decode_tensors(data, what="a snapshot") for data in (ours, theirs))
    for name, value in left.items():
        np.testing.assert_allclose(right[name], value, rtol=1e-5, atol=1e-5)


def test_weights_are_taken_from_the_folder_of_the_model_alone(said: dict[tuple[str, ...], Said]) -> None:
    feed = ("--feed", "/made/feed.safetensors")
    assert said["/made/leak.onnx", *feed].value == {"outputs": {"y": [2]}}
    for name, (location, code) in OUTSIDE.items():
        error = said[f"/made/{name}.onnx", *feed].value["error"]
        assert error["code"] == code, name
        assert f"'{location}'" in error["text"]
    for put in USED:
        found = said[f"/made/{put.__name__}.onnx", *feed].value
        if put.__name__ in UNREAD:
            assert found["error"]["code"] == "engine-refused"
        else:
            assert found == {"outputs": {"y": [2]}}
        error = said[f"/made/{put.__name__}_far.onnx", *feed].value["error"]
        assert error["code"] == "external-data-refused"
