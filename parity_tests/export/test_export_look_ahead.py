"""What needs later steps says how far it looks, at which call that begins, and in which output it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rnnx
from rnnx.errors import RefusedError
from rnnx_export.diagnostics import Because, Reason
from rnnx_export.refusals import advice

X = {"x": "float32[batch, time, 5]"}


class Ahead(nn.Module):
    """Causal at first; the second filter looks one step ahead; the first output knows nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 5, batch_first=True)
        self.ahead = nn.Conv1d(5, 5, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        early, _ = self.rnn(x)
        late = self.ahead(early.transpose(1, 2))  # here
        return early, torch.tanh(late).transpose(1, 2)


class Shares(nn.Module):
    """What each step has of the whole."""

    def forward(self, x: Tensor) -> Tensor:
        shares = x / (1 + torch.linalg.vector_norm(x, dim=1, keepdim=True))  # here
        return torch.sigmoid(shares)


class Groups(nn.Module):
    """It takes three steps at once."""

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(x.shape[0], -1, 3, 5)
        return groups.mean(2).repeat_interleave(3, 1)


class Listed(nn.Module):
    """A loop over lags that its own results reach into: no step of it is like another."""

    def forward(self, x: Tensor) -> Tensor:
        rows = [x[:, step] * (step * step + 1) ** 0.5 for step in range(int(x.shape[1]))]  # here
        return torch.stack(rows, 1).cumsum(1) / len(rows)


def line(kind: type[nn.Module]) -> str:
    """Return "file.py:12" of the line in a class that a remark marks."""
    lines = Path(__file__).read_text().splitlines()
    begins = lines.index(f"class {kind.__name__}(nn.Module):")
    marked = next(number for number in range(begins, len(lines)) if lines[number].endswith("# here"))
    return f"{Path(__file__).name}:{marked + 1}"


def whole_only(module: nn.Module, tmp_path: Path) -> str | None:
    torch.manual_seed(0)
    return rnnx.export(module, tmp_path / "m.onnx", inputs=X).contract.whole_only


def test_the_call_that_looks_ahead_is_named_and_the_output(tmp_path: Path) -> None:
    said = whole_only(Ahead(), tmp_path)
    assert said == f"looks 1 step ahead: conv1d ({line(Ahead)}), seen in 'y.1'"


def test_what_needs_everything_is_named_too(tmp_path: Path) -> None:
    said = whole_only(Shares(), tmp_path)
    needs = "needs the whole sequence: its first step depends on the last"
    assert said == f"{needs}: div ({line(Shares)}), seen in 'y'"


def test_a_size_that_is_made_a_number_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        rnnx.export(Listed(), tmp_path / "m.onnx", inputs=X)
    assert "time of 'x' was frozen" in caught.value.found
    assert f"at {line(Listed)}: `rows = [" in caught.value.found


def test_what_takes_several_steps_at_once_is_stepped_where_a_step_holds_them(tmp_path: Path) -> None:
    assert "float32[batch, 3*time, 8]" in advice([Because("does not run", Reason.SINGLE_STEP)])
    made = rnnx.export(Groups(), tmp_path / "m.onnx", inputs={"x": "float32[batch, 3*time, 5]"})
    assert made.contract.whole_only is None


def test_the_lines_of_one_capture_are_not_those_of_the_next() -> None:
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    from rnnx_export.capture.program import _lines_that_freeze

    before = ShapeEnv._set_replacement
    with _lines_that_freeze() as lines:
        assert ShapeEnv._set_replacement is not before
    assert ShapeEnv._set_replacement is before
    assert lines == {}
