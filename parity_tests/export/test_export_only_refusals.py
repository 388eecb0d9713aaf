"""No exception but rnnx's own leaves `rnnx.export`, whatever the module does, and the process goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from rnnx.errors import RefusedError, RnnxError
from rnnx_export import api, pipeline

X = {"x": "float32[batch, time, 6]"}
STEP = {"x": "float32[batch, 6]"}


class OddError(Exception):
    """Of the user's own."""


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        return y


def refused(module: Any, path: Path, **given: Any) -> RnnxError:
    with pytest.raises(RnnxError) as refusal:
        rnnx.export(module, path / "m.onnx", **{"inputs": X, **given})
    assert not list(path.iterdir())
    return refusal.value


@pytest.mark.parametrize("stage", range(len(pipeline.STAGES)))
def test_what_a_stage_raises_is_a_refusal(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(attempt: Any) -> Any:
        raise OddError("it broke")

    stages = list(pipeline.STAGES)
    stages[stage] = raising
    monkeypatch.setattr(pipeline, "STAGES", tuple(stages))
    assert "OddError: it broke" in refused(Layer(), tmp_path).found


@pytest.mark.parametrize("name", ["Subject", "discover", "made_to_step", "run"])
def test_what_is_raised_before_and_after_them_is_one_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: Any, **__: Any) -> Any:
        raise OddError("it broke")

    monkeypatch.setattr(api, name, raising)
    error = refused(Layer(), tmp_path)
    assert error.code == "not-exported"
    assert "OddError: it broke" in error.found


class Raises(Layer):
    """Raises in the call of that number, over all copies of the module."""

    calls = 0

    def __init__(self, at: int, error: type[Exception]) -> None:
        super().__init__()
        self.at, self.error = at, error
        Raises.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Raises.calls += 1
        if Raises.calls == self.at:
            raise self.error("in forward")
        return super().forward(x)


@pytest.mark.parametrize(
    ("at", "error"),
    [(1, OddError), (2, TypeError), (5, KeyError), (9, RecursionError), (13, TypeError), (40, OddError)],
)
def test_a_module_that_raises_in_some_call(at: int, error: type[Exception], tmp_path: Path) -> None:
    try:
        rnnx.export(Raises(at, error), tmp_path / "m.onnx", inputs=X)
    except RnnxError:
        assert not list(tmp_path.iterdir())


