"""`rnnx export` of a module by name: every way to name one, and every flag."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

import rnnx

Command = Callable[..., Result]
NETS = '''
import dataclasses
import torch
from torch import nn


class Denoiser(nn.Module):
    """Streams with no edit."""

    def __init__(self, width=8, *, layers=1):
        super().__init__()
        self.rnn = nn.GRU(6, width, layers, batch_first=True)
        self.out = nn.Linear(width, 6)

    def forward(self, x):
        return x * torch.sigmoid(self.out(self.rnn(x)[0]))


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)

    def forward(self, x):
        raise NotImplementedError

    def step(self, x, state, scale=1.0, start=0):
        h, c = self.cell(x, (state[0] * (1 - start), state[1] * (1 - start)))
        return h * scale, (h, c)

    def named(self, x, memory):
        h, c = self.cell(x, (memory["h"], memory["c"]))
        return {"y": h.tanh(), "memory": {"h": h, "c": c}}


class Alike(nn.Module):
    def forward(self, x, a, b):
        return a - b, 0.5 * b + x, 0.9 * a + x


@dataclasses.dataclass
class Settings:
    width: int = 5


def make():
    torch.manual_seed(3)
    return Denoiser(Settings().width)


torch.manual_seed(4)
READY = Denoiser(4)
'''
X = "x=float32[batch, time, 6]"
PAIR = "state=(float32[batch, 8], float32[batch, 8])"


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nets.py, and a package of the same modules; the current folder."""
    (tmp_path / "nets.py").write_text(NETS)
    package = tmp_path / f"package_{tmp_path.name.replace('-', '_')}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)  # of another test
    return tmp_path


def export(command: Command, *arguments: Any) -> rnnx.Session:
    result = command("export", *arguments, "-o", "out.onnx")
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    return rnnx.load("out.onnx")


def module_of(source: str) -> Any:
    from rnnx_export.module.source import open_source

    return open_source(source).module


def test_a_class_by_file(nets: Path, command: Command) -> None:
    result = command("export", "nets.py:Denoiser", "--inputs", X, "-o", "out.onnx")
    assert result.exit_code == 0, result.output
    for part in (
        "wrote out.onnx",
        "out.trace.safetensors",
        "states: rnn.h",
        "way: direct",
        "proved against torch",
    ):
        assert part in result.stdout
    contract = rnnx.load("out.onnx").contract
    assert contract.name == "out"
    assert [state.shape for state in contract.states] == [[1, "batch", 8]]


