"""Install each file of a release as its ecosystem does, and run a program on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import release
from commands import call

import rnnx
from rnnx import __version__ as version

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
MODEL = ROOT / "parity_tests" / "golden" / "gru.onnx"
NODE_ENGINE = "onnxruntime-node@1.30.0"
TOLERANCE = 1e-5
ON_CI = os.environ.get("CI", "").lower() in ("1", "true")  # where a tool that is missing is a failure
TOOLS = {"c": ("cmake", "cc"), "cpp": ("cmake", "c++"), "rust": ("cargo",), "go": ("go",), "node": ("npm",)}
TOOLS |= {"java": ("mvn", "java")}
Words = list[str | Path]


def main(words: list[str]) -> int:
    """Run the programs of some languages, or of all; 1 if the numbers of one are others than Python's."""
    languages = [word for word in words if word != "--built"]
    unknown = [name for name in languages if name not in CONSUMERS]
    if unknown:
        known = ", ".join(CONSUMERS)
        print(f"newcomer: expected languages of {known}; found {', '.join(unknown)}; fix: name these")
        return 2
    missing = {name: tool for name, tools in TOOLS.items() for tool in tools if shutil.which(tool) is None}
    chosen = [name for name in languages or CONSUMERS if name not in missing]
    if "--built" not in words:
        release.main(list(dict.fromkeys("c" if name == "cpp" else name for name in chosen)))
    wrong = [name for name in languages or CONSUMERS if name in missing and ON_CI]
    for name in languages or CONSUMERS:
        if name in missing:
            print(f"{name}: not run: {missing[name]} is not installed")
    expected = numbers()
    for language in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            folder = shutil.copytree(ROOT / "scripts" / "consumers" / language, Path(name) / "newcomer")
            said = CONSUMERS[language](folder)
        got = np.array([[float(word) for word in line.split()] for line in said.splitlines()])
        good = got.shape == expected.shape and bool(np.abs(got - expected).max() < TOLERANCE)
        shown = (
            f"largest difference {np.abs(got - expected).max():.1e}" if got.shape == expected.shape else said
        )
        print(f"{language}: {'agrees' if good else 'DISAGREES'}, {shown}, {time.monotonic() - began:.0f} s")
        wrong += [] if good else [language]
    return 1 if wrong else 0


def numbers() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return what the programs have to print: five steps of the model, [step, value]."""
    stream = rnnx.load(MODEL).stream()
    frames = [[((step * 31 + at * 7) % 19) / 9.5 - 1 for at in range(4)] for step in range(5)]
    return np.array([stream.step(np.array([frame], np.float32))["y"][0] for frame in frames])


def alone(*words: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command as somebody without this checkout would."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["PATH"] = os.pathsep.join(
        place for place in clean["PATH"].split(os.pathsep) if not Path(place).is_relative_to(ROOT)
    )
    return call(*words, cwd=cwd, env=clean | environment)


def engine() -> str:
    """Return the shared library of ONNX Runtime, which C, C++, Rust and Go programs are told of."""
    return subprocess.check_output([ROOT / "scripts" / "onnxruntime_library"], text=True).strip()


def python(folder: Path) -> str:
    """Install the wheel with its engine, without PyTorch; its command line makes the same text as ours."""
    alone(sys.executable, "-m", "venv", "venv", cwd=folder)
    own = folder / "venv" / "bin"
    wheel = f"{DIST / f'rnnx-{version}-py3-none-any.whl'}[cpu]"
    flags: Words = ["--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    alone(own / "python", "-m", "pip", "install", *flags, wheel, cwd=folder)
    found = alone(own / "python", "-c", "import importlib.util as i; print(i.find_spec('torch'))", cwd=folder)
    if found.strip() != "None":
        sys.exit(
            f"newcomer: expected rnnx[cpu] without torch; found {found.strip()}; fix: see what it depends on"
        )
    alone(own / "rnnx", "inspect", MODEL, cwd=folder)
    text = MODEL.with_name("characters.onnx")
    words: Words = ["run", text, "--prompt", first_symbol(text), "--length", "40", "--seed", "7", "-q"]
    if alone(own / "rnnx", *words, cwd=folder) != subprocess.check_output(
        ["rnnx", *map(str, words)], text=True
    ):
        sys.exit("newcomer: expected the same text with and without torch; found another")
    return alone(own / "python", "main.py", MODEL, cwd=folder)


def first_symbol(model: Path) -> str:
    """Return a prompt that a model over symbols knows."""
    vocabulary = rnnx.load(model).contract.vocabulary
    assert vocabulary is not None
    return vocabulary.symbols[0]


def cmake(folder: Path) -> str:
    """Unpack the CMake package and find it."""
    name = f"rnnx-c-{version}-{os.uname().sysname.lower()}-{os.uname().machine}"
    alone("tar", "-xzf", DIST / f"{name}.tar.gz", cwd=folder)
    alone("cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={folder / name}", cwd=folder)
    alone("cmake", "--build", "build", cwd=folder)
    return alone(folder / "build" / "newcomer", MODEL, cwd=folder, RNNX_ONNXRUNTIME=engine())


def rust(folder: Path) -> str:
    """Unpack the crate beside the program, and build both."""
    alone("tar", "-xzf", DIST / f"rnnx-{version}.crate", cwd=folder)
    (folder / f"rnnx-{version}").rename(folder / "rnnx")
    kept = ROOT / "build" / "newcomer-rust"  # what was compiled of other crates
    flags: Words = ["--quiet", "--target-dir", kept]
    return alone("cargo", "run", *flags, "--", MODEL, cwd=folder, RNNX_ONNXRUNTIME=engine())


def go(folder: Path) -> str:
    """Unpack the module beside the program, and put it in the place of the one that is asked for."""
    with zipfile.ZipFile(DIST / f"rnnx-go-{version}.zip") as archive:
        archive.extractall(folder)
    module = f"rnnx@v{version}"
    alone("go", "mod", "edit", "-require", module, "-replace", f"rnnx=./{module}", cwd=folder)
    alone("go", "mod", "tidy", cwd=folder)
    return alone("go", "run", ".", MODEL, cwd=folder, RNNX_ONNXRUNTIME=engine())


def node(folder: Path) -> str:
    """Install the package with an engine."""
    flags: Words = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    alone("npm", "install", *flags, DIST / f"rnnx-npm-{version}.tgz", NODE_ENGINE, cwd=folder)
    return alone("node", "main.js", MODEL, cwd=folder)


def java(folder: Path) -> str:
    """Install the jar into a local repository that is taken away again, and build a program that names it."""
    jar, pom = DIST / f"rnnx-{version}.jar", DIST / f"rnnx-{version}.pom"
    quiet = ["-q", "-B"]
    try:
        alone("mvn", *quiet, "install:install-file", f"-Dfile={jar}", f"-DpomFile={pom}", cwd=folder)
        alone("mvn", *quiet, "package", "dependency:copy-dependencies", cwd=folder)
        program = f"target/newcomer-0.1.0.jar{os.pathsep}target/dependency/*"
        return alone("java", "-cp", program, "newcomer.Newcomer", MODEL, cwd=folder)
    finally:
        shutil.rmtree(Path.home() / ".m2" / "repository" / "rnnx", ignore_errors=True)


CONSUMERS: dict[str, Callable[[Path], str]] = {
    "python": python,
    "c": cmake,
    "cpp": cmake,
    "rust": rust,
    "go": go,
    "node": node,
    "java": java,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
