"""Known ways to get an export wrong: a step that is right and a stream that is not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from cases.causal import RunningLogSumExp
from cases.memory_arguments import ResetFlag
from cases.memory_attributes import Buffer, Lazy
from conftest import REPOSITORY
from rnnx.errors import RefusedError, RnnxError
from rnnx_export.diagnostics import Reason
from rnnx_export.refusals import engine_says
from support.plain_torch import CASES, build

STEP = {"x": "float32[batch, 6]"}
RANDOM = np.random.default_rng(3)


def rows(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal(shape).astype("f4")


def steps_of(module: nn.Module, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Call a module with memory of its own once for each row of [step, batch, width]."""
    with torch.no_grad():
        return [module(torch.from_numpy(row)).numpy().copy() for row in x]


# Agreeing at step one and drifting after.


@pytest.mark.parametrize("name", ["lstm_2", "layer_norm_lstm", "attribute_lazy", "tcn"])
def test_a_thousand_steps_do_not_drift(name: str, tmp_path: Path) -> None:
    """Stepped against stepped, in PyTorch's own states: long after the 200 steps of the proof."""
    case = CASES[name]
    made = rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments)
    from support.plain_torch import assert_agrees, by_steps, run_plain

    run = run_plain(case, build(case), made.contract, steps=1000, batch=2)
    assert_agrees(made.contract, run, by_steps(rnnx.load(made.path), run), "1000 steps")


# Baking the current state in.


