"""Compiled C that stores weights in fewer bits computes with what it stores, as sharply as rounding lets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rnnx
from rnnx.tolerance import level_of
from support.stored_weights import StoredLayer, compare_stored

FEATURES, UNITS, STEPS = 5, 40, 64
ALLOWED = level_of("float32", "native").rounding
LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Network(nn.Module):
    """A recurrent layer and a readout."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = LAYERS[kind](FEATURES, UNITS, batch_first=True)
        self.out = nn.Linear(UNITS, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(x)[0])


@pytest.fixture(scope="module", params=LAYERS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Path]:
    made, path = Network(request.param).eval(), tmp_path_factory.mktemp("stored") / "model.onnx"
    rnnx.export(made, path, inputs={"x": f"float32[batch, time, {FEATURES}]"})
    return made, path


def ratios(network: Network, path: Path, weights: str, batch: int) -> dict[str, float]:
    x = np.random.default_rng(batch).standard_normal((STEPS, batch, FEATURES)).astype(np.float32)
    session = rnnx.load(path, "native", options={"weights": weights})
    return compare_stored(session, network.layer, network.out, x)


@pytest.mark.parametrize("weights", ["f16", "int8"])
def test_it_computes_with_the_weights_that_it_stores(network: tuple[Network, Path], weights: str) -> None:
    for batch in (1, 3):  # a row alone has kernels of its own
        found = ratios(*network, weights, batch)
        assert max(found.values()) <= ALLOWED, found


@pytest.mark.parametrize("weights", ["f16", "int8"])
def test_one_weight_that_is_stored_otherwise_is_seen(
    network: tuple[Network, Path], weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(self: StoredLayer, *given: object) -> None:
        begin(self, *given)
        place = divmod(int(self._wh.abs().argmax()), UNITS)
        self._wh[place] *= 1 + (1 / 1024 if weights == "f16" else 1 / 127)  # the next that there is

    begin = StoredLayer.__init__
    monkeypatch.setattr(StoredLayer, "__init__", spoiled)
    assert max(ratios(*network, weights, 3).values()) > ALLOWED
