"""One argument that holds inputs and states: states are called by their paths, and go back where they lie."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from rnnx.errors import UsageError
from rnnx.testing import assert_parity

WIDTH = 6
ROWS = f"float32[batch, {WIDTH}]"
PAIR = {"h": ROWS, "c": ROWS}


class Policy(nn.Module):
    """An LSTM over `batch["obs"]` from `batch["state_in"]`.

    Args:
        where: the state comes back in the result ("result"), is put over the old one in the argument
            ("argument"), or changed in place ("in place").
    """

    def __init__(self, where: str = "result") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.where = where
        self.layer, self.head = nn.LSTM(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, 2)

    def forward(self, batch: Any) -> Any:
        given = batch["state_in"]
        y, (h, c) = self.layer(batch["obs"], (given["h"][None], given["c"][None]))
        after = {"h": h[0], "c": c[0]}
        if self.where == "result":
            return {"actions": self.head(y), "state_out": after}
        if self.where == "argument":
            batch["state_in"] = after
        else:
            given["h"].copy_(h[0])
            given["c"].copy_(c[0])
        return self.head(y)


def drive(module: nn.Module, where: str, x: Tensor) -> Tensor:
    """Call the module step by step as its author would; x [step, batch, feature] -> [step, batch, action]."""
    module, states, rows = copy.deepcopy(module), {name: torch.zeros(x.shape[1:]) for name in PAIR}, []
    with torch.no_grad():
        for row in x:
            batch = {"obs": row[:, None], "state_in": states}
            result = module(batch)
            states = result["state_out"] if where == "result" else batch["state_in"]
            rows.append((result["actions"] if where == "result" else result)[:, 0])
    return torch.stack(rows)


def stepped(path: Path, x: Tensor) -> np.ndarray:
    with rnnx.load(path).stream(batch=x.shape[1]) as stream:
        return np.stack([next(iter(stream.step(row.numpy()).values())) for row in x])


@pytest.mark.parametrize(
    "state", [{"batch": {"state_in": PAIR}}, {"batch.state_in": PAIR}], ids=["dict", "path"]
)
@pytest.mark.parametrize("where", ["result", "argument", "in place"])
def test_a_state_beside_inputs_in_one_dict(where: str, state: dict[str, Any], tmp_path: Path) -> None:
    module = Policy(where).eval()
    inputs = {"batch": {"obs": f"float32[batch, time, {WIDTH}]"}}
    made = rnnx.export(module, tmp_path / "m.onnx", inputs=inputs, state=state)
    assert [spec.name for spec in made.contract.states] == ["batch.state_in.h", "batch.state_in.c"]
    assert [spec.name for spec in made.contract.inputs] == ["batch.obs"]
    x = torch.randn(20, 3, WIDTH)
    np.testing.assert_allclose(stepped(made.path, x), drive(module, where, x), rtol=0, atol=2e-6)
    assert_parity(made.path, module)  # whose specs are those of the contract


class Remembering(nn.Module):
    """Begins by itself where the container has None, and puts what it remembers there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def forward(self, obs: dict[str, Any], gain: Tensor) -> Tensor:
        memory = obs["memory"]
        if memory is None:
            memory = torch.full((obs["image"].shape[0], WIDTH), 0.5)
        obs["memory"] = self.cell(obs["image"], memory)
        return obs["memory"].tanh() * gain


def test_a_state_that_begins_as_none_in_a_container(tmp_path: Path) -> None:
    module = Remembering().eval()
    inputs = {"obs": {"image": ROWS}, "gain": "float32[batch, 1]"}
    made = rnnx.export(module, tmp_path / "m.onnx", inputs=inputs, state={"obs.memory": None})
    (state,) = made.contract.states
    assert (state.name, state.initial) == ("obs.memory", 0.5)
    obs: dict[str, Any] = {"memory": None}
    with rnnx.load(made.path).stream(batch=2) as stream, torch.no_grad():
        for _ in range(10):
            image, gain = torch.randn(2, WIDTH), torch.randn(2, 1)
            got = stream.step({"obs.image": image.numpy(), "gain": gain.numpy()})["y"]
            obs["image"] = image
            np.testing.assert_allclose(got, module(obs, gain), rtol=0, atol=2e-6)


@dataclasses.dataclass
class Frame:
    audio: Any
    context: Any


class OverFrames(nn.Module):
    """Keeps the frame before in a dataclass of the user's own."""

    def forward(self, frame: Frame) -> tuple[Tensor, Tensor]:
        return torch.cat([frame.context, frame.audio], 1).cumsum(1)[:, -WIDTH:], frame.audio


def test_a_state_in_a_dataclass_of_inputs(tmp_path: Path) -> None:
    made = rnnx.export(
        OverFrames(),
        tmp_path / "m.onnx",
        inputs={"frame": Frame(ROWS, None)},
        state={"frame.context": ROWS},
        returns=("y", "frame.context"),
    )
    assert [spec.name for spec in made.contract.states] == ["frame.context"]
    x, before = torch.randn(8, 2, WIDTH), torch.zeros(2, WIDTH)
    for row, got in zip(x, stepped(made.path, x), strict=True):
        np.testing.assert_allclose(got, OverFrames()(Frame(row, before))[0], rtol=0, atol=2e-6)
        before = row


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"nothing.h": ROWS}, "unknown-parameter"),
        ({"batch": {"obs": ROWS}}, "parameter-given-twice"),
        ({"batch": ROWS}, "parameter-given-twice"),
    ],
)
def test_what_makes_no_sense_has_its_code(state: dict[str, Any], code: str, tmp_path: Path) -> None:
    call: Callable[[], Any] = lambda: rnnx.export(  # noqa: E731
        Policy(), tmp_path / "m.onnx", inputs={"batch": {"obs": ROWS}}, state=state
    )
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.code == code
