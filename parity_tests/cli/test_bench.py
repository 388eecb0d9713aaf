"""`rnnx bench`: what it measures is what it says. No test here looks at how long anything took."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import Result

import rnnx
from cases import onnx_models
from conftest import REPOSITORY
from rnnx.bench.candidates import OrtCandidate, RnnxCandidate, Step, start_arrays, step_arrays
from rnnx.bench.measure import measure, take_turns
from rnnx.errors import ProviderError
from rnnx.model.onnx_file import read_contract, read_model

Command = Callable[..., Result]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "lstm.onnx"
    path.write_bytes(onnx_models.lstm())
    return path


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("kind", [{}, {"bound": True}], ids=["run()", "bound"])
def test_baselines_by_hand_compute_what_a_stream_does(
    model: Path, kind: dict[str, bool], streams: int
) -> None:
    """Else a baseline that forgets its state would look fast."""
    step = OrtCandidate(model, **kind).load().steps(streams)
    stream = rnnx.load(model).stream(batch=streams)
    frame = step_arrays(stream.session.contract, streams)
    for _ in range(4):
        (got,) = step()  # type: ignore[misc]
        np.testing.assert_array_equal(got.reshape(streams, -1), stream.step(frame)["y"])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(3, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.gru(x)[0]
        return result


@dataclasses.dataclass(frozen=True)
class Opened:
    module: nn.Module
    arguments: dict[str, Any]


def open_net() -> Opened:
    return Opened(Net().eval(), {"inputs": {"x": "float32[batch, time, 3]"}})


@pytest.mark.parametrize("streams", [1, 3])
def test_torch_computes_what_a_stream_does(tmp_path: Path, streams: int) -> None:
    from rnnx_export.proof.bench_torch import TorchCandidate

    path = rnnx.export(Net().eval(), tmp_path / "m.onnx", inputs={"x": "float32[batch, time, 3]"}).path
    step = TorchCandidate(path, open_net).load().steps(streams)
    stream = rnnx.load(path).stream(batch=streams)
    frame = step_arrays(stream.session.contract, streams)
    for _ in range(4):
        (got,) = step()  # type: ignore[misc]
        np.testing.assert_allclose(
            got.reshape(streams, -1), next(iter(stream.step(frame).values())), atol=1e-6
        )


def test_steps_take_turns_and_ratios_are_to_the_first() -> None:
    called: list[str] = []

    def timed(name: str, seconds: float) -> Step:
        def step() -> None:
            called.append(name)
            time.sleep(seconds)

        return step

    slow, slower = take_turns(
        {"a": timed("a", 0.001), "b": timed("b", 0.004)}, streams=2, seconds=0.05, rounds=5
    )
    turns = [name for name, _ in itertools.groupby(called)]
    assert turns == ["a", "b"] * 5
    assert (slow.contender, slow.ratio, slow.streams) == ("a", 1.0, 2)
    assert slower.steps == called.count("b")
    assert slower.ratio > 1.5  # asked for 4; even a machine that stalls keeps the order
    assert slower.min_us >= 4000
    assert slower.steps_per_second == pytest.approx(2e6 / slower.median_us)
    assert slow.p99_9_us is None, "a thousandth of a few steps says nothing"


@dataclasses.dataclass(frozen=True)
class Broken:
    name: str = "broken"
    optional: bool = False

    def load(self) -> Any:
        raise ProviderError("provider-unavailable", expected="it", found="no such luck", fix="none")


def test_a_candidate_that_fails_is_an_error_unless_it_is_optional(model: Path) -> None:
    candidates = [RnnxCandidate(model), Broken(optional=True)]
    found = measure(model, candidates, streams=[1], seconds=0.02)
    assert found.not_run == {"broken": "no such luck"}
    assert [timing.contender for timing in found.timings] == ["rnnx"]
    with pytest.raises(ProviderError):
        measure(model, [Broken()], streams=[1], seconds=0.02)


SCRIPT = """
import sys
from pathlib import Path
from rnnx.bench.measure import measure
from rnnx.bench.candidates import RnnxCandidate
measure(Path(sys.argv[1]), [RnnxCandidate(Path(sys.argv[1]))], streams=[1], seconds=0.01)
"""


def test_a_script_that_measures_when_it_is_imported_is_told_so(model: Path, tmp_path: Path) -> None:
    """The fresh process imports the script, and cannot itself measure."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(model)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("rnnx.errors.UsageError: expected a process of its own to load 'rnnx'")
    assert "if __name__ ==" in last


