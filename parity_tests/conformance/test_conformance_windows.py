"""The C runtime for Windows: built by MinGW-w64, and run in Wine where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import REPOSITORY
from support.replay_programs import GOLDEN, MODELS

Tool = Callable[[str], str]


@pytest.fixture(scope="module")
def program(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its `replay`, linked without a DLL of the compiler."""
    folder = tmp_path_factory.mktemp("windows")
    script = REPOSITORY / "scripts" / "onnxruntime_headers"
    headers = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    options = {
        "CMAKE_SYSTEM_NAME": "Windows",
        "CMAKE_C_COMPILER": tool("x86_64-w64-mingw32-gcc"),
        "CMAKE_C_FLAGS": "-Werror -Wno-float-conversion",  # MinGW's isnan converts by itself
        "CMAKE_EXE_LINKER_FLAGS": "-static",
        "ONNXRUNTIME_INCLUDE_DIR": headers,
    }
    words = ["cmake", "-S", REPOSITORY / "runtimes" / "c", "-B", folder]
    for command in (
        [*words, *(f"-D{name}={value}" for name, value in options.items())],
        ["cmake", "--build", folder, "--target", "replay"],
    ):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "replay.exe"


def test_it_is_a_program_for_windows_that_needs_its_own_dlls_alone(program: Path, tool: Tool) -> None:
    said = subprocess.run(
        [tool("x86_64-w64-mingw32-objdump"), "-p", program], capture_output=True, text=True, check=True
    )
    needed = {line.split()[-1].lower() for line in said.stdout.splitlines() if "DLL Name" in line}
    assert needed
    assert needed <= {"kernel32.dll", "msvcrt.dll"}


def test_golden_models_agree_in_wine(program: Path, tmp_path: Path) -> None:
    library = os.environ.get("RNNX_ONNXRUNTIME_WINDOWS")  # a path in Wine's words: Z:\\...\\onnxruntime.dll
    if library is None or shutil.which("wine") is None:
        pytest.skip("not run: it needs wine, and RNNX_ONNXRUNTIME_WINDOWS with the path of onnxruntime.dll")
    own = {"WINEPREFIX": str(tmp_path), "WINEDEBUG": "-all", "RNNX_ONNXRUNTIME": library}
    for model in MODELS:
        done = subprocess.run(
            ["wine", program, f"{model}.onnx", f"{model}.trace.safetensors", "--json"],
            cwd=GOLDEN, env=os.environ | own, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["agrees"]
