"""`rnnx train` as a user calls it, in a process of its own."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rnnx.cli import app
from rnnx_models.checkpoint import load_checkpoint

SMALL = ["--hidden-size", "12", "--batch-size", "4", "--sequence-length", "8"]
WORDS = ["def ", "return ", "self.", "for x in y:\n", "    ", "if not ", "else:\n"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for index in range(30):
        (folder / f"{index:02}.py").write_text("".join(random.Random(index).choices(WORDS, k=60)))
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "rnnx.cli", "train", *map(str, arguments)]


def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
        **options,
    )


def test_it_trains_and_says_what_it_made(texts: Path, tmp_path: Path) -> None:
    done = call(texts, "-o", "poet.safetensors", "--cell", "gru", "--steps", 60, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next         rnnx export poet.safetensors -o poet.onnx" in done.stdout
    assert "nats a character (order 3, Witten-Bell)" in done.stdout
    assert "30 files" in done.stderr
    assert "characters/s" in done.stderr
    assert load_checkpoint(tmp_path / "poet.safetensors").config.cell == "gru"
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert names == ["poet.loss.png", "poet.resume.safetensors", "poet.safetensors"]


def test_quiet_prints_nothing(texts: Path, tmp_path: Path) -> None:
    done = call(texts, "-o", tmp_path / "poet.safetensors", "--steps", 3, "--quiet", *SMALL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "poet.safetensors").exists()


def test_all_flags_reach_the_network_and_json_is_for_programs(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    flags = (
        "--cell rnn --num-layers 2 --nonlinearity relu --encoding embedding --embedding-size 5 --dropout 0.1"
    )
    more = "--steps 5 --learning-rate 0.001 --seed 18446744073709551615 --held-out 0.2 --vocabulary-size 12"
    done = call(
        texts, "-o", output, *flags.split(), *more.split(), "--exclude", "0?.py", "--json", "-q", *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    assert summary["checkpoint"] == str(output)
    assert summary["loss_curve"] == str(tmp_path / "poet.loss.png")
    assert (summary["steps"], summary["symbols"], summary["interrupted"]) == (5, 12, False)
    assert summary["held_out_nats"] > summary["count_model_nats"] > 0
    checkpoint = load_checkpoint(output)
    config, record = checkpoint.config, checkpoint.record
    assert (config.cell, config.num_layers, config.nonlinearity) == ("rnn", 2, "relu")
    assert (config.encoding, config.embedding_size, config.dropout) == ("embedding", 5, 0.1)
    assert (config.hidden_size, config.vocabulary_size) == (12, 12)
    assert record is not None
    assert record.seed == 2**64 - 1


def test_ctrl_c_and_resume(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    arguments = (texts, "-o", output, "--json", "--steps", 1_000_000, *SMALL)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 40
        while not output.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    stopped = json.loads(out)
    assert stopped["interrupted"]
    assert stopped["best_step"] == 50
    steps = stopped["steps"] + 20
    done = call(texts, "-o", output, "--json", "--resume", "--steps", steps, *SMALL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == steps


def broken(texts: Path, case: str) -> list[object]:
    """Return the arguments of a call that must fail."""
    output = texts.parent / "poet.safetensors"
    if case == "text-not-utf8":
        (texts / "bad.txt").write_bytes(b"good\xff")
    if case == "no-text":
        texts = texts.parent / "empty"
        texts.mkdir()
    if case == "output-is-input":
        output = texts / "00.py"
    flags: dict[str, list[object]] = {
        "text-missing": [texts / "nowhere"],
        "text-too-short": ["--sequence-length", 100_000],
        "network-invalid": ["--cell", "lstm", "--nonlinearity", "relu"],
        "training-options-invalid": ["--minutes", 1],
        "output-folder-missing": ["-o", texts / "missing" / "x.safetensors"],
        "output-is-folder": ["-o", texts],
        "file-missing": ["--resume"],
        "vocabulary-size-invalid": ["--vocabulary-size", 1],
    }
    return [texts, "-o", output, "--steps", 3, *flags.get(case, [])]


@pytest.mark.parametrize(
    "case",
    [
        "text-not-utf8",
        "no-text",
        "output-is-input",
        "text-missing",
        "text-too-short",
        "network-invalid",
        "training-options-invalid",
        "output-folder-missing",
        "output-is-folder",
        "file-missing",
        "vocabulary-size-invalid",
    ],
)
def test_bad_input_gets_one_line_and_exit_2(
    texts: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "poet.safetensors"
    good.write_bytes(b"an earlier result")
    arguments = broken(texts, case)
    before = sorted(tmp_path.rglob("*"))
    contents = [path.read_bytes() for path in before if path.is_file()]
    with pytest.raises(SystemExit) as ended:
        app(["train", *map(str, arguments), "--quiet"])
    out, err = capsys.readouterr()
    assert ended.value.code == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert f"[{case}]" in err
    assert sorted(tmp_path.rglob("*")) == before, "nothing half-written"
    assert [path.read_bytes() for path in before if path.is_file()] == contents


def test_a_full_disk_leaves_the_earlier_checkpoint(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    output.write_bytes(b"an earlier result")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = call(texts, "-o", output, "--steps", 5, *SMALL, "-q", preexec_fn=limit)
    assert done.returncode == 2
    assert "[disk-full]" in done.stderr
    assert output.read_bytes() == b"an earlier result"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["poet.safetensors", "texts"]


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["train", "--help"])
    assert not ended.value.code
    assert "rnnx train texts/ -o poet.safetensors" in capsys.readouterr().out
