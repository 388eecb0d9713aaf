"""`assert_parity` for users' own tests, as its page shows it; and good networks, which sound no alarm."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import rnnx
from conftest import REPOSITORY
from rnnx.testing import assert_parity
from support.plain_torch import CASES


def test_the_example_of_the_page_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "docs/parity.md").read_text(), re.S | re.M)
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(compile(text, "docs/parity.md", "exec"), space)
    space["test_the_deployed_network_is_the_trained_one"]()


def test_it_fails_with_step_tensor_index_and_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.GRU(3, 4, batch_first=True)
    path = tmp_path / "gru.onnx"
    rnnx.export(network, path, inputs={"input": "float32[batch, time, 3]"})
    found = assert_parity(path, network, steps=30, batch=3)
    assert (found.steps, found.batch, found.truth) == (30, 3, True)
    assert_parity(path, network, inputs=np.ones((2, 9, 3), np.float32))
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.op_type == "GRU")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    value = onnx.numpy_helper.to_array(tensor).copy()
    value[0, 1, 1] += 0.3
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    onnx.save(model, path)
    with pytest.raises(
        AssertionError, match=r"step \d+, .*\(fed\): expected .*, got .*, max error"
    ) as caught:
        assert_parity(path, network, steps=30)
    assert caught.traceback[-1].ishidden(caught), "pytest shows the caller's line, not ours"


def test_good_networks_give_no_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of `scripts/false_alarms`, which takes a thousand."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    script = importlib.import_module("false_alarms")
    sample = script.Sample(tmp_path, 64)
    for seed in range(6):
        found = sample.verdict(script.Setup.of(seed))
        assert found.agrees, (script.Setup.of(seed), found.summary)


@pytest.mark.parametrize("name", ["packed_gru", "loop_own_lstm_layer_norm"])
def test_lengths_and_loops_of_the_modules_own_are_compared(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    module = case.build()
    rnnx.export(module, tmp_path / "m.onnx", **case.arguments)
    given = dict(case.arguments)
    specs = given.pop("inputs")
    found = assert_parity(tmp_path / "m.onnx", module, steps=30, inputs_spec=specs, **given)
    assert found.truth


class Chaotic(torch.nn.Module):
    """An RNN that enlarges any rounding tenfold in a few steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = torch.nn.RNN(4, 32, batch_first=True)
        with torch.no_grad():
            self.rnn.weight_hh_l0.mul_(20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.rnn(x)[0]
        return result


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    network = torch.nn.GRU(3, 4, batch_first=True)
    return rnnx.export(
        network, tmp_path / "gru.onnx", inputs={"input": "float32[batch, time, 3]"}
    ).path, network


def test_chaos_sounds_no_alarm_in_what_a_runtime_is_compared_with_itself(tmp_path: Path) -> None:
    inputs = {"x": "float32[batch, time, 4]"}
    path = rnnx.export(Chaotic().eval(), tmp_path / "chaos.onnx", inputs=inputs).path
    found = assert_parity(path, Chaotic().eval(), steps=100)
    assert any(drift.left is not None for drift in found.runtimes[0].drift.values())


def test_an_interrupted_comparison_is_no_passed_test(
    small: tuple[Path, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnx import testing

    check = testing.check_parity

    def interrupted(*arguments: Any, **named: Any) -> Any:
        return dataclasses.replace(check(*arguments, **named), interrupted=True)

    monkeypatch.setattr(testing, "check_parity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        assert_parity(*small, steps=5)


def test_a_misspelt_argument_is_an_error(small: tuple[Path, torch.nn.Module]) -> None:
    with pytest.raises(TypeError, match="'step'"):
        assert_parity(*small, step=5)


@pytest.mark.parametrize("weights", ["f16", "int8"])
def test_weights_stored_in_less_are_held_to_what_they_can_do(
    small: tuple[Path, torch.nn.Module], weights: str
) -> None:
    path, network = small
    session = rnnx.load(path, "native", options={"weights": weights})
    found = assert_parity(session, network, steps=50)
    assert found.runtimes[0].tolerance == [{"f16": "float16-native", "int8": "int8-native"}[weights]]
