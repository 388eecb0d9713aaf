"""`rnnx parity` against PyTorch: a good model passes; a spoiled one is caught, whatever was spoiled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from typer.testing import Result

from conftest import REPOSITORY
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import read_contract, read_model, write_contract
from rnnx.parity.verdict import Parity, schema
from rnnx_models.checkpoint import save_checkpoint
from rnnx_models.networks import CharNetwork, NetworkConfig

Command = Callable[..., Result]
SYMBOLS = tuple("abcdefgh")


@dataclasses.dataclass(frozen=True)
class Pair:
    model: Path
    checkpoint: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from rnnx.cli.source import open_network
    from rnnx_export.api import export

    folder = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    network = CharNetwork(NetworkConfig("lstm", len(SYMBOLS), 16, num_layers=2))
    save_checkpoint(folder / "poet.safetensors", network, SYMBOLS)
    found = open_network(str(folder / "poet.safetensors"))
    export(found.module, folder / "poet.onnx", **found.arguments)
    return Pair(folder / "poet.onnx", folder / "poet.safetensors")


def spoil_contract(data: bytes, change: Callable[[list[Any]], list[Any]]) -> bytes:
    contract = read_contract(read_model(data))
    fields = {name: getattr(contract, name) for name in contract.__struct_fields__}
    return write_contract(data, Contract(**{**fields, "states": change(list(contract.states))}))


def replaced(state: Any, **changes: Any) -> Any:
    return type(state)(**{**{name: getattr(state, name) for name in state.__struct_fields__}, **changes})


def tampered_weight(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    largest = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weights = onnx.numpy_helper.to_array(largest).copy()
    weights.flat[weights.size // 2] += 0.2
    largest.CopyFrom(onnx.numpy_helper.from_array(weights, largest.name))
    return model.SerializeToString()


def swapped_states(data: bytes) -> bytes:
    def swap(states: list[Any]) -> list[Any]:
        outputs = [states[1].output, states[0].output]
        return [replaced(s, output=o) for s, o in zip(states[:2], outputs, strict=True)] + states[2:]

    return spoil_contract(data, swap)


def dropped_state(data: bytes) -> bytes:
    """A state comes out as it went in: nothing is carried on."""
    state = read_contract(read_model(data)).states[-1]
    model = onnx.load_model_from_string(data)
    for node in model.graph.node:
        node.output[:] = ["lost" if name == state.output else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Identity", [state.input], [state.output]))
    return model.SerializeToString()


def wrong_start(data: bytes) -> bytes:
    return spoil_contract(data, lambda states: [*states[:-1], replaced(states[-1], initial=0.001)])


def test_a_good_model_agrees(pair: Pair, command: Command) -> None:
    result = command("parity", pair.model, "--against", pair.checkpoint, "--steps", 20, "--batch", 3)
    assert result.exit_code == 0, result.stderr
    assert "agrees with torch" in result.stdout
    assert "20 steps, batch 3, on cpu" in result.stdout
    told = json.loads(command("parity", pair.model, "--against", pair.checkpoint, "--json").stdout)
    assert told["agrees"] is True
    (runtime,) = told["runtimes"]
    assert set(runtime["max_errors"]) == {"start", "fed", "free", "chunks"}
    assert 0.01 < runtime["ratio"] < 30
    assert {check["name"] for check in runtime["checks"]} >= {"chunkings", "reset", "rows", "sampled text"}
    quiet = command("parity", pair.model, "--against", pair.checkpoint, "-q")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize("spoil", [tampered_weight, swapped_states, dropped_state, wrong_start])
def test_a_spoiled_model_is_caught(
    pair: Pair, command: Command, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    model = tmp_path / "spoiled.onnx"
    model.write_bytes(spoil(pair.model.read_bytes()))
    result = command("parity", model, "--against", pair.checkpoint, "--steps", 20, "--seed", 5)
    assert result.exit_code == 1, result.output
    assert "\nrnnx: error[parity]: " in result.stderr
    again = f"rnnx parity {model} --against {pair.checkpoint} --steps 20 --seed 5"
    assert again in result.stderr
    told = command("parity", model, "--against", pair.checkpoint, "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["agrees"] is False
    assert "Traceback" not in result.output


def test_random_weights_are_named_as_a_likely_cause(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\nclass Net(torch.nn.GRU):\n"
        "    def __init__(self):\n        super().__init__(2, 3, batch_first=True)\n"
    )
    source, model, weights = f"{tmp_path}/net.py:Net", tmp_path / "net.onnx", tmp_path / "net.pt"
    torch.save(torch.nn.GRU(2, 3).state_dict(), weights)
    asked = ("--inputs", "input=float32[batch, time, 2]", "--weights", weights)
    assert command("export", source, "-o", model, *asked).exit_code == 0
    without = command("parity", model, "--against", source, "--steps", 5)
    assert (without.exit_code, "give --weights" in without.stderr) == (1, True)
    assert command("parity", model, "--against", source, "--steps", 5, *asked[2:]).exit_code == 0


def test_the_trace_beside_the_model_replays(pair: Pair, command: Command) -> None:
    trace = pair.model.with_name("poet.trace.safetensors")
    result = command("parity", pair.model, "--trace", trace)
    assert result.exit_code == 0, result.stderr


def run_aside(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a command line where torch, onnx and onnxscript cannot be imported."""
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'rnnx_export'): sys.modules[name] = None\n"
        "from rnnx.cli import app\napp(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_trace_is_recorded_and_replays_without_torch(pair: Pair, command: Command, tmp_path: Path) -> None:
    trace = tmp_path / "t.safetensors"
    made = command("trace", pair.checkpoint, "--model", pair.model, "-o", trace, "--steps", 30, "--batch", 3)
    assert made.exit_code == 0, made.stderr
    assert "30 steps of torch" in made.stdout
    report = tmp_path / "r.html"
    replayed = run_aside("parity", pair.model, "--trace", trace, "--report", report)
    assert replayed.returncode == 0, replayed.stderr
    assert "30 steps, batch 3" in replayed.stdout
    assert "Agrees with torch" in report.read_text()
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(swapped_states(pair.model.read_bytes()))
    failed = run_aside("parity", bad, "--trace", trace)
    assert failed.returncode == 1
    assert "rnnx: error[parity]: " in failed.stderr
    other = command("trace", pair.model, "--model", pair.model, "-o", trace)
    assert other.exit_code == 2
    assert "the network as SOURCE" in other.stderr


