"""Many sequences through a pool: `run_sequences`, `rnnx run --pool`, and docs/pool.md."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from onnx import helper
from typer.testing import Result

import rnnx
from cases import onnx_models
from conftest import REPOSITORY
from rnnx.errors import InputError, RnnxError, UsageError
from rnnx.formats.array_files import write_arrays
from rnnx.model.contract import Contract, InputSpec, OutputSpec
from rnnx.pool.pool import Pool
from rnnx.sequences import run_sequences
from support.pool_models import SESSIONS, agree, dims_of, inputs_of
from support.results import refused

Array = np.ndarray[Any, Any]
Command = Callable[..., Result]
PAGE = REPOSITORY / "docs" / "pool.md"
LENGTHS = (30, 1, 7, 7, 300, 12, 2, 45)


@pytest.mark.parametrize("capacity", [1, 3, 64])
@pytest.mark.parametrize("name", SESSIONS)
def test_each_sequence_gives_what_it_gives_alone(name: str, capacity: int) -> None:
    session, random = SESSIONS[name], np.random.default_rng(0)
    lengths = [30] * 8 if name == "counted_steps" else LENGTHS
    sequences = {
        str(index): inputs_of(session.contract, random, length) for index, length in enumerate(lengths)
    }
    steps: list[int] = []
    found = dict(
        run_sequences(session, sequences.items(), capacity=capacity, chunk=16, advanced=steps.append)
    )
    assert sum(steps) == sum(lengths)
    assert found.keys() == sequences.keys()
    for key, inputs in sequences.items():
        agree(found[key], session.stream(dims=dims_of(name)).run(inputs))


def test_rows_are_busy_until_no_sequence_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[tuple[int, int]] = []
    run = Pool._run_matched

    def counted(self: Pool, given: Any) -> Any:
        counts.append((len(given), next(iter(given.values()))[0]["x"].shape[1]))
        assert (self.capacity, len(self.streams)) == (4, len(given))
        return run(self, given)

    monkeypatch.setattr(Pool, "_run_matched", counted)
    pulled = []

    def sequences() -> Iterator[tuple[int, Array]]:
        for index in range(40):
            pulled.append(index)
            yield index, np.ones((1, 1 + index * 7 % 20, 3), "f4")

    results = run_sequences(SESSIONS["lstm"], sequences(), capacity=4)
    next(results)
    assert len(pulled) == 4
    list(results)
    full = sum(count * steps for count, steps in counts if count == 4)
    assert full >= sum(1 + index * 7 % 20 for index in range(40)) - 3 * 20
    assert all(count == 4 for count, _ in counts[:-3])


def test_results_in_order_come_from_a_bounded_window() -> None:
    """One long sequence holds up those behind it; no more of them are begun than the window has."""
    lengths = [200] + [1 + index * 7 % 20 for index in range(60)]
    pulled, most = 0, 0

    def sequences() -> Iterator[tuple[int, Array]]:
        nonlocal pulled
        for index, length in enumerate(lengths):
            pulled += 1
            yield index, np.full((1, length, 3), index, "f4")

    session, found = SESSIONS["lstm"], []
    for index, outputs in run_sequences(session, sequences(), capacity=3, chunk=8, in_order=True):
        most = max(most, pulled - len(found))
        found.append(index)
        agree(outputs, session.stream().run(np.full((1, lengths[index], 3), index, "f4")))
    assert found == list(range(len(lengths)))
    assert (
        3 < most <= 4 * 3 + 1
    )  # one is asked for when the next row is free, before it is known to be the last


def test_sequences_with_other_free_dimensions_run_beside_each_other() -> None:
    session, random = SESSIONS["attention_stateless"], np.random.default_rng(0)
    sequences = []
    for index, size in enumerate((3, 5, 3, 4, 5)):
        x = random.normal(size=(1, 4 + index, 4)).astype("f4")
        sequences.append((index, {"x": x, "memory": random.normal(size=(1, size, 4)).astype("f4")}))
    for index, outputs in run_sequences(session, sequences, capacity=3):
        agree(outputs, session.stream().run(sequences[index][1]))
    bound = SESSIONS["attention"]
    with pytest.raises(InputError, match=r"memory=3.*in the input of 1;"):
        list(run_sequences(bound, sequences))


def test_sequences_with_other_values_for_all_rows_run_beside_each_other() -> None:
    contract = Contract(
        name="scaled",
        inputs=[
            InputSpec(name="x", dtype="float32", shape=["batch", "time"]),
            InputSpec(name="gain", dtype="float32", shape=[], default=1.0),
        ],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch", "time"])],
        states=[],
    )
    session = rnnx.load(onnx_models.build([helper.make_node("Mul", ["x", "gain"], ["y"])], contract))
    x = np.arange(1, 40, dtype="f4")[None]
    gains = (2, 3, None, 2, 1, 3)
    sequences = [(index, {"x": x[:, index:], "gain": gain}) for index, gain in enumerate(gains)]
    found = dict(run_sequences(session, sequences, capacity=4, chunk=5))
    for index, gain in enumerate(gains):
        assert (found[index]["y"] == x[:, index:] * (gain or 1)).all()


def test_sequences_that_make_no_sense_are_refused_by_name() -> None:
    session, good = SESSIONS["lstm"], np.ones((1, 4, 3), "f4")
    bad = good.copy()
    bad[0, 2, 1] = np.nan
    cases: list[tuple[Any, str]] = [
        (bad, "non-finite"),
        (good[:, :0], "empty-time"),
        (np.ones((2, 4, 3), "f4"), "wrong-shape"),
        (good.astype("f8"), "wrong-dtype"),
    ]
    for wrong, code in cases:
        for sequences in ([("a", good), ("b", wrong)], [("b", wrong)]):
            with pytest.raises(RnnxError, match="in the input of b;") as caught:
                list(run_sequences(session, sequences))
            assert caught.value.code == code
    with pytest.raises(UsageError):
        run_sequences(session, [], chunk=0)
    with pytest.raises(InputError):
        run_sequences(session, [], capacity=0)
    assert list(run_sequences(session, [])) == []
    with pytest.raises(InputError, match="states of batch 1, capacity 1000000000000, twice") as caught:
        list(run_sequences(session, [("a", good)], capacity=10**12))
    assert "in the input of" not in str(caught.value)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, a folder of recordings in every format, and the same as JSON lines."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lstm.onnx").write_bytes(onnx_models.lstm())
    (tmp_path / "recordings").mkdir()
    random, lines = np.random.default_rng(0), []
    for index, steps in enumerate(LENGTHS):
        x = random.normal(size=(1, steps, 3)).astype("f4")
        ending = ("npy", "npz", "safetensors")[index % 3]
        write_arrays(tmp_path / "recordings" / f"take{index}.{ending}", {"x": x})
        lines.append(json.dumps({"x": x[0].tolist()} if index % 2 else x[0].tolist()))
    (tmp_path / "recordings" / "notes.txt").write_text("no recording")
    (tmp_path / "sequences.jsonl").write_text("\n\n".join(lines))
    return tmp_path


def recorded(path: Path) -> Any:
    """Read with NumPy and safetensors themselves, so that what others will read is tested."""
    if path.suffix == ".safetensors":
        return next(iter(safetensors.numpy.load_file(path).values()))
    found = np.load(path)
    return found if isinstance(found, np.ndarray) else next(iter(dict(found).values()))


def test_a_folder_of_recordings(network: Path, command: Command) -> None:
    result = command("run", "lstm.onnx", "--pool", "-i", "recordings", "-o", "results", "--capacity", 3)
    assert result.exit_code == 0, result.stderr
    assert "8/8 sequences" in result.stderr
    assert f"{sum(LENGTHS)} steps" in result.stderr
    assert result.stdout == ""
    names = sorted(path.name for path in (network / "recordings").iterdir() if path.suffix != ".txt")
    assert sorted(path.name for path in (network / "results").iterdir()) == names
    for name in names:
        expected = rnnx.load("lstm.onnx").stream().run(recorded(network / "recordings" / name))
        agree({"y": recorded(network / "results" / name)}, expected)


@pytest.mark.parametrize("output", ["-", "results.jsonl"])
def test_json_lines_keep_their_order(network: Path, command: Command, output: str) -> None:
    result = command("run", "lstm.onnx", "--pool", "-i", "sequences.jsonl", "-o", output, "--capacity", 3)
    assert result.exit_code == 0, result.stderr
    text = result.stdout if output == "-" else (network / output).read_text()
    found = [np.array(json.loads(line)["y"], "f4") for line in text.splitlines()]
    assert [len(rows) for rows in found] == list(LENGTHS)
    for index, rows in enumerate(found):
        (path,) = (network / "recordings").glob(f"take{index}.*")
        agree({"y": rows[None]}, rnnx.load("lstm.onnx").stream().run(recorded(path)))


def test_json_lines_are_written_as_they_are_read(network: Path, command: Command) -> None:
    """A bad line does not matter to those long before it; a file is there whole or not at all."""
    (network / "long.jsonl").write_text("[[1, 2, 3]]\n" * 30 + "{\n")
    arguments = ("run", "lstm.onnx", "--pool", "-i", "long.jsonl", "--capacity", 2, "-q", "-o")
    result = command(*arguments, "-")
    assert result.exit_code == 2
    assert "line 31 of long.jsonl" in result.stderr
    lines = result.stdout.splitlines()
    assert 30 - 4 * 2 <= len(lines) <= 30
    assert len(set(lines)) == 1
    result = command(*arguments, "r.jsonl")
    refused(result, "not-json-lines")
    assert not (network / "r.jsonl").exists()


def test_json_lines_of_several_outputs_and_infinities(command: Command, tmp_path: Path) -> None:
    (tmp_path / "gained.onnx").write_bytes(onnx_models.gained())
    line = {"x": [[1, 2, 3], [4, 5, 6]], "gain": 2, "lengths": 1}
    (tmp_path / "in.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps({'x': [[3e38] * 3] * 2})}\n")
    result = command("run", tmp_path / "gained.onnx", "--pool", "-i", tmp_path / "in.jsonl", "-o", "-", "-q")
    assert result.exit_code == 0, result.stderr
    first, second = map(json.loads, result.stdout.splitlines())
    assert first == {"y": [[2, 4, 6], [2, 4, 6]], "last": [2, 4, 6]}
    assert second["last"] == ["inf"] * 3


def test_recordings_that_do_not_fit_are_refused_by_name(network: Path, command: Command) -> None:
    def run(*arguments: str) -> Result:
        return command("run", "lstm.onnx", "--pool", *arguments, "-q")

    folders = ("-i", "recordings", "-o", "results")
    lines = ("-i", "sequences.jsonl", "-o", "r.jsonl")
    refused(run(), "arguments")
    refused(run("-i", "recordings"), "arguments")
    refused(run("-i", "lstm.onnx", "-o", "r.jsonl"), "arguments")
    refused(run("-i", "none.jsonl", "-o", "r.jsonl"), "file-missing")
    refused(run("-i", "sequences.jsonl", "-o", "r.npy"), "arguments")
    refused(run("-i", "sequences.jsonl", "-o", "sequences.jsonl"), "output-is-input")
    refused(run("-i", "recordings", "-o", "recordings"), "output-is-input")
    refused(run("-i", "recordings", "-o", "-"), "arguments")
    refused(run("-i", "recordings", "-o", "lstm.onnx"), "arguments")
    for name in ("r.jsonl", "r.NPY", "r.npz", "r.safetensors"):  # no folder that is called as a file is
        refused(run("-i", "recordings", "-o", name), "arguments")
    refused(run("-i", "recordings", "-o", "nowhere/results"), "output-folder-missing")
    refused(run(*folders, "--save-state", "s"), "arguments")
    refused(run(*folders, "--prompt", "a"), "arguments")
    assert not (network / "results").exists()
    (network / "empty").mkdir()
    refused(run("-i", "empty", "-o", "results"), "no-sequences")
    np.save(network / "recordings" / "take1.npy", np.ones((1, 2, 3), "f4"))
    refused(run(*folders), "no-sequences")
    (network / "recordings" / "take1.npy").unlink()
    np.save(network / "recordings" / "take9.npy", np.full((1, 2, 3), np.nan, "f4"))
    result = run(*folders)
    refused(result, "non-finite")
    assert "take9.npy" in result.stderr
    for text, code in (
        ("{", "not-json-lines"),
        ("[[1, 2]]", "wrong-shape"),
        ("[]", "empty-time"),
        ('{"z": 1}', "unknown-input"),
    ):
        (network / "bad.jsonl").write_text(f"[[1, 2, 3]]\n{text}\n")
        result = run("-i", "bad.jsonl", "-o", "r.jsonl")
        refused(result, code)
        assert "line 2 of bad.jsonl" in result.stderr
    (network / "bad.jsonl").write_text("\n")
    refused(run("-i", "bad.jsonl", "-o", "r.jsonl"), "no-sequences")
    assert not (network / "r.jsonl").exists()
    assert run(*lines).exit_code == 0


def test_the_page_runs(network: Path, command: Command) -> None:
    def blocks(language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)

    space: dict[str, Any] = {}
    assert len(blocks("python")) == 6
    for block in blocks("python"):
        exec(compile(block, PAGE.name, "exec"), space)
    (block,) = blocks("console")
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "rnnx"
        result = command(*arguments)
        assert result.exit_code == 0, result.stderr
    sources = "".join(
        path.read_text() for path in (REPOSITORY / "runtimes" / "python" / "rnnx").rglob("*.py")
    )
    for code in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", PAGE.read_text()):
        assert f'"{code}"' in sources or f'f"{code.split("-")[0]}-' in sources, code