def test_memory_that_was_used_before_is_the_start_and_not_a_constant(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Buffer().eval()
    steps_of(module, rows(5, 1, 6))
    warm = module.h.clone()
    assert warm.abs().max() > 0.1
    made = rnnx.export(module, tmp_path / "model.onnx", inputs=STEP)
    assert torch.equal(module.h, warm)
    session = rnnx.load(made.path)
    x = rows(8, 1, 6)
    stream = session.stream()
    assert np.allclose(stream.state["h"], warm.numpy())
    got = [stream.step({"x": row})["y"] for row in x]
    assert np.allclose(got, steps_of(module, x), atol=1e-5)
    from_zero = session.stream(initial={"h": np.zeros((1, 8), "f4")})
    module.h = torch.zeros(1, 8)
    expected = steps_of(module, x)
    assert np.allclose([from_zero.step({"x": row})["y"] for row in x], expected, atol=1e-5)
    assert not np.allclose(got[0], expected[0], atol=1e-3), "the start does not matter: nothing was tested"


class KeepsDistribution(nn.Module):
    """Keeps its last distribution, as policies do."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 8)
        self.choice: torch.distributions.Normal | None = None

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        self.choice = torch.distributions.Normal(h, 1.0)
        return self.choice.mode, h


def test_a_module_that_keeps_gradients_in_an_object_of_its_own_is_exported(tmp_path: Path) -> None:
    module = KeepsDistribution()
    module(torch.randn(3, 6), torch.zeros(3, 8))
    kept = module.choice
    made = rnnx.export(module, tmp_path / "m.onnx", inputs=STEP, state={"h": "float32[batch, 8]"})
    assert [state.name for state in made.contract.states] == ["h"]
    assert module.choice is kept
    assert kept is not None
    assert not kept.loc.is_leaf


def test_memory_that_was_used_at_some_batch_is_refused_or_reset(tmp_path: Path) -> None:
    """A lazy attribute filled by three rows is the start of no other batch."""
    torch.manual_seed(0)
    module = Lazy().eval()
    steps_of(module, rows(2, 3, 6))
    with pytest.raises(RefusedError) as refusal:
        rnnx.export(module, tmp_path / "model.onnx", inputs=STEP)
    assert "'h'" in str(refusal.value)
    assert not list(tmp_path.iterdir())
    module.h = None
    assert [s.name for s in rnnx.export(module, tmp_path / "model.onnx", inputs=STEP).contract.states] == [
        "h"
    ]


# State outputs without state inputs: see test_export_files.py. An input that happened not to matter.


def test_a_reset_flag_is_not_traced_away(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ResetFlag().eval()
    made = rnnx.export(
        module,
        tmp_path / "model.onnx",
        inputs={**STEP, "start": "float32[batch] in 0..1"},
        state={"h": "float32[batch, 8]"},
        returns=("pi", "v", "h"),
    )
    stream = rnnx.load(made.path).stream(batch=2)
    x, h = rows(20, 2, 6), torch.zeros(2, 8)
    for step, row in enumerate(x):
        flag = np.float32([step % 5 == 0, step % 7 == 6])
        got = stream.step({"x": row, "start": flag})
        with torch.no_grad():
            pi, v, h = module(torch.from_numpy(row), torch.from_numpy(flag), h)
        assert np.allclose(got["pi"], pi, atol=1e-5)
        assert np.allclose(got["v"], v, atol=1e-5)


@pytest.mark.parametrize("spec", ["bool[batch]", "int64[batch]", "float32[batch]", "float32[batch] in 0..1"])
def test_a_flag_of_any_dtype_stays_an_input(spec: str, tmp_path: Path) -> None:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(6, 8)

        def forward(self, x: Any, start: Any, h: Any) -> Any:
            keep = 1 - start.to(x.dtype)
            h = self.cell(x, h * keep[:, None])
            return h.tanh(), h

    torch.manual_seed(0)
    made = rnnx.export(
        Policy(), tmp_path / "model.onnx", inputs={**STEP, "start": spec}, state={"h": "float32[batch, 8]"}
    )
    dtype = spec.partition("[")[0]
    x, warm = rows(1, 6), np.full((1, 8), 0.7, "f4")

    def step(flag: int) -> Any:
        stream = rnnx.load(made.path).stream(initial={"h": warm})
        return stream.step({"x": x, "start": np.array([flag], dtype)})["y"]

    cold = rnnx.load(made.path).stream().step({"x": x, "start": np.array([0], dtype)})["y"]
    assert np.allclose(step(1), cold, atol=1e-6)
    assert not np.allclose(step(0), cold, atol=1e-3)


# Example sizes that equal each other, a fixed dimension, or 1.


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 9, 11])
def test_no_width_is_taken_for_a_batch_or_a_length(width: int, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(width, width, num_layers=2, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.rnn(x)[0] + x

    torch.manual_seed(0)
    module = Net()
    made = rnnx.export(module, tmp_path / "model.onnx", inputs={"x": f"float32[batch, time, {width}]"})
    assert made.contract.inputs[0].shape == ["batch", "time", width]
    assert made.contract.states[0].shape == [2, "batch", width]
    session = rnnx.load(made.path)
    for batch, steps in [(1, 1), (1, width), (width, 1), (width, width), (3, 7), (7, 3)]:
        x = rows(batch, steps, width)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        assert np.allclose(session.stream(batch=batch).run({"x": x})["y"], expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_an_example_tensor_of_any_size_fixes_its_axes_and_no_others(size: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cell = nn.GRUCell(6, 6)
    made = rnnx.export(
        cell,
        tmp_path / "model.onnx",
        inputs={"input": torch.zeros(size, 6)},
        state={"hx": torch.zeros(size, 6)},
    )
    assert made.contract.inputs[0].shape == [size, 6]
    assert made.contract.states[0].shape == [size, 6]


# What was exported before, hash seeds, processes.

PRINTS = """
import hashlib, json, sys, tempfile
from pathlib import Path
import rnnx
from support.plain_torch import CASES, build
prints = {}
with tempfile.TemporaryDirectory() as folder:
    for name in sys.argv[1:]:
        made = rnnx.export(build(CASES[name]), Path(folder, name + ".onnx"), **CASES[name].arguments)
        prints[name] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (made.path, made.trace)]