KINDS = [
    onnx_models.gru,
    onnx_models.accumulator,
    onnx_models.gained,
    onnx_models.unbatched,
    onnx_models.running_max,
    onnx_models.step_scalar,
    onnx_models.hops,
    onnx_models.attention,
    onnx_models.symbols,
    onnx_models.masked_steps,
]


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_every_kind_of_model_can_be_measured(build: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(build())
    contract = read_contract(read_model(path))
    assert set(start_arrays(contract, 1)) == {state.name for state in contract.states}
    for candidate in (RnnxCandidate(path), OrtCandidate(path), OrtCandidate(path, bound=True)):
        for streams in (1,):
            step = candidate.load().steps(streams)
            step()
            step()


def test_the_command_prints_tables_json_and_a_picture(command: Command, model: Path, tmp_path: Path) -> None:
    arguments = ["bench", str(model), "--streams", "1,2", "--seconds", "0.02"]
    shown = command(*arguments, "--plot", str(tmp_path / "p.svg"))
    assert shown.exit_code == 0, shown.stderr
    for part in ("1 stream:", "2 streams:", "rnnx cpu", "onnxruntime run()", "from a new process"):
        assert part in shown.stdout
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    found = json.loads(command(*arguments, "-q", "--json").stdout)
    assert [(timing["contender"], timing["streams"]) for timing in found["timings"]] == [
        (name, streams) for streams in (1, 2) for name in ("rnnx cpu", "onnxruntime run()")
    ]
    assert all(first["seconds"] > 0 for first in found["first"])
    assert found["timings"][0]["ratio"] == 1.0


def test_a_picture_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "rnnx.bench.plot", raising=False)
    monkeypatch.setattr("rnnx.bench.measure.measure", lambda *_, **__: pytest.fail("measured"))
    result = command("bench", str(model), "--plot", str(tmp_path / "p.svg"))
    assert (result.exit_code, "package-missing" in result.stderr) == (2, True)


def test_a_provider_named_twice_is_measured_once(command: Command, model: Path) -> None:
    arguments = ("--runtimes", "cpu,cpu", "--streams", "1", "--seconds", "0.01", "--json", "-q")
    found = json.loads(command("bench", str(model), *arguments).stdout)
    assert [first["contender"] for first in found["first"]] == ["rnnx cpu", "onnxruntime run()"]


def test_candidates_are_left_out_by_name(command: Command, model: Path) -> None:
    arguments = ("--without", "onnxruntime run()", "--streams", "1", "--seconds", "0.01", "--json", "-q")
    found = json.loads(command("bench", str(model), *arguments).stdout)
    assert [first["contender"] for first in found["first"]] == ["rnnx cpu"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--streams", "0"], "arguments"),
        (["--streams", "1,x"], "arguments"),
        (["--plot", "a.gif"], "arguments"),
        (["--runtimes", "tpu"], "provider-unknown"),
        (["--without", "torch.compile"], "arguments"),  # which is no candidate unless --against is there
        (["--without", "rnnx cpu,onnxruntime run()"], "arguments"),
    ],
)
def test_wrong_flags_are_refused(command: Command, model: Path, arguments: list[str], code: str) -> None:
    result = command("bench", str(model), *arguments)
    assert result.exit_code == 2
    assert f"error[{code}]" in result.stderr


def test_a_model_without_steps_is_refused(command: Command, tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True, bidirectional=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.rnn(x)[0]
            return result

    made = rnnx.export(Both().eval(), tmp_path / "m.onnx", inputs={"x": "float32[batch, time, 3]"})
    result = command("bench", str(made.path))
    assert result.exit_code == 2
    assert "error[whole-only]" in result.stderr


@pytest.mark.slow  # torch.compile needs most of a minute
def test_the_page_of_figures_is_written(tmp_path: Path) -> None:
    """`scripts/bench` measures every candidate it names, quickly here; no figure is looked at."""
    page = tmp_path / "cpu.md"
    arguments = [sys.executable, "scripts/bench.py", "--seconds", "0.001", "--output", str(page)]
    subprocess.run(arguments, cwd=REPOSITORY, check=True, capture_output=True, timeout=300)
    text = page.read_text()
    assert text.count("| `step` |") == text.count("| `pool.step`, all |") == 1
    assert text.count("| PyTorch |") == 2
    assert not re.search(r"\| not run", text.replace("torch.compile | not run", ""))


def test_the_roofline_bound_counts_every_weight_of_a_matrix_once(tmp_path: Path) -> None:
    from rnnx_native.roofline import RooflineCandidate

    path = tmp_path / "lstm.onnx"
    path.write_bytes(onnx_models.lstm(32, 24))
    bound = RooflineCandidate(path).load()
    assert bound.weights == 4 * 32 * (24 + 32)
    for streams in (1, 1000):
        assert np.isfinite(bound.steps(streams)())  # type: ignore[call-overload]
    # The one-hot input of a network over symbols is looked up by row: only the hidden state is multiplied.
    path.write_bytes(onnx_models.symbols(16))
    symbols = len(read_contract(read_model(path)).vocabulary.symbols)  # type: ignore[union-attr]
    assert RooflineCandidate(path).load().weights == 3 * 16 * 16 + 16 * 16 * -(-symbols // 16)


def test_the_command_shows_the_roofline_bound(model: Path, command: Command) -> None:
    result = command("bench", model, "--floor", "--streams", "1", "--seconds", "0.01", "--json", "-q")
    assert result.exit_code == 0, result.stderr
    names = [timing["contender"] for timing in json.loads(result.stdout)["timings"]]
    assert names == ["rnnx cpu", "onnxruntime run()", "floor"]


def test_measuring_the_roofline_bound_leaves_tiny_numbers_alone(tmp_path: Path) -> None:
    """A library linked with -ffast-math would make this whole process treat them as zero."""
    from rnnx_native.roofline import RooflineCandidate

    path = tmp_path / "lstm.onnx"
    path.write_bytes(onnx_models.lstm(32, 24))
    RooflineCandidate(path).load().steps(1)()
    assert np.float32(1e-40) * np.float32(0.5) > 0
    assert np.spacing(np.float32(0)) > 0
