"""`rnnx run` on sound and on raw values, of any length."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

import rnnx
from rnnx.formats.sound_file import Sound, encode_sound, read_sound
from support.replay_programs import GOLDEN

Command = Callable[..., Result]


def test_a_length_that_is_no_multiple_of_the_hop_is_said_to_be_that(command: Command, tmp_path: Path) -> None:
    model, x, y = GOLDEN / "hops.onnx", tmp_path / "x.npy", tmp_path / "y.npy"
    audio = np.random.default_rng(0).normal(size=(1, 500)).astype("f4")
    np.save(x, audio)
    refused = command("run", model, "-i", x, "-o", y, "-q")
    assert "expected whole steps of 160 entries each; found 3.125 steps; fix: --pad" in refused.stderr
    assert command("run", model, "-i", x, "-o", y, "-q", "--pad").exit_code == 0
    whole = rnnx.load(model).stream().run(np.pad(audio, ((0, 0), (0, 140))))["y"]
    np.testing.assert_allclose(np.load(y), whole[:, :500], rtol=1e-5, atol=1e-5)
    line = [sys.executable, "-m", "rnnx.cli", "run", model, "-i", "-", "-o", "-", "-q"]
    raw = subprocess.run([*line, "--pad"], input=audio.tobytes(), capture_output=True, check=True)
    np.testing.assert_allclose(np.frombuffer(raw.stdout, "f4"), whole[0, :500], rtol=1e-5, atol=1e-5)
    told = subprocess.run(line, input=audio.tobytes(), capture_output=True).stderr
    assert b"80 bytes after 3 steps" in told


def test_sound_goes_in_and_comes_out(command: Command, tmp_path: Path) -> None:
    model, x, y = GOLDEN / "hops.onnx", tmp_path / "x.wav", tmp_path / "y.wav"
    samples = np.random.default_rng(0).uniform(-1, 1, (500, 1)).astype("f4")
    x.write_bytes(encode_sound(x, Sound(samples, 16000, "FLOAT")))
    result = command("run", model, "-i", x, "-o", y, "-q", "--pad")
    assert result.exit_code == 0, result.stderr
    whole = rnnx.load(model).stream().run(np.pad(samples.T, ((0, 0), (0, 140))))["y"]
    found = read_sound(y)
    assert (found.rate, found.kind) == (16000, "FLOAT")
    np.testing.assert_allclose(found.samples[:, 0], whole[0, :500], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "fix"),
    [
        (("-i", "x.f32", "-o", "y.npy"), "--input - < x.f32"),
        (("-i", "x.npy", "-o", "y.f32"), "--output - > y.f32"),
    ],
)
def test_raw_files_are_sent_where_raw_values_go(command: Command, flags: tuple[str, ...], fix: str) -> None:
    refused = command("run", GOLDEN / "hops.onnx", *flags)
    assert refused.exit_code == 2
    assert fix in refused.stderr