def test_the_report_is_one_file_with_everything_in_it(pair: Pair, command: Command, tmp_path: Path) -> None:
    model, report = tmp_path / "bad.onnx", tmp_path / "r.html"
    model.write_bytes(tampered_weight(pair.model.read_bytes()))
    asked = ("parity", model, "--against", pair.checkpoint, "--steps", 20, "--report", report, "--bisect")
    result = command(*asked)
    assert result.exit_code == 1
    text = report.read_text()
    digest = hashlib.sha256(pair.checkpoint.read_bytes()).hexdigest()
    for part in (
        "Disagrees with torch",
        "PyTorch's own error",
        "<svg",
        'class="band"',
        read_model(model).id,
        digest,
        f"rnnx parity {model} --against {pair.checkpoint} --steps 20 --bisect",
        "Begins at step",
        "onnxruntime",
        "The contract",
    ):
        assert part in text, part
    assert "begins at step" in result.stdout
    # Nothing from elsewhere, nothing that runs.
    assert not re.search(r"<script|<link|@import|https?://|url\(", text)
    html = HTMLParser()
    html.feed(text)
    html.close()
    told = json.loads(command(*asked[:6], "--json").stdout)
    assert told["runtimes"][0]["failure"]["tensor"] in text


def test_the_document_is_as_its_schema_says(pair: Pair, command: Command) -> None:
    written = (REPOSITORY / "docs" / "parity.schema.json").read_text()
    assert written == json.dumps(schema(), indent=2) + "\n", "run scripts/write_schema"
    text = command("parity", pair.model, "--against", pair.checkpoint, "--json").stdout
    found = msgspec.json.decode(text, type=Parity)
    assert found.agrees
    assert found.versions["torch"]
    assert json.loads(found.to_json()) == json.loads(text)


