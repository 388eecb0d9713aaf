"""Symbols are looked up: a one-hot or embedded input costs a row and no product, with the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import rnnx
from rnnx_models.checkpoint import Checkpoint, export_arguments
from rnnx_models.networks import CharNetwork, NetworkConfig
from rnnx_native.quantisation_cost import measure_cost
from support.native_folders import write

SYMBOLS = tuple("abcdefghijklmnopqrstuvwxyz .,!?'\n")


def network(folder: Path, cell: str, encoding: str, layers: int = 1) -> Path:
    config = NetworkConfig(cell, len(SYMBOLS), 24, layers, encoding=encoding, embedding_size=10)
    torch.manual_seed(0)
    checkpoint = Checkpoint(config, SYMBOLS, CharNetwork(config).eval(), None)
    path = folder / f"{cell}.onnx"
    rnnx.export(checkpoint.module, path, **export_arguments(checkpoint))
    return path


@pytest.mark.parametrize("encoding", ["one-hot", "embedding"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "gates", "concat", "elman"])
def test_agrees_with_the_cpu(cell: str, encoding: str, tmp_path: Path) -> None:
    path = network(tmp_path, cell, encoding, layers=2)
    native, cpu = rnnx.load(path, "native", options={"chunk": 4}), rnnx.load(path)
    tokens = np.random.default_rng(0).integers(0, len(SYMBOLS), (20, 60))
    for batch in (1, 3, 20):
        one, other = native.stream(batch=batch), cpu.stream(batch=batch)
        for begin, end in ((0, 1), (1, 30), (30, 60)):
            part = tokens[:batch, begin:end]
            got, want = one.run(part), other.run(part)
            for name, value in want.items():
                np.testing.assert_allclose(got[name], value, 2e-5, 2e-5)


@pytest.mark.parametrize("encoding", ["one-hot", "embedding"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_input_costs_no_product(cell: str, encoding: str, tmp_path: Path) -> None:
    made = write(network(tmp_path, cell, encoding), tmp_path / "c", name="poet")
    text = (made.folder / "poet.c").read_text()
    step = text[text.index("static void poet_rows_1_steps_1(") :]
    step = step[: step.index("\n}\n")]
    assert "token_rows + rnnx_row(" in step
    assert step.count("->") - step.count("kernels->") >= 3
    assert step.count("kernels->") == 2, "the cell and the readout, and nothing else"
    assert "input_tiles" not in text


@pytest.mark.parametrize("cell", ["gates", "concat", "elman"])
def test_tokens_beside_other_inputs_cost_no_product(cell: str, tmp_path: Path) -> None:
    made = write(network(tmp_path, cell, "one-hot"), tmp_path / "c", name="poet", chunk=4)
    text = (made.folder / "poet.c").read_text()
    for steps in (1, 4):
        body = text[text.index(f"static void poet_rows_1_steps_{steps}(") :]
        body = body[: body.index("\n}\n")]
        products = re.findall(r"dense_f32\(.*, (\d+), \d+, \d+\);", body)
        assert set(products) == {"24"}, "columns of the hidden state, and none of symbols"
        assert "rnnx_row(" in body


class OneHot(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(6, 8, batch_first=True)
        self.out = torch.nn.Linear(6, 4)

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        code = (token[..., None] == torch.arange(6)).float()
        return torch.cat([self.rnn(code)[0], self.out(code)], -1)


@pytest.mark.parametrize("batch", [1, 12])
def test_what_is_no_token_has_no_row(batch: int, tmp_path: Path) -> None:
    """Nothing bounds these ids, so that none is refused; the one-hot code of one that is missing is zeros."""
    torch.manual_seed(0)
    made = rnnx.export(OneHot(), tmp_path / "m.onnx", inputs={"token": "int64[batch, time]"})
    tokens = np.resize(np.array([0, -1, 5, 6, 2**40, -(2**40), 3]), (batch, 21))
    got, want = (rnnx.load(made.path, name).stream(batch=batch).run(tokens) for name in ("native", "cpu"))
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, 2e-5, 2e-5)


def test_text_is_the_same_as_on_the_cpu(tmp_path: Path) -> None:
    path = network(tmp_path, "lstm", "one-hot")
    texts = set()
    for provider in ("cpu", "native"):
        stream, token, text = rnnx.load(path, provider).stream(), 0, []
        for _ in range(200):
            scores = next(iter(stream.step(np.array([token])).values()))
            token = int((scores[0] + np.sin(np.arange(len(SYMBOLS)) * len(text))).argmax())
            text.append(SYMBOLS[token])
        texts.add("".join(text))
    assert len(texts) == 1


def test_what_half_floats_cost_is_told_in_nats(tmp_path: Path) -> None:
    cost = measure_cost(network(tmp_path, "gru", "one-hot"), "f16", steps=100)
    assert cost.nats is not None
    assert 0 < cost.nats < 1e-4
    assert "nats a symbol" in str(cost)
    assert cost.is_allowed
