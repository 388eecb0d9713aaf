"""No flag is ignored without a word: what means something beside other flags only is refused without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from cases import onnx_models
from conftest import REPOSITORY
from rnnx.errors import InputError
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.parity.check import make_request

Command = Callable[..., Result]
NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 8, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]
"""
INPUT = ("--input", "x.npy")
PARITY = ("parity", "m.onnx", "--against", "net.py:Net")
TRACE = ("trace", "net.py:Net", "--model", "m.onnx", "-o", "t.safetensors")
RUN = ("run", "m.onnx", "-o", "y.npy", *INPUT)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model that takes x float32[batch, time, 3], and inputs for it."""
    (tmp_path / "m.onnx").write_bytes(onnx_models.lstm())
    (tmp_path / "poet.onnx").write_bytes(onnx_models.symbols())
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 3), np.float32))
    np.save(tmp_path / "wide.npy", np.zeros((1, 4, 5), np.float32))
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "a.txt").write_text("abc " * 100)
    (tmp_path / "x.pt").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ((*PARITY, *INPUT, "--steps", "9"), "--steps"),
        ((*PARITY, *INPUT, "--batch", "3", "--steps", "9"), "--steps, --batch"),
        ((*PARITY, "--runtimes", "cpu", "--provider", "cpu"), "--provider"),
        ((*PARITY, "--runtimes", ""), "''"),
        ((*PARITY, "--runtimes", "cpu,,native"), "'cpu,,native'"),
        ((*PARITY, "--dim", "a=3", "--dim", "a=4"), "'a' twice"),
        ((*PARITY, "--dim", "batch=3"), "'batch'"),
        (("parity", "m.onnx", "--against", "poet.onnx"), "the ONNX file poet.onnx"),
        (("run", "m.onnx", "-o", "y.npy", "-i", "."), "."),
        (("run", "m.onnx", "-o", "y.npy", "-i", "many.jsonl"), "many.jsonl"),
        (("parity", "m.onnx", "--trace", "t.safetensors", "--seed", "1"), "--seed"),
        (("parity", "m.onnx", "--trace", "t.safetensors", "--state", "h=1"), "--state"),
        ((*TRACE, *INPUT, "--seed", "0"), "--seed"),
        (("trace", "net.py:Net", "--model", "m.onnx", "-o", "t.npz"), "t.npz"),
        ((*TRACE, *INPUT, "--steps", "64"), "--steps"),
        (("bench", "m.onnx", "--weights", "x.pt"), "--weights"),
        (("bench", "m.onnx", "--inputs", "x=float32[batch, 3]", "--kwargs", "a=1"), "--kwargs, --inputs"),
        (("bench", "m.onnx", "--runtimes", ""), "''"),
        ((*RUN, "--capacity", "3"), "--capacity"),
        ((*RUN, "--length", "400"), "--length"),
        ((*RUN, "--seed", "0", "--prompt", "a"), "--prompt, --seed"),
        (("run", "poet.onnx", "--prompt", "a", "--chunk", "3"), "--chunk"),
        (("train", "a.txt", "-o", "p.safetensors", "--embedding-size", "9"), "--embedding-size"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_flag_that_would_be_ignored_is_refused(
    here: Path, command: Command, line: tuple[str, ...], found: str
) -> None:
    before = sorted(here.iterdir())
    result = command(*line)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "error[arguments]" in result.stderr
    assert f"; found {found}; fix: " in result.stderr
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("line", [PARITY, TRACE], ids=["parity", "trace"])
def test_sizes_of_dimensions_that_the_model_lacks_are_refused(
    here: Path, command: Command, line: tuple[str, ...]
) -> None:
    result = command(*line, "--dim", "memory=3")
    assert result.exit_code == 2
    assert "error[unknown-dimension]: expected dimensions (none); found 'memory'" in result.stderr


def test_sizes_that_recorded_inputs_do_not_have_are_refused() -> None:
    contract = read_contract(read_model(onnx_models.attention()))
    recorded = {"x": np.zeros((2, 4, 4), np.float32), "memory": np.zeros((2, 6, 4), np.float32)}
    agreeing = make_request(contract, steps=1, batch=2, dims={"memory": 6}, recorded=recorded)
    assert agreeing.sizes == {"batch": 2, "memory": 6}
    for asked, told in (
        ({"batch": 3}, "with batch=3, as was asked for; found batch=2"),
        ({"dims": {"memory": 7}}, "with memory=7, as was asked for; found memory=6"),
        ({"dims": {"memroy": 7}}, "dimensions memory; found 'memroy'"),
        ({"batch": 0}, "batch as a number of 1 or more; found 0"),
    ):
        with pytest.raises(InputError, match=told):
            make_request(contract, steps=1, recorded=recorded, **asked)


def test_flags_that_are_used_are_let_pass(here: Path, command: Command) -> None:
    for line in (
        (*PARITY, *INPUT, "--seed", "3", "--provider", "cpu"),
        (*PARITY, "--runtimes", "cpu, cpu", "--steps", "4", "--batch", "3"),
        (*RUN, "--chunk", "2"),
        ("run", "poet.onnx", "--prompt", "a", "--length", "3", "--seed", "1", "--temperature", "0"),
    ):
        result = command(*line)
        assert result.exit_code < 2, result.output  # the weights are others: parity may say so


@pytest.mark.parametrize(
    "words",
    [
        ("run", "MODEL", "--input", "X", "--output", "OUT.npy"),
        ("parity", "MODEL", "--trace", "TRACE"),
        ("trace", "net.py:Net", "--model", "MODEL", "-o", "OUT.safetensors"),
        ("bench", "MODEL", "--streams", "1", "--seconds", "0.01"),
        ("compile", "MODEL", "-o", "OUT"),
    ],
    ids=lambda words: words[0],
)
def test_memory_is_held_to_what_the_command_line_allows(
    words: Sequence[str], command: Command, tmp_path: Path
) -> None:
    golden = REPOSITORY / "parity_tests" / "golden"
    np.save(tmp_path / "x.npy", np.zeros((1, 5, 3), "f4"))
    names = {"MODEL": golden / "gru.onnx", "TRACE": golden / "gru.trace.safetensors", "X": tmp_path / "x.npy"}
    line = [names.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in words]
    result = command(*line, "--max-bytes", "8")
    assert result.exit_code == 2, result.output
    assert "rnnx: error[out-of-memory]: " in result.stderr
    assert not list(tmp_path.glob("out*"))