print(json.dumps(prints))
"""
ALIKE = ["lstm", "gru_between_convolutions", "layer_norm_lstm", "state_nested", "packed_gru", "buffer"]


def prints_of(names: list[str], hash_seed: int) -> Any:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONPATH": str(REPOSITORY / "parity_tests"),
        "OMP_NUM_THREADS": str(1 + hash_seed % 2),
    }
    command = [sys.executable, "-c", PRINTS, *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_same_bytes_in_any_process_and_order() -> None:
    """What came before in the process, the hash seed and the number of threads change nothing."""
    first = prints_of(["tcn", *ALIKE, "lstm"], hash_seed=1)
    second = prints_of(ALIKE[::-1], hash_seed=2)
    assert {name: first[name] for name in ALIKE} == second


def test_the_same_bytes_twice_in_a_process(tmp_path: Path) -> None:
    case = CASES["conv_lstm"]
    prints = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        torch.manual_seed(len(prints))
        torch.rand(3)  # where the generator stands is no part of the module
        made = rnnx.export(build(case), tmp_path / name / "model.onnx", **case.arguments)
        prints.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in (made.path, made.trace)))
    assert len(prints) == 1


def test_a_refused_module_leaves_nothing_behind_for_the_next(tmp_path: Path) -> None:
    case = CASES["loop_unbind"]

    def made() -> bytes:
        return rnnx.export(build(case), tmp_path / "model.onnx", **case.arguments).path.read_bytes()

    before = made()
    for name in ("early_break", "growing_buffer", "two_states_ambiguous"):
        refused = CASES[name]
        with pytest.raises(RnnxError):
            rnnx.export(build(refused), tmp_path / "refused.onnx", **refused.arguments)
    assert made() == before


# Train mode.


def test_a_module_in_train_mode_is_exported_in_eval_mode_and_stays_in_train_mode(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.rnn = nn.BatchNorm1d(6), nn.LSTM(6, 8, 3, dropout=0.5, batch_first=True)
            self.drop = nn.Dropout(0.9)

        def forward(self, x: Any) -> Any:
            return self.drop(self.rnn(self.norm(x.transpose(1, 2)).transpose(1, 2))[0])

    torch.manual_seed(0)
    module = Net().train()
    module.drop.eval()
    made = rnnx.export(module, tmp_path / "model.onnx", inputs={"x": "float32[batch, time, 6]"})
    assert [part.training for part in (module, module.norm, module.rnn, module.drop)] == [
        True,
        True,
        True,
        False,
    ]
    assert int(module.norm.num_batches_tracked) == 0
    x = rows(2, 30, 6)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    session = rnnx.load(made.path)
    assert np.allclose(session.stream(batch=2).run({"x": x})["y"], expected, atol=1e-5)
    assert np.allclose(session.stream(batch=2).run({"x": x})["y"], session.stream(batch=2).run({"x": x})["y"])


def test_a_running_logsumexp_does_not_overflow(tmp_path: Path) -> None:
    """exp(100) is no float32; its logarithm is."""
    module = RunningLogSumExp()
    made = rnnx.export(module, tmp_path / "model.onnx", inputs={"x": "float32[batch, time, 6]"})
    x = np.full((1, 20, 6), 100, np.float32)
    got = rnnx.load(made.path).stream().run(x)["y"]
    np.testing.assert_allclose(got, module(torch.from_numpy(x)).numpy(), rtol=1e-6)


# What the engine says.


def test_what_the_engine_says_at_run_is_put_plainly() -> None:
    said = engine_says(
        "Error in execution: Non-zero status code returned while running Scan node. Name:'Scan' "
        "Status Message: Non-zero status code returned while running Gather node. Name:'step/Gather' "
        "Status Message: indices element out of data bounds, idx=5"
    )
    assert said == "Gather (node 'step/Gather') fails: indices element out of data bounds, idx=5"
    assert engine_says("2 states, 1 expected") == "2 states, 1 expected"
    said = engine_says(
        "Non-zero status code returned while running Concat node. Name:'Concat_5' Status Message: "
        "/src/core/concatbase.h:135 ns::Base::Prepare(Tensor const&, int) dimensions must match"
    )
    assert said == "Concat (node 'Concat_5') fails: dimensions must match"
    assert said.reason is Reason.FROZEN


# What a plan carries by itself, and what beside it.


class LayerBeforeKeptState(nn.Module):
    """The first layer's state is nobody's; the second one's lies in an attribute, in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(6, 6), nn.LSTM(6, 6)
        self.h, self.c = torch.zeros(1, 1, 6), torch.zeros(1, 1, 6)

    def forward(self, x: Tensor) -> Tensor:
        start = [value.expand(1, x.shape[1], 6).contiguous() for value in (self.h, self.c)]
        y, (self.h, self.c) = self.second(self.first(x)[0], (start[0], start[1]))
        return y