def test_a_verdict_is_kept_in_the_model_until_a_weight_changes(
    pair: Pair, command: Command, tmp_path: Path
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(pair.model.read_bytes())
    before = read_model(model).id
    result = command("parity", model, "--against", pair.checkpoint, "--steps", 33, "--record")
    assert result.exit_code == 0, result.stderr
    assert "tamper-evident, not signed" in result.stderr
    assert read_model(model).id == before
    shown = command("inspect", model).stdout
    assert "33 steps at batches 2, tolerance float32" in shown
    assert "holds      yes" in shown
    model.write_bytes(tampered_weight(model.read_bytes()))
    assert "holds      NO: the file has changed" in command("inspect", model).stdout
    kept = model.read_bytes()
    failed = command("parity", model, "--against", pair.checkpoint, "--record")
    assert failed.exit_code == 1
    assert "nothing-to-record" in failed.stderr
    assert model.read_bytes() == kept


def test_ctrl_c_reports_what_was_done(
    pair: Pair, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rnnx.cli.console import Progress

    def update(self: Progress, done: float, note: str = "") -> None:
        if done == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", update)
    report = tmp_path / "r.html"
    asked = ("parity", pair.model, "--against", pair.checkpoint, "--steps", 100_000, "--report", report)
    result = command(*asked)
    assert result.exit_code == 130
    assert "(interrupted: so far): 30 steps" in result.stdout
    assert "It was interrupted" in report.read_text()


def test_inputs_may_be_recorded_or_the_models_own(command: Command, tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        torch.manual_seed(0)\n"
        "        self.gru = torch.nn.GRU(4, 4, batch_first=True)\n"
        "    def forward(self, x):\n"
        "        return self.gru(x)[0]\n"
    )
    model = tmp_path / "net.onnx"
    made = command("export", f"{source}:Net", "--inputs", "x=float32[batch, time, 4]", "-o", model)
    assert made.exit_code == 0, made.stderr
    np.save(tmp_path / "x.npy", np.ones((3, 17, 4), np.float32))
    against = ("parity", model, "--against", f"{source}:Net", "--json")
    told = json.loads(command(*against, "--input", tmp_path / "x.npy").stdout)
    assert (told["steps"], told["batch"], told["inputs"], told["seed"]) == (17, 3, "recorded", None)
    assert told["agrees"]
    told = json.loads(command(*against, "--drive", "own", "--steps", 300).stdout)
    assert told["agrees"]
    assert set(told["runtimes"][0]["max_errors"]) == {"start", "fed", "free"}
    assert command(*against, "--drive", "sideways").exit_code == 2
    np.save(tmp_path / "x.npy", np.ones((17, 4), np.float32))
    assert command(*against, "--input", tmp_path / "x.npy").exit_code == 2


def test_held_out_text_and_samples_are_compared(pair: Pair, command: Command, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abcd hgfe " * 30)
    asked = ("parity", pair.model, "--against", pair.checkpoint, "--text", tmp_path / "t.txt", "--json")
    result = command(*asked)
    assert result.stdout, result.stderr
    checks = {check["name"]: check for check in json.loads(result.stdout)["runtimes"][0]["checks"]}
    assert checks["sampled text"]["detail"] == "500 of 500 symbols agree"
    assert checks["held-out text"]["holds"]
    assert "nats a character" in checks["held-out text"]["detail"]
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(swapped_states(pair.model.read_bytes()))
    told = json.loads(command("parity", bad, *asked[2:]).stdout)
    held = {check["name"]: check["holds"] for check in told["runtimes"][0]["checks"]}
    assert held["held-out text"] is False


def test_runtimes_are_named_and_an_absent_one_says_so(pair: Pair, command: Command) -> None:
    against = ("parity", pair.model, "--against", pair.checkpoint, "--steps", 5)
    both = json.loads(command(*against, "--runtimes", "cpu,cpu", "--json").stdout)
    assert [runtime["provider"] for runtime in both["runtimes"]] == ["cpu", "cpu"]
    absent = command(*against, "--runtimes", "cpu,quantum")
    assert absent.exit_code == 2
    assert "provider-unknown" in absent.stderr


def test_commands_of_the_parity_page_run(
    pair: Pair, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pair.model.parent, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    page = (REPOSITORY / "docs" / "parity.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        result = command(*shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.stderr)


def test_another_network_is_no_reference(pair: Pair, command: Command, tmp_path: Path) -> None:
    network = CharNetwork(NetworkConfig("gru", len(SYMBOLS), 16))
    save_checkpoint(tmp_path / "other.safetensors", network, SYMBOLS)
    for source in (tmp_path / "other.safetensors", tmp_path / "absent.safetensors", pair.model):
        result = command("parity", pair.model, "--against", source)
        assert result.exit_code == 2, result.output


def test_a_report_overwrites_nothing_that_is_compared(pair: Pair, command: Command, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("held out")
    before = pair.checkpoint.read_bytes()
    for report in (pair.checkpoint, pair.model, text):
        arguments = ("parity", pair.model, "--against", pair.checkpoint, "--text", text, "--report", report)
        result = command(*arguments)
        assert result.exit_code == 2
        assert "error[output-is-input]" in result.stderr
    assert pair.checkpoint.read_bytes() == before
