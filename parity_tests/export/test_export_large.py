"""Weights too large for one file, and other operator sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rnnx
from rnnx.errors import ModelError
from rnnx.model.onnx_file import read_model
from rnnx_export.graph import external_weights

X = {"x": "float32[batch, time, 6]"}


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


def test_large_weights_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = Tagger().eval()
    inside = rnnx.export(module, tmp_path / "small.onnx", inputs=X)
    assert not (tmp_path / "small.onnx.data").exists()
    monkeypatch.setattr(external_weights, "WEIGHTS_LIMIT", 1000)
    made = rnnx.export(module, tmp_path / "large.onnx", inputs=X)
    assert (tmp_path / "large.onnx.data").stat().st_size > 5000 > (tmp_path / "large.onnx").stat().st_size / 2
    assert read_model(made.path).external
    session = rnnx.load(made.path)
    assert session.id == made.contract.id != inside.contract.id
    x = np.random.default_rng(0).normal(size=(2, 9, 6)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.stream(batch=2).run(x)["y"], expected, rtol=2e-5, atol=2e-5)
    weights = bytearray((tmp_path / "large.onnx.data").read_bytes())
    weights[100] ^= 1
    (tmp_path / "large.onnx.data").write_bytes(weights)
    assert read_model(made.path).id != made.contract.id
    (tmp_path / "large.onnx.data").unlink()
    with pytest.raises(ModelError) as missing:
        rnnx.load(made.path)
    assert missing.value.code == "external-data-missing"


@pytest.mark.parametrize("opset", [18, 21])
def test_operator_set_can_be_chosen(opset: int, tmp_path: Path) -> None:
    made = rnnx.export(Tagger(), tmp_path / "model.onnx", inputs=X, opset=opset)
    found = read_model(made.path)
    assert found.opsets == {"": opset}
    assert found.ir_version == 10
    assert rnnx.load(made.path).stream().step(np.zeros((1, 6), np.float32))["y"].shape == (1, 3)