class CountBeforeLoop(nn.Module):
    """A count goes on from call to call; within one, positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        steps = self.count + 1 + torch.arange(x.shape[0])
        self.count = self.count + x.shape[0]
        h = torch.zeros_like(x[0])
        ys = []
        for frame in (x * torch.cos(0.25 * steps)[:, None, None]).unbind(0):
            h = 0.9 * h + frame
            ys.append(h)
        return torch.stack(ys)


class LearnedStartWithoutBatch(nn.Module):
    """The start is a parameter as it is, and one of a loop's two values is written through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.level, self.mean = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        level, mean = self.level.expand(6).clone(), self.mean.expand(6).clone()
        ys = []
        for frame in x.unbind(0):
            level = 0.9 * level + frame
            mean.view(-1).copy_(mean + 0.5 * (torch.tanh(level) - mean))
            ys.append(level - mean)
        return torch.stack(ys)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (LayerBeforeKeptState, ("time", "batch", 6)),
        (CountBeforeLoop, ("time", "batch", 6)),
        (LearnedStartWithoutBatch, ("time", 6)),
    ],
)
def test_nothing_is_carried_twice_or_not_at_all(
    kind: type[nn.Module], shape: tuple[str | int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    spec = f"float32[{', '.join(map(str, shape))}]"
    session = rnnx.load(rnnx.export(module, tmp_path / "m.onnx", inputs={"x": spec}).path)
    x = rows(40, *(3 if size == "batch" else 6 for size in shape[1:]))
    with torch.no_grad():
        expected = kind.forward(module, torch.from_numpy(x)).numpy()
    with session.stream(**({"batch": 3} if session.contract.has_batch else {})) as stream:
        stepped = np.stack([stream.step(row)["y"] for row in x])
    assert np.allclose(stepped, expected, atol=1e-5)


class Heads(nn.Module):
    """A loop with recurrent products by head: which operator reshapes depends on the length and the step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.r = nn.Linear(6, 16), nn.Parameter(torch.randn(2, 8, 4) / 3)

    def forward(self, x: Any) -> Any:
        batch = x.shape[0]
        states, seen = torch.zeros(2, batch, 8), []
        weights = self.r.transpose(1, 2).reshape(1, 2, 4, 8)
        for gates in self.w(x).permute(1, 0, 2).unbind(0):
            own = states[0].reshape(batch, 2, 1, -1).matmul(weights).reshape(batch, 2, 2, -1)
            forget, new = (gates + own.transpose(1, 2).reshape(batch, -1)).view(batch, 2, -1).unbind(1)
            level = torch.sigmoid(forget) * states[1] + torch.tanh(new)
            states = torch.stack((torch.tanh(level), level))
            seen.append(states)
        y = torch.stack(seen)[:, 0]
        return y.view(y.shape[0], batch, 2, 4).permute(1, 0, 2, 3).reshape(batch, -1, 8)


def test_reshapes_in_a_loop_are_one_operator_whatever_the_strides(tmp_path: Path) -> None:
    module = Heads().eval()
    session = rnnx.load(
        rnnx.export(module, tmp_path / "m.onnx", inputs={"x": "float32[batch, time, 6]"}).path
    )
    assert session.contract.whole_only is None
    x = np.random.default_rng(0).standard_normal((3, 11, 6)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    with session.stream(batch=3) as stream:
        got = np.concatenate([stream.run(x[:, :4])["y"], stream.run(x[:, 4:])["y"]], 1)
    np.testing.assert_allclose(got, expected, atol=2e-5)


class Half(nn.Module):
    """A state of half the width of a free input: what a network that works at half the resolution keeps."""

    def forward(self, x, h=None):
        half = x[:, ::2]
        h = half if h is None else 0.5 * h + half
        return torch.cat([h, h], 1)[:, : x.shape[1]], h


@pytest.mark.parametrize("state", [None, "float32[batch, part]"])
def test_a_state_whose_size_follows_a_free_one_is_refused_in_these_words(
    state: str | None, tmp_path: Path
) -> None:
    """11 and 12 have one half: a size is varied by more, so that it is seen."""
    with pytest.raises(RnnxError) as caught:
        rnnx.export(Half(), tmp_path / "m.onnx", inputs={"x": "float32[batch, width]"}, state={"h": state})
    assert "follows from" in caught.value.fix or "computes from an input's" in caught.value.fix
    assert "write numbers" in caught.value.fix
    made = rnnx.export(
        Half(), tmp_path / "m.onnx", inputs={"x": "float32[batch, 12]"}, state={"h": "float32[batch, 6]"}
    )
    assert [spec.shape for spec in made.contract.states] == [["batch", 6]]
