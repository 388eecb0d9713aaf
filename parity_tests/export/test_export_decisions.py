"""Decisions on a tensor's value: the file gives what the module gives, on inputs that take either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from rnnx.errors import RefusedError
from rnnx_export.states import branches

Spec = dict[str, Any]
STEP = {"x": "float32[batch, 6]"}
H = {"h": "float32[batch, 8]"}


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out = nn.GRUCell(6, 8), nn.Linear(8, 3)


class OneSideIsGeneral(Cell):
    """A shortcut: what it skips would change nothing."""

    def forward(self, x: Tensor, mask: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        if mask.any():
            h = h * (~mask).to(h.dtype)[:, None]
        h = self.cell(x, h)
        return self.out(h), h


class BothSidesMatter(Cell):
    """Begins otherwise than it goes on (a stabiliser that is not there yet)."""

    def forward(self, x: Tensor, mask: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        grown = self.cell(x, h)
        if torch.all(h == 0.0):
            return self.out(h), grown + 1
        return self.out(h), torch.maximum(grown, 0.5 * h)


class Nested(Cell):
    """A decision that only one side of another meets."""

    def forward(self, x: Tensor, mask: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        if x.sum() > 0:
            if mask.all():
                return self.out(h) + 1, h * 0.5
            return self.out(h), h * 0.9
        return self.out(h) - 1, h


class Checks(Cell):
    """Asserts and raises, which are comments, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("doubled", torch.tensor(True))

    def forward(self, x: Tensor, mask: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        assert torch.isfinite(x).all(), "not finite"
        if self.doubled:
            x = 2 * x
        h = self.cell(x, h)
        if torch.isnan(h).any():
            raise ValueError("not a number")
        return self.out(h) * (~mask).to(h.dtype)[:, None], h


GIVEN = {"inputs": {**STEP, "mask": "bool[batch]"}, "state": H}
KINDS = [OneSideIsGeneral, BothSidesMatter, Nested, Checks]


def rows(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return inputs and masks of 12 steps: rows of zeros, masks that are all alike and that are not."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((12, 3, 6)).astype(np.float32) * random.choice([0, 1, 1], (12, 1, 1))
    mask = random.random((12, 3)) < random.choice([0, 0.5, 1], (12, 1))
    return x.astype(np.float32), mask


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_gives_what_the_module_gives_on_either_side(kind: type[Cell], tmp_path: Path) -> None:
    module = kind().eval()
    session = rnnx.load(rnnx.export(module, tmp_path / "m.onnx", **GIVEN).path)
    for seed in range(3):
        x, mask = rows(seed)
        h = torch.zeros(3, 8)
        with session.stream(batch=3) as stream, torch.no_grad():
            for step in range(12):
                y, h = module(torch.from_numpy(x[step]), torch.from_numpy(mask[step]), h)
                got = stream.step({"x": x[step], "mask": mask[step]})["y"]
                np.testing.assert_allclose(got, y.numpy(), atol=2e-5, err_msg=f"seed {seed}, step {step}")
            np.testing.assert_allclose(stream.state["h"], h.numpy(), atol=2e-5)


def test_the_notes_say_which_side_was_taken_and_how_often_the_other_was_seen(tmp_path: Path) -> None:
    one = rnnx.export(OneSideIsGeneral().eval(), tmp_path / "a.onnx", **GIVEN).notes
    assert any("`if mask.any():` is True in the file: was False " in note for note in one), one
    both = rnnx.export(BothSidesMatter().eval(), tmp_path / "b.onnx", **GIVEN).notes
    assert any("the file computes both sides and chooses" in note for note in both), both
    checks = rnnx.export(Checks().eval(), tmp_path / "c.onnx", **GIVEN).notes
    assert not any("in the file" in note for note in checks), checks


class InALoop(nn.Module):
    """The general side of a shortcut runs over time (a recurrent policy with episode starts)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: Tensor, starts: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if torch.all(starts == 0.0):
            y, (h, c) = self.lstm(x, (h, c))
            return y, h, c
        ys = []
        for step in range(x.shape[1]):
            kept = (1.0 - starts[:, step])[None, :, None]
            y, (h, c) = self.lstm(x[:, step : step + 1], (h * kept, c * kept))
            ys.append(y)
        return torch.cat(ys, 1), h, c


def test_a_shortcut_around_a_loop_over_time(tmp_path: Path) -> None:
    module = InALoop().eval()
    inputs = {"x": "float32[batch, time, 6]", "starts": "float32[batch, time]"}
    state = {"h": "float32[1, batch, 8]", "c": "float32[1, batch, 8]"}
    session = rnnx.load(rnnx.export(module, tmp_path / "m.onnx", inputs=inputs, state=state).path)
    assert session.contract.whole_only is None
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 20, 6)).astype(np.float32)
    for share in (0.0, 0.3, 1.0):
        starts = (random.random((2, 20)) < share).astype(np.float32)
        with torch.no_grad():
            y, h, _ = module(*map(torch.from_numpy, (x, starts)), torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))
        with session.stream(batch=2) as stream:
            got = [stream.run({"x": x[:, a:b], "starts": starts[:, a:b]})["y"] for a, b in ((0, 7), (7, 20))]
            np.testing.assert_allclose(np.concatenate(got, 1), y.numpy(), atol=2e-5)
            np.testing.assert_allclose(stream.state["h"], h.numpy(), atol=2e-5)


class Each(nn.Module):
    """A decision in every turn of a loop, of which both sides matter: no graph holds that."""

    def forward(self, x: Tensor) -> Tensor:
        level = torch.zeros(())
        ys = []
        for step in range(x.shape[0]):
            level = level * 0.5 + x[step].sum()
            if level > 0:
                level = level - 3.0
            ys.append(level)
        return torch.stack(ys)


def test_what_no_graph_holds_is_refused_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="if level > 0") as refusal:
        rnnx.export(Each(), tmp_path / "m.onnx", inputs={"x": "float32[time, 4]"})
    assert "torch.where" in refusal.value.fix


def test_a_side_that_is_not_right_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the trials believed any side, the proof would refuse it: its inputs decide otherwise too."""
    monkeypatch.setattr(branches._Trials, "same_with", lambda self, sides: True)
    with pytest.raises(RefusedError) as refusal:
        rnnx.export(BothSidesMatter().eval(), tmp_path / "m.onnx", **GIVEN)
    assert refusal.value.code == "not-exported"
