"""A sequence that may not be longer than a mask or a table: found, proved within it, told in the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

import rnnx
from rnnx.errors import RnnxError
from rnnx.testing import assert_parity

X = {"x": "float32[batch, time, 6]"}


class Masked(nn.Module):
    """A causal mask of fixed size."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("mask", torch.tril(torch.ones(size, size)), persistent=False)
        self.query = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        scores = (self.query(x) @ x.transpose(1, 2)).masked_fill(self.mask[:steps, :steps] == 0, -1e9)
        return scores.softmax(-1) @ x


class Positions(nn.Module):
    """A table of positions in front of a recurrent layer, which goes on in a stream."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.gru = nn.Embedding(40, 6), nn.GRU(6, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gru(x + self.table(torch.arange(x.shape[1])))[0]
        return y


@pytest.mark.parametrize(("network", "longest", "streams"), [(Masked, 32, False), (Positions, 40, True)])
def test_it_is_found_and_the_file_is_right_up_to_it(
    network: type[nn.Module], longest: int, streams: bool, tmp_path: Path
) -> None:
    module = network().eval()
    made = rnnx.export(module, tmp_path / "m.onnx", inputs=X)
    assert made.contract.longest == longest
    assert made.contract.proof is not None
    assert made.contract.proof.steps == longest
    assert any(f"at most {longest} steps" in note for note in made.notes)
    assert (made.contract.whole_only is None) == streams
    x = np.random.default_rng(0).standard_normal((2, longest, 6)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    with rnnx.load(made.path).stream(batch=2) as stream:
        np.testing.assert_allclose(stream.run(x)["y"], expected, atol=2e-5)
    assert assert_parity(made.path, module).steps == longest


def test_a_network_without_one_has_none(tmp_path: Path) -> None:
    made = rnnx.export(nn.GRU(6, 8, batch_first=True), tmp_path / "m.onnx", inputs={"input": X["x"]})
    assert made.contract.longest is None


def test_the_caller_may_say_it(tmp_path: Path) -> None:
    assert rnnx.export(Masked(), tmp_path / "m.onnx", inputs=X, longest=20).contract.longest == 20


@pytest.mark.parametrize(("size", "longest", "code"), [(32, 33, "forward-failed"), (32, 0, "bad-longest")])
def test_what_forward_does_not_take_is_refused(size: int, longest: Any, code: str, tmp_path: Path) -> None:
    with pytest.raises(RnnxError) as refusal:
        rnnx.export(Masked(size), tmp_path / "m.onnx", inputs=X, longest=longest)
    assert refusal.value.code == code
    assert not list(tmp_path.iterdir())


def test_one_that_is_shorter_than_a_proof_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(RnnxError, match="16 steps or more") as refusal:
        rnnx.export(Masked(14), tmp_path / "m.onnx", inputs=X)
    assert refusal.value.code == "bad-longest"


def test_inspect_and_export_tell_it(tmp_path: Path, command: Any) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.table = nn.Embedding(30, 6)\n\n"
        "    def forward(self, x):\n        return x + self.table(torch.arange(x.shape[1]))\n"
    )
    spec = ("--inputs", "x=float32[batch, time, 6]", "-o", tmp_path / "m.onnx")
    made: Result = command("export", f"{tmp_path}/net.py:Net", *spec)
    assert made.exit_code == 0, made.output
    assert "at most 30 steps" in made.stderr
    assert "30 steps from the start" in command("inspect", tmp_path / "m.onnx").stdout
    short: Result = command("export", f"{tmp_path}/net.py:Net", *spec, "--longest", 20)
    assert "at most 20 steps" in short.stderr
