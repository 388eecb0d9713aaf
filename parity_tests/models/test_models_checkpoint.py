"""Checkpoints: what goes in comes out, and whatever is wrong with a file is named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from rnnx.errors import FileError, InputError, ModelError, RnnxError, UsageError
from rnnx.text.sampling import Sampler
from rnnx.text.vocabulary import encode
from rnnx_models.checkpoint import (
    METADATA_KEY,
    Checkpoint,
    TrainingRecord,
    export_arguments,
    load_checkpoint,
    save_checkpoint,
)
from rnnx_models.generation import generate
from rnnx_models.networks import CELLS, CharNetwork, NetworkConfig

SYMBOLS = ("h", "e", "l", "o", "!")
RECORD = TrainingRecord(steps=7, validation_nats=1.25, seed=2**64 - 1, torch="2.15.0", rnnx="0.1.0")


def make(path: Path, cell: str = "lstm", **options: Any) -> CharNetwork:
    torch.manual_seed(0)
    network = CharNetwork(NetworkConfig(cell, 5, 8, **options)).eval()
    save_checkpoint(path, network, SYMBOLS, RECORD)
    return network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "poet.safetensors"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("encoding", ["one-hot", "embedding"])
def test_what_goes_in_comes_out(path: Path, cell: str, encoding: str) -> None:
    network = make(path, cell, encoding=encoding, num_layers=2, dropout=0.5)
    before = torch.random.get_rng_state()
    loaded = load_checkpoint(path)
    assert torch.equal(torch.random.get_rng_state(), before), "loading draws no random numbers"
    assert loaded.config == network.config
    assert loaded.vocabulary == SYMBOLS
    assert loaded.record == RECORD
    assert not loaded.module.training
    token = torch.tensor([[0, 1, 2, 2, 3, 4]])
    assert torch.equal(loaded.module(token)[0], network(token)[0])
    loaded.module.train()(token)[0].sum().backward()  # can be trained on
    assert all(weight.grad is not None for weight in loaded.module.parameters())


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    make(tmp_path / "a.safetensors")
    make(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_headers_that_begin_like_a_pickle_are_read(path: Path) -> None:
    for length in range(
        1, 400
    ):  # a vocabulary's length moves the header's length, the first byte of the file
        symbols = tuple(chr(0x4E00 + index) for index in range(length))
        save_checkpoint(path, CharNetwork(NetworkConfig("elman", length, 1)), symbols)
        if path.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05"):
            assert load_checkpoint(path).vocabulary == symbols
            return
    pytest.fail("no such length")


@pytest.mark.parametrize("batch_first", [True, False])
def test_arguments_for_the_exporter(path: Path, batch_first: bool) -> None:
    make(path, "gates", num_layers=2, batch_first=batch_first)
    axes = "batch, time" if batch_first else "time, batch"
    assert export_arguments(load_checkpoint(path)) == {
        "inputs": {"token": f"int64[{axes}] in 0..4"},
        "state": {"state": {"h": "float32[2, batch, 8]", "c": "float32[2, batch, 8]"}},
        "vocabulary": list(SYMBOLS),
    }


def rewrite(
    path: Path,
    change: Callable[[dict[str, torch.Tensor]], Any] = lambda tensors: None,
    document: Callable[[Any], Any] = lambda document: None,
) -> None:
    """Damage the checkpoint at `path` by changing its tensors or the JSON in its metadata."""
    data = path.read_bytes()
    tensors = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(header["__metadata__"][METADATA_KEY])
    change(tensors)
    document(content)
    path.write_bytes(safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(content)}))


def put(
    name: str, value: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = value(tensors[name])

    return change


def with_value(number: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[1, 2] = number
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (lambda tensors: tensors.pop("readout.bias"), "weights-missing", r"readout\.bias"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "weights-unexpected", "extra"),
        (put("readout.weight", lambda t: t.T.contiguous()), "weights-shape", r"\[5, 8\].*\[8, 5\]"),
        (put("readout.weight", lambda t: t.double()), "weights-dtype", r"float32\[5, 8\].*float64"),
        (put("readout.weight", with_value(float("nan"))), "weights-not-finite", r"nan.*\[1, 2\]"),
        (put("readout.weight", with_value(float("-inf"))), "weights-not-finite", r"-inf.*\[1, 2\]"),
    ],
)
def test_wrong_weights_are_named(path: Path, change: Any, code: str, named: str) -> None:
    make(path)
    rewrite(path, change=change)
    with pytest.raises(ModelError, match=named) as caught:
        load_checkpoint(path)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (lambda content: content.update(version=2), "checkpoint-newer"),
        (lambda content: content.pop("network"), "checkpoint-invalid"),
        (lambda content: content["network"].update(cell="mamba"), "checkpoint-invalid"),
        (lambda content: content["network"].update(hidden_size="8"), "checkpoint-invalid"),
        (lambda content: content["vocabulary"].pop(), "checkpoint-invalid"),
        (lambda content: content.update(vocabulary=["h", "h", "l", "o", "!"]), "checkpoint-invalid"),
        (lambda content: content.update(vocabulary=["he", "e", "l", "o", "!"]), "checkpoint-invalid"),
        (lambda content: content["network"].update(hidden_size=10**6), "weights-shape"),
    ],
)
def test_wrong_metadata_is_named(path: Path, document: Any, code: str) -> None:
    make(path)
    rewrite(path, document=document)
    with pytest.raises(ModelError) as caught:
        load_checkpoint(path)
    assert caught.value.code == code


def save_nothing_of_ours(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)


def cut_short(path: Path) -> None:
    make(path)
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("write", "error", "code"),
    [
        (lambda path: torch.save({"weight": torch.zeros(2)}, path), FileError, "checkpoint-is-pickle"),
        (lambda path: path.write_bytes(pickle.dumps({"weight": 1})), FileError, "checkpoint-is-pickle"),
        (lambda path: path.write_bytes(b""), FileError, "not-safetensors"),
        (lambda path: path.write_text("hello " * 10), FileError, "not-safetensors"),
        (cut_short, FileError, "not-safetensors"),
        (save_nothing_of_ours, ModelError, "not-a-checkpoint"),
        (lambda path: None, FileError, "file-missing"),
        (lambda path: path.mkdir(), FileError, "cannot-read"),
    ],
)
def test_files_that_are_no_checkpoint(path: Path, write: Any, error: type[RnnxError], code: str) -> None:
    write(path)
    with pytest.raises(error, match="poet") as caught:
        load_checkpoint(path)
    assert caught.value.code == code


def text_of(checkpoint: Checkpoint, prompt: str, **options: Any) -> str:
    return "".join(generate(checkpoint.module, checkpoint.vocabulary, prompt, 40, **options))


@pytest.mark.parametrize("batch_first", [True, False])
def test_text_is_decided_by_the_seed(path: Path, batch_first: bool) -> None:
    make(path, batch_first=batch_first)
    checkpoint = load_checkpoint(path)
    text = text_of(checkpoint, "he", seed=1)
    assert len(text) == 40
    assert set(text) <= set(SYMBOLS)
    assert text_of(checkpoint, "he", seed=1) == text
    assert text_of(checkpoint, "he", seed=2) != text
    assert text_of(checkpoint, "he", temperature=0, seed=1) == text_of(
        checkpoint, "he", temperature=0, seed=2
    )


@pytest.mark.parametrize("batch_first", [True, False])
def test_text_is_drawn_step_by_step_from_the_whole_past(path: Path, batch_first: bool) -> None:
    network = make(path, batch_first=batch_first)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 8  # so that what came before decides
    text = "he" + "".join(generate(network, SYMBOLS, "he", 40, seed=3))
    ids = torch.from_numpy(encode(SYMBOLS, text))
    logits, _ = network(ids[None] if batch_first else ids[:, None])
    sampler = Sampler(3)
    scores = logits.reshape(len(text), 5).detach().numpy()
    drawn = [sampler.sample(scores[position]) for position in range(1, len(text) - 1)]
    assert drawn == ids[2:].tolist()


@pytest.mark.parametrize(
    ("prompt", "options", "error", "code"),
    [
        ("", {}, InputError, "prompt-empty"),
        ("hé", {}, InputError, "character-outside-vocabulary"),
        ("he", {"seed": -1}, UsageError, "seed-invalid"),
        ("he", {"temperature": -1.0}, UsageError, "temperature-invalid"),
    ],
)
def test_impossible_prompts(
    path: Path, prompt: str, options: dict[str, Any], error: type[RnnxError], code: str
) -> None:
    make(path)
    checkpoint = load_checkpoint(path)
    with pytest.raises(error) as caught:
        generate(checkpoint.module, checkpoint.vocabulary, prompt, 4, **options)  # at once, not when iterated
    assert caught.value.code == code
