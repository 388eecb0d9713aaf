"""The `replay` programs of all languages: built once, run on the models in golden/ (docs/conformance.md)."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from conftest import REPOSITORY, not_run
from rnnx import replay

GOLDEN = REPOSITORY / "parity_tests" / "golden"
MODELS = sorted(path.stem for path in GOLDEN.glob("*.onnx"))
# By language: the programs that build and run its runtime. A runtime that is not there is not tested.
TOOLS = {
    "python": (),
    "c": ("cmake", "cc"),
    "cpp": ("cmake", "c++"),
    "rust": ("cargo",),
    "go": ("go",),
    "java": ("java", "mvn"),
    "node": ("node", "npm"),
}
READERS = ("c", "rust", "go", "java", "node")  # with a program that reads contracts alone; C++ has C's reader
SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Said:
    """What a program printed as JSON, and its exit code."""

    code: int
    value: dict[str, Any]


def run(language: str, *arguments: str | Path, folder: Path = GOLDEN) -> Said:
    """Run `replay ARGUMENTS --json` of `language` in `folder`.

    Skips the test where the language's tools are missing, and fails it on CI.
    """
    words = [str(argument) for argument in (*arguments, "--json")]
    if language == "python":
        printed = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
            code = replay.main(words)
        return Said(code, json.loads(printed.getvalue()))
    command, library = prepare(language)
    environment = {**os.environ, "RNNX_ONNXRUNTIME": library}
    done = subprocess.run(
        [*command, *words], cwd=folder, env=environment, capture_output=True, timeout=SECONDS
    )
    told = done.stdout.decode() + done.stderr.decode()
    assert done.returncode in (0, 1, 2), f"{language} {' '.join(words)} ended with {done.returncode}: {told}"
    assert done.stdout.strip(), f"{language} {' '.join(words)} printed nothing: {told}"
    return Said(done.returncode, json.loads(done.stdout))


def prepare(language: str) -> tuple[list[str], str]:
    """Build the program of `language`; return the words of its command, and ONNX Runtime's library."""
    if missing := missing_tools(language):
        not_run(missing)
    return _built(language, "--command"), library()


def missing_tools(language: str) -> str:
    """Return which tools `language` lacks here; "" for none."""
    missing = [tool for tool in TOOLS[language] if shutil.which(tool) is None]
    return f"{language} ({' and '.join(missing)} not found)" if missing else ""


def contract_reader(language: str) -> list[str]:
    """Build the program of `language` that reads contracts alone; return the words of its command."""
    return _built(language, "--contracts")


@functools.cache
def _built(language: str, program: str) -> list[str]:
    """Build one language at a time: the workers of a parallel run share the folders."""
    with open(REPOSITORY / ".venv" / "replay.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _printed("replay", program, language).splitlines()


@functools.cache
def library() -> str:
    return _printed("onnxruntime_library").strip()


def _printed(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [REPOSITORY / "scripts" / script, *arguments], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