def test_a_class_by_package_needs_no_installation(nets: Path) -> None:
    """In its own process: what the current folder offers is found."""
    package = next(path.name for path in nets.glob("package_*"))
    line = [
        sys.executable,
        "-m",
        "rnnx.cli",
        "export",
        f"{package}.nets:Denoiser",
        "--inputs",
        X,
        "-o",
        "out.onnx",
    ]
    done = subprocess.run(line, capture_output=True, text=True, cwd=nets, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "states: rnn.h" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_factory_and_an_instance(nets: Path, command: Command) -> None:
    x = np.random.default_rng(0).normal(size=(2, 9, 6)).astype("f4")
    for source, width in (("nets.py:make()", 5), ("nets.py:READY", 4)):
        session = export(command, source, "--inputs", X)
        assert session.contract.states[0].shape == [1, "batch", width]
        with torch.no_grad():
            expected = module_of(source)(torch.from_numpy(x)).numpy()
        assert np.allclose(session.stream(batch=2).run(x)["y"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "kwargs", [["width=12", "layers=2"], ['{"width": 12, "layers": 2}']], ids=["pairs", "JSON"]
)
def test_arguments_of_the_class(kwargs: list[str], nets: Path, command: Command) -> None:
    flags = [part for text in kwargs for part in ("--kwargs", text)]
    session = export(command, "nets.py:Denoiser", "--inputs", X, *flags)
    assert session.contract.states[0].shape == [2, "batch", 12]


def trained() -> dict[str, torch.Tensor]:
    module = module_of("nets.py:Denoiser")
    with torch.no_grad():
        module.out.bias.fill_(3.0)
    return module.state_dict()


def assert_has_weights(session: rnnx.Session, state: dict[str, torch.Tensor]) -> None:
    module = module_of("nets.py:Denoiser")
    module.load_state_dict(state)
    x = np.random.default_rng(0).normal(size=(1, 9, 6)).astype("f4")
    with torch.no_grad():
        np.testing.assert_allclose(session.stream().run(x)["y"], module(torch.from_numpy(x)), atol=1e-5)


@pytest.mark.parametrize("form", ["weights.safetensors", "weights.pt", "checkpoint.pt"])
def test_weights_are_those_of_the_file(form: str, nets: Path, command: Command) -> None:
    state = trained()
    if form.endswith(".safetensors"):
        save_file(state, form)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form.startswith("checkpoint") else state, form)
    assert_has_weights(export(command, "nets.py:Denoiser", "--inputs", X, "--weights", form), state)


def test_a_method_with_states_and_constants(nets: Path, command: Command) -> None:
    flags = ("--inputs", "x=float32[batch, 6]", "--state", PAIR, "--constants", "scale=2.5")
    session = export(command, "nets.py:Policy.step", *flags)
    assert [state.name for state in session.contract.states] == ["state.0", "state.1"]
    both = ("--constants", '{"scale": 2.5, "start": 0}')
    session = export(command, "nets.py:Policy.step", *flags[:4], *both)
    assert [spec.name for spec in session.contract.inputs] == ["x"]


def test_states_in_a_dict(nets: Path, command: Command) -> None:
    flags = (
        "--inputs",
        "x=float32[batch, 6]",
        "--state",
        "memory={h: float32[batch, 8], c: float32[batch, 8]}",
    )
    session = export(command, "nets.py:Policy.named", *flags)
    assert [state.name for state in session.contract.states] == ["memory.h", "memory.c"]
    assert [spec.name for spec in session.contract.outputs] == ["y"]


def test_names_of_the_results_settle_what_is_alike(nets: Path, command: Command) -> None:
    flags = ("nets.py:Alike", "--inputs", "x=float32[batch, 6]", "--state", "a=float32[batch, 6]",
             "--state", "b=float32[batch, 6]")  # fmt: skip
    result = command("export", *flags, "-o", "out.onnx")
    assert result.exit_code == 2, result.output
    assert "returns" in result.stderr
    assert not Path("out.onnx").exists()
    session = export(command, *flags, "--returns", "difference, b, a")
    assert [spec.name for spec in session.contract.outputs] == ["difference"]


def test_a_step_model_is_given_time(nets: Path, command: Command) -> None:
    flags = (
        "nets.py:Policy.step",
        "--inputs",
        "x=float32[batch, 6]",
        "--state",
        PAIR,
        "--constants",
        "scale=1",
    )
    step, chunk = export(command, *flags), export(command, *flags, "--time")
    assert step.contract.inputs[0].shape == ["batch", 6]
    assert chunk.contract.inputs[0].shape == ["batch", "time", 6]
    x = np.random.default_rng(0).normal(size=(2, 9, 6)).astype("f4")
    stream = step.stream(batch=2)
    rows = np.stack([next(iter(stream.step(x[:, t]).values())) for t in range(9)], 1)
    whole = next(iter(chunk.stream(batch=2).run(x).values()))
    assert np.allclose(rows, whole, atol=1e-5)


def test_json_is_the_contract(nets: Path, command: Command) -> None:
    result = command("export", "nets.py:Denoiser", "--inputs", X, "-o", "out.onnx", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["id"] == rnnx.load("out.onnx").contract.id
    quiet = command("export", "nets.py:Denoiser", "--inputs", X, "-o", "out.onnx", "-q")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_parity_takes_the_same_flags(nets: Path, command: Command) -> None:
    state = module_of("nets.py:Denoiser").state_dict()
    save_file({name: value + 0.1 for name, value in state.items()}, "weights.safetensors")
    flags = ("--weights", "weights.safetensors", "--inputs", X)
    export(command, "nets.py:Denoiser", *flags)
    assert command("parity", "out.onnx", "--against", "nets.py:Denoiser", *flags).exit_code == 0
    other = command("parity", "out.onnx", "--against", "nets.py:READY")
    assert other.exit_code in (1, 2), other.output
    fresh = command("parity", "out.onnx", "--against", "nets.py:Denoiser")
    assert fresh.exit_code == 1, "other weights: they cannot agree"


def test_parity_takes_names_of_the_results_too(nets: Path, command: Command) -> None:
    flags = ("--inputs", "x=float32[batch, 6]", "--state", "a=float32[batch, 6]; b=float32[batch, 6]")
    flags += ("--returns", "difference, b, a")
    (nets / "fixed.py").write_text(
        "import torch\nfrom nets import Alike\ntorch.manual_seed(0)\nNET = Alike()\n"
    )
    export(command, "fixed.py:NET", *flags)
    result = command("parity", "out.onnx", "--against", "fixed.py:NET", *flags)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("time", [(), ("--time",)], ids=["step", "time"])
def test_parity_of_a_method(time: tuple[str, ...], nets: Path, command: Command) -> None:
    flags = ("--inputs", "x=float32[batch, 6]", "--state", PAIR, "--constants", "scale=2.5")
    (nets / "fixed.py").write_text(
        "import torch\nfrom nets import Policy\ntorch.manual_seed(0)\nNET = Policy()\n"
    )
    export(command, "fixed.py:NET.step", *flags, *time)
    result = command("parity", "out.onnx", "--against", "fixed.py:NET.step", *flags)
    assert result.exit_code == 0, result.output


def test_inspect_says_which_way_and_why_not_the_other(nets: Path, command: Command) -> None:
    (nets / "loop.py").write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn

            class Loop(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.cell = nn.GRUCell(6, 8)

                def forward(self, x, h):
                    ys = []
                    for t in range(x.shape[1]):
                        h = self.cell(x[:, t], h)
                        ys.append(h)
                    return torch.stack(ys, 1), h
            """
        )
    )
    export(command, "loop.py:Loop", "--inputs", X, "--state", "h=float32[batch, 8]")
    shown = command("inspect", "out.onnx").stdout
    assert "scan" in shown
    assert "frozen" in shown or "loop" in shown


def test_random_weights_are_warned_of_last(nets: Path, command: Command) -> None:
    """A class alone has new weights each time; a factory that seeds, a file and a flag say more."""
    class_alone = ("export", "nets.py:Denoiser", "--inputs", X, "-o", "out.onnx")
    for flags in ((), ("--json",)):
        assert (
            command(*class_alone, *flags).stderr.strip().splitlines()[-1].startswith("warning: these weights")
        )
    save_file(module_of("nets.py:Denoiser").state_dict(), "w.safetensors")
    for flags in (("--random-weights",), ("--weights", "w.safetensors"), ("--quiet",)):
        assert "warning" not in command(*class_alone, *flags).stderr
    assert "warning" not in command("export", "nets.py:make()", "--inputs", X, "-o", "out.onnx").stderr


CARRIED = '''
from torch import nn


class Cell(nn.Module):
    """Takes its state and gives the next one."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(6, 9), nn.Linear(9, 2)

    def forward(self, x, h):
        h_new = self.cell(x, h)
        return self.out(h_new), h_new


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(6, 9, 2, batch_first=True)

    def forward(self, x, state):
        return self.layer(x, state)


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 9)

    def forward(self, x, gain):
        y = self.out(x) * gain
        return y, gain.new_ones(1)
'''


@pytest.mark.parametrize(
    ("name", "flag"),
    [("Cell", "h=float32[batch, 9]"), ("Layer", "state=(float32[2, batch, 9], float32[2, batch, 9])")],
)
def test_a_parameter_that_comes_back_is_offered_as_a_state(
    name: str, flag: str, nets: Path, command: Command
) -> None:
    Path("carried.py").write_text(CARRIED)
    x = "x=float32[batch, 6]" if name == "Cell" else X
    refused = command("export", f"carried.py:{name}", "--inputs", x, "-o", "out.onnx")
    assert refused.exit_code == 2
    assert f"--state '{flag}'" in refused.stderr
    assert len(export(command, f"carried.py:{name}", "--inputs", x, "--state", flag).contract.states) > 0


def test_a_parameter_that_does_not_come_back_is_offered_as_before(nets: Path, command: Command) -> None:
    Path("carried.py").write_text(CARRIED)
    refused = command("export", "carried.py:Gain", "--inputs", "x=float32[batch, 6]", "-o", "out.onnx")
    assert refused.exit_code == 2
    assert "inputs, state or constants" in refused.stderr


def test_a_model_without_memory_whose_input_comes_back_is_warned_of(nets: Path, command: Command) -> None:
    Path("carried.py").write_text(CARRIED)
    inputs = ("--inputs", "x=float32[batch, 6]", "--inputs", "h=float32[batch, 9]")
    told = command("export", "carried.py:Cell", *inputs, "-o", "out.onnx")
    assert told.exit_code == 0
    assert "--state 'h=float32[batch, 9]'" in told.stderr
    right = command(
        "export", "carried.py:Cell", *inputs[:2], "--state", "h=float32[batch, 9]", "-o", "o.onnx"
    )
    assert "nothing is carried" not in right.stderr


def test_a_state_in_a_container_is_called_by_its_path(nets: Path, command: Command) -> None:
    Path("policy.py").write_text(
        "from torch import nn\n\n\nclass Policy(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.cell = nn.GRUCell(6, 9)\n\n"
        "    def forward(self, batch):\n"
        "        batch['memory'] = self.cell(batch['obs'], batch['memory'])\n"
        "        return batch['memory'].tanh()\n"
    )
    flags = ("--inputs", "batch={obs: float32[batch, 6]}", "--state", "batch.memory=float32[batch, 9]")
    session = export(command, "policy.py:Policy", *flags)
    assert [state.name for state in session.contract.states] == ["batch.memory"]


@pytest.mark.parametrize("key", ["model", "nets.ema"])
def test_a_state_dict_under_a_key_of_a_checkpoint(key: str, nets: Path, command: Command) -> None:
    state = trained()
    held: dict[str, Any] = {"model": state} if key == "model" else {"nets": {"ema": state, "raw": {}}}
    torch.save({**held, "epoch": 3, "optimizer": {"lr": 0.1}}, "ck.pt")
    flags = ("nets.py:Denoiser", "--inputs", X, "--weights", f"ck.pt:{key}")
    assert_has_weights(export(command, *flags), state)
    compared = command("parity", "out.onnx", "--against", flags[0], "--weights", flags[4], "--steps", "8")
    assert compared.exit_code == 0, compared.output


def test_what_a_checkpoint_holds_is_named(nets: Path, command: Command) -> None:
    torch.save({"model": trained(), "epoch": 3}, "ck.pt")
    for name, part in (("ck.pt", "name it: ck.pt:model"), ("ck.pt:modle", "under 'modle'")):
        told = command("export", "nets.py:Denoiser", "--inputs", X, "--weights", name, "-o", "out.onnx")
        assert told.exit_code == 2
        assert "error[not-weights]" in told.stderr
        assert part in told.stderr
        assert "ck.pt:model" in told.stderr


@pytest.mark.parametrize("front", ["module.", "_orig_mod.", "net."])
def test_what_wrappers_put_before_names_is_left_out(front: str, nets: Path, command: Command) -> None:
    state = trained()
    torch.save({front + name: value for name, value in state.items()}, "w.pt")
    assert_has_weights(export(command, "nets.py:Denoiser", "--inputs", X, "--weights", "w.pt"), state)


def test_a_checkpoint_is_not_written_over(nets: Path, command: Command) -> None:
    torch.save({"model": trained()}, "ck.onnx")
    told = command("export", "nets.py:Denoiser", "--inputs", X, "--weights", "ck.onnx:model", "-o", "ck.onnx")
    assert told.exit_code == 2
    assert "output-is-input" in told.stderr