class StartOfAnotherBatch(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(6, 8, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.layer, nn.LSTM):
            y, (h, _) = self.layer(x, (h, h))
        else:
            y, h = self.layer(x, h)
        return y, h


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_start_of_another_batch_is_refused_as_pytorch_does(kind: str, tmp_path: Path) -> None:
    error = refused(StartOfAnotherBatch(kind), tmp_path, state={"h": "float32[1, 3, 8]"})
    assert error.code == "forward-failed"
    assert "Expected hidden" in error.found


class Named(Layer):
    def forward(self, x: Tensor) -> Tensor:
        """The check of a layer's arguments, called as it may be: by name."""
        h = x.new_zeros(1, x.shape[0], 8)
        self.lstm.check_forward_args(input=x, hidden=(h, h), batch_sizes=None)
        y: Tensor = self.lstm(x, (h, h))[0]
        return y


def test_the_check_of_a_layer_takes_its_arguments_by_name(tmp_path: Path) -> None:
    made = rnnx.export(Named().eval(), tmp_path / "m.onnx", inputs=X)
    assert [state.name for state in made.contract.states] == ["lstm.h", "lstm.c"]


class Mapped(nn.Module):
    """A running sum under vmap, whose level a cut graph leaves open."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda row: torch.cumsum(row, 0))(x)


def test_a_map_over_the_batch_is_exported_and_leaves_no_level_behind(tmp_path: Path) -> None:
    session = rnnx.load(rnnx.export(Mapped(), tmp_path / "m.onnx", inputs=X).path)
    assert torch._C._functorch.maybe_current_level() is None
    x = np.random.default_rng(0).standard_normal((2, 9, 6)).astype(np.float32)
    with session.stream(batch=2) as stream:
        got = np.concatenate([stream.run(x[:, :4])["y"], stream.run(x[:, 4:])["y"]], 1)
    np.testing.assert_allclose(got, np.cumsum(x, 1), atol=1e-5)


class RidesAlong(Layer):
    """A state dict with an entry that is no tensor."""

    def get_extra_state(self) -> Any:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


class FromDefault(nn.Module):
    """A state that begins as an empty tensor, which stands for "not started yet"."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Linear(6, 8)

    def forward(self, x: Tensor, level: Tensor = torch.zeros(0)) -> tuple[Tensor, Tensor]:  # noqa: B008
        now = self.w(x)
        level = 0.9 * (torch.zeros_like(now) if level.numel() == 0 else level) + now
        return level.tanh(), level


def test_what_merely_rides_along_is_no_obstacle(tmp_path: Path) -> None:
    rnnx.export(RidesAlong().eval(), tmp_path / "m.onnx", inputs=X)


def test_a_state_begins_as_its_parameters_default(tmp_path: Path) -> None:
    module = FromDefault().eval()
    session = rnnx.load(rnnx.export(module, tmp_path / "m.onnx", inputs=STEP, state={"level": None}).path)
    (state,) = session.contract.states
    assert (state.name, state.shape, state.initial) == ("level", ["batch", 8], 0.0)
    x = np.random.default_rng(0).standard_normal((5, 3, 6)).astype(np.float32)
    level = torch.zeros(0)
    with session.stream(batch=3) as stream, torch.no_grad():
        for row in x:
            y, level = module(torch.from_numpy(row), level)
            np.testing.assert_allclose(stream.step(row)["y"], y.numpy(), atol=2e-5)


class Only32(Layer):
    """Takes one precision, and says so in a way of its own."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise self.error("float32 only")
        return super().forward(x)


@pytest.mark.parametrize("error", [AssertionError, ValueError, OddError])
def test_a_module_that_refuses_float64_is_held_to_float32(error: type[Exception], tmp_path: Path) -> None:
    made = rnnx.export(Only32(error).eval(), tmp_path / "m.onnx", inputs=X)
    assert any("does not run in float64" in note for note in made.notes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("which", [nn.LSTM, nn.Linear])
def test_a_quantised_module_is_refused_with_what_to_do_instead(
    which: type[nn.Module], tmp_path: Path
) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.layer(x)[0])

    made = torch.ao.quantization.quantize_dynamic(Network().eval(), {which}, dtype=torch.qint8)
    with pytest.raises(RefusedError, match="quantised") as refusal:
        rnnx.export(made, tmp_path / "m.onnx", inputs={"x": "float32[batch, time, 6]"})
    assert refusal.value.code == "not-exported"
    assert "before it was quantised" in refusal.value.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", [torch.jit.script, lambda layer: torch.jit.trace(layer, torch.zeros(1, 6))])
def test_torchscript_is_refused_by_its_name_before_it_is_asked_for_parameters(
    made: Any, tmp_path: Path
) -> None:
    error = refused(made(nn.Linear(6, 6)), tmp_path, inputs={"input": "float32[batch, 6]"})
    assert (error.code, error.found) == ("not-exported", "the module is TorchScript")
    assert error.expected.startswith("Linear to be Python")


class Held(Layer):
    """Holds what nothing copies."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class NothingReturned(Layer):
    """A mode of its own, which gives nothing back; its parameters are found in a way of their own."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)

    def parameters(self) -> Any:  # type: ignore[override]
        return super().parameters()


def test_what_cannot_be_copied_is_told(tmp_path: Path) -> None:
    error = refused(Held(), tmp_path)
    assert error.expected.startswith("Held to be copied")
    assert "cannot pickle" in error.found
    assert "a lock" in error.fix


def test_methods_of_the_authors_own_may_return_what_they_like(tmp_path: Path) -> None:
    made = rnnx.export(NothingReturned(), tmp_path / "m.onnx", inputs=X)
    assert [state.name for state in made.contract.states] == ["lstm.h", "lstm.c"]


class MappedStart(nn.Module):
    """A recurrent layer's start within a map over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda row: torch.cat([torch.zeros(2, 6), row])[1:-1] + row)(x)


def test_what_begins_in_a_map_over_the_batch_is_looked_at_by_nobody_else(tmp_path: Path) -> None:
    assert "batch of 'x' was frozen" in refused(MappedStart(), tmp_path).found
