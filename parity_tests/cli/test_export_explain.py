"""What `rnnx export` says before and behind the file: candidates as the caller spells them, and warnings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

import rnnx
from rnnx.errors import UsageError
from rnnx.spelling import as_flags, spelled
from rnnx.testing import assert_parity
from rnnx_export.module.source import open_source

Command = Callable[..., Result]
NETS = '''
import torch
from torch import nn


class Alike(nn.Module):
    """Nothing names its parts."""

    def forward(self, x, a, b):
        return a - b, 0.5 * b + x, 0.9 * a + x


class Policy(nn.Module):
    """What it carries has no name in common with what it takes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out = nn.GRUCell(6, 9), nn.Linear(9, 2)

    def forward(self, x, memory):
        found = self.cell(x, memory)
        return self.out(found), self.out(found).exp(), found
'''
X, STEP = "x=float32[batch, 6]", "float32[batch, 6]"


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    return tmp_path


def policy() -> torch.nn.Module:
    made: torch.nn.Module = open_source("nets.py:Policy").module
    return made


def test_arguments_are_spelt_as_the_caller_writes_them() -> None:
    specs = {"h": "float32[batch, 8]", "state": ("int64[batch]", {"a": "bool[]"})}
    names = ("y", ("h", "c"))
    assert spelled("state", specs) == f"state={specs!r}"
    assert spelled("returns", names) == "returns=('y', ('h', 'c'))"
    with as_flags():
        assert spelled("state", specs) == (
            "--state 'h=float32[batch, 8]' --state 'state=(int64[batch], {a: bool[]})'"
        )
        assert spelled("returns", names) == "--returns 'y, (h, c)'"


def test_explain_lists_what_the_parts_of_a_result_could_be(nets: Path, command: Command) -> None:
    states = ("--state", f"a={STEP}", "--state", f"b={STEP}")
    found = command("export", "nets.py:Alike", "--inputs", X, *states, "--explain")
    assert found.exit_code == 2
    assert "--returns 'y, a, b'" in found.stderr
    assert found.stdout.count("of the shape of a, b") == 3
    settled = command(
        "export", "nets.py:Alike", "--inputs", X, *states, "--returns", "out, b, a", "--explain"
    )
    assert settled.exit_code == 0
    assert "result[1]  float32[batch, 6]  called 'b'; next value of state 'b'" in settled.stdout
    assert [path.name for path in nets.iterdir() if path.suffix != ".py"] in ([], ["__pycache__"])


def test_explain_as_json_has_the_contract_s_names(nets: Path, command: Command) -> None:
    given = ("--inputs", X, "--state", "memory=float32[batch, 9]")
    found = command("export", "nets.py:Policy", *given, "--explain", "--json")
    assert found.exit_code == 0, found.stderr
    lists = json.loads(found.stdout)
    assert [part["name"] for part in lists["states"]] == ["memory"]
    assert lists["outputs"] == [
        {"name": "y.0", "spec": "float32[batch, 2]", "place": "result[0]"},
        {"name": "y.1", "spec": "float32[batch, 2]", "place": "result[1]"},
    ]


@pytest.mark.parametrize("flags", [(), ("--explain", "-o", "x.onnx")])
def test_either_a_file_or_an_explanation(flags: tuple[str, ...], nets: Path, command: Command) -> None:
    refused = command("export", "nets.py:Policy", "--inputs", X, *flags)
    assert refused.exit_code == 2
    assert "error[arguments]: expected one of --output and --explain" in refused.stderr


def test_the_only_input_with_a_like_is_warned_of_whatever_it_is_called(nets: Path, command: Command) -> None:
    inputs = ("--inputs", X, "--inputs", "memory=float32[batch, 9]")
    told = command("export", "nets.py:Policy", *inputs, "-o", "out.onnx")
    last = told.stderr.splitlines()[-1]
    assert last.startswith("warning: nothing is carried, though output 'y.2' is like input 'memory'")
    assert last.endswith("--state 'memory=float32[batch, 9]'")


def test_a_parameter_without_a_spec_is_offered_with_the_width_that_forward_takes(nets: Path) -> None:
    with pytest.raises(UsageError) as refused:
        rnnx.export(policy(), "out.onnx", inputs={"x": STEP})
    assert "state={'memory': 'float32[batch, 9]'}" in refused.value.fix
    assert "--" not in refused.value.fix


def test_names_that_returns_gave_are_read_from_the_model(nets: Path, command: Command) -> None:
    given = ("--inputs", X, "--state", "memory=float32[batch, 9]", "--returns", "mean, scale, memory")
    assert command("export", "nets.py:Policy", *given, "-o", "out.onnx").exit_code == 0
    same = ("--against", "nets.py:Policy", "--steps", "4")
    found = command("parity", "out.onnx", *same)
    assert found.exit_code == 0, found.stderr
    traced = command("trace", "nets.py:Policy", "--model", "out.onnx", "-o", "t.safetensors", "--steps", "4")
    assert traced.exit_code == 0, traced.stderr
    assert assert_parity("out.onnx", policy(), steps=4).agrees
    wrong = command("parity", "out.onnx", *same, "--returns", "scale, mean, memory")
    assert "error[other-network]" in wrong.stderr, "names that are given are held to the model"
    swapped = policy()
    with torch.no_grad():
        swapped.out.weight.mul_(-1)
    with pytest.raises(AssertionError):
        assert_parity("out.onnx", swapped, steps=4)


def test_names_that_cannot_be_read_are_asked_for_by_the_flag(nets: Path, command: Command) -> None:
    states = ("--state", f"a={STEP}", "--state", f"b={STEP}")
    given = ("nets.py:Alike", "--inputs", X, *states)
    assert command("export", *given, "--returns", "out, b, a", "-o", "out.onnx").exit_code == 0
    asked = command("parity", "out.onnx", "--against", *given[:1], "--steps", "4")
    assert asked.exit_code == 2
    assert "fix: name the parts in order: --returns 'y, a, b'" in asked.stderr
    told = command("parity", "out.onnx", "--against", *given[:1], "--steps", "4", "--returns", "out, b, a")
    assert told.exit_code == 0, told.stderr
