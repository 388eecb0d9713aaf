"""docs/shipping.md: its ten commands, in a folder of their own, and the test that they end with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from conftest import REPOSITORY
from support.replay_programs import library, prepare

PAGE = (REPOSITORY / "docs" / "shipping.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_ten_commands_lead_from_a_module_to_a_program(tmp_path: Path) -> None:
    prepare("c")
    module, test = blocks("python")
    (tmp_path / "denoiser.py").write_text(module)
    (tmp_path / "test_denoiser.py").write_text(test)
    commands = "".join(blocks("console"))
    assert len(commands.strip().splitlines()) == 10
    script = REPOSITORY / "scripts" / "onnxruntime_headers"
    headers = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": places, "RNNX_ONNXRUNTIME": library()}
    done = subprocess.run(
        ["bash", "-e", "-c", commands.replace("/path/to/onnxruntime/include", headers)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "agrees: 12 steps" in done.stderr
    for state in ("past", "rnn.h"):
        assert state in done.stdout
    assert (tmp_path / "report.html").is_file()
    clean, in_c = (np.fromfile(tmp_path / name, np.float32) for name in ("clean.raw", "clean-in-c.raw"))
    assert clean.shape == (300 * 129,)
    np.testing.assert_allclose(in_c, clean, rtol=2e-5, atol=2e-5)
    passed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert passed.returncode == 0, passed.stdout
    assert "1 passed" in passed.stdout
