"""Each runtime as a package: in a project of its user's, outside the repository.

Those of C and C++ are in test_conformance_c.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import rnnx
from cases.onnx_models import lstm
from conftest import REPOSITORY
from rnnx.scaffold import embed
from support.replay_programs import GOLDEN, prepare

RUNTIMES = REPOSITORY / "runtimes"
# Where a version of rnnx is written. Rust's own is that of its manifest.
VERSIONS = {
    "pyproject.toml": r'^version = "(.*)"$',
    "runtimes/c/rnnx.h": r'^#define RNNX_VERSION "(.*)"$',
    "runtimes/c/CMakeLists.txt": r"^project\(rnnx VERSION (\S+) ",
    "runtimes/go/session.go": r'^const Version = "(.*)"$',
    "runtimes/java/pom.xml": r"^  <version>(.*)</version>$",
    "runtimes/java/README.md": r"`rnnx:rnnx:(.*?)`",
    "runtimes/java/src/main/java/rnnx/Rnnx.java": r'String version\(\) {\s+return "(.*)";$',
    "runtimes/node/package.json": r'^  "version": "(.*)",$',
    "runtimes/node/README.md": r"/rnnx-(.*)\.tgz",
    "runtimes/node/src/rnnx.js": r'^export const VERSION = "(.*)";$',
    "runtimes/web/README.md": r"/rnnx-(.*)\.tgz",
    "runtimes/rust/Cargo.toml": r'^name = "rnnx"\nversion = "(.*)"$',
}


@pytest.mark.parametrize("path", VERSIONS)
def test_the_version_is_that_of_the_python_package(path: str) -> None:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert re.findall(VERSIONS[path], text, flags=re.MULTILINE) == [rnnx.__version__]


def test_rust_has_the_version_of_its_manifest() -> None:
    text = (RUNTIMES / "rust" / "src" / "lib.rs").read_text(encoding="utf-8")
    assert 'pub const VERSION: &str = env!("CARGO_PKG_VERSION");' in text


def copied(language: str, folder: Path) -> Path:
    """Copy a runtime's folder, without what was built in it."""
    ignored = shutil.ignore_patterns("build", "target", "node_modules", "types", "*.tgz")
    return shutil.copytree(RUNTIMES / language, folder, ignore=ignored)


def said(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_node_finds_the_engine_of_a_program_that_has_it_as_a_link(tmp_path: Path) -> None:
    """`npm install FOLDER` makes a link; the engine that the program has does not lie above the folder."""
    prepare("node")
    copied("node", tmp_path / "elsewhere" / "rnnx")
    packages = tmp_path / "app" / "node_modules"
    packages.mkdir(parents=True)
    (packages / "rnnx").symlink_to(tmp_path / "elsewhere" / "rnnx")
    shutil.copyfile(GOLDEN / "gru.onnx", tmp_path / "app" / "gru.onnx")
    program = tmp_path / "app" / "program.mjs"
    program.write_text('import { open } from "rnnx";\nconsole.log((await open("gru.onnx")).id);\n')
    refused = subprocess.run(["node", program], cwd=program.parent, capture_output=True, text=True)
    assert "expected the package onnxruntime-node; found none" in refused.stderr
    for name in ("onnxruntime-node", "onnxruntime-common"):
        (packages / name).symlink_to(RUNTIMES / "node" / "node_modules" / name)
    assert said("node", program, cwd=program.parent).startswith("sha256:")


USE = """
import { VERSION, Tensor, open, type Session } from "rnnx";

const session: Session = await open("denoiser.onnx");
const { y } = await session.stream().step({ x: new Tensor("float32", [1, 257], new Float32Array(257)) });
export const first: number = y.number(0);
export const version: string = VERSION;
// @ts-expect-error: no dtype of that name, so that the declarations are seen to be read
export const wrong = new Tensor("float33", [1], new Float32Array(1));
"""


def test_the_packed_package_has_declarations_in_node_and_for_the_browser(tmp_path: Path) -> None:
    """As `npm pack` writes it; held to a strict program that has no types of Node's."""
    prepare("node")
    installed = RUNTIMES / "node" / "node_modules"
    source = copied("node", tmp_path / "source")
    (source / "node_modules").symlink_to(installed)
    (packed,) = said("npm", "pack", "--silent", cwd=source).split()
    modules = tmp_path / "app" / "node_modules"
    modules.mkdir(parents=True)
    shutil.unpack_archive(source / packed, tmp_path)
    (tmp_path / "package").rename(modules / "rnnx")
    for name in ("onnxruntime-common", "onnxruntime-node", "onnxruntime-web"):
        (modules / name).symlink_to(installed / name)
    (tmp_path / "app" / "package.json").write_text('{ "type": "module" }')
    (tmp_path / "app" / "main.ts").write_text(USE)
    options = {"strict": True, "noEmit": True, "target": "es2023", "lib": ["es2023", "dom"], "types": []}
    for kind, entry in (("nodenext", "node"), ("esnext", "web")):
        options |= {"module": kind, "moduleResolution": "bundler" if entry == "web" else kind}
        config = {"compilerOptions": options, "files": ["main.ts"]}
        (tmp_path / "app" / "tsconfig.json").write_text(json.dumps(config))
        read = said(installed / ".bin" / "tsc", "--listFiles", cwd=tmp_path / "app")
        assert f"node_modules/rnnx/types/src/{entry}.d.ts" in read


def test_a_program_in_rust_is_warned_of_nothing(tool: Callable[[str], str], tmp_path: Path) -> None:
    app = embed("rust", GOLDEN / "gru.onnx", tmp_path / "app")
    words = [tool("cargo"), "metadata", "--offline", "--no-deps", "--format-version", "1"]
    done = subprocess.run(words, cwd=app, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_example_of_the_readme_in_go_runs_as_it_says(tmp_path: Path) -> None:
    """Its commands, in a fresh folder."""
    _, library = prepare("go")
    page = (RUNTIMES / "go" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```go\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    commands = re.search(r"^((?:    .*\n)+)", page, flags=re.MULTILINE)
    assert commands
    assert "go mod init" in commands[1]
    app = tmp_path / "app"
    copied("go", app / "rnnx")
    (app / "main.go").write_text(example)
    (app / "denoiser.onnx").write_bytes(lstm(width=257, features=257))
    printed = said("bash", "-euc", commands[1], cwd=app, env={"RNNX_ONNXRUNTIME": library}).split()
    stream = rnnx.load(app / "denoiser.onnx").stream()
    frame = np.zeros((1, 257), "f4")
    expected = []
    for step in range(100):
        frame[0, 0] = step / 100
        expected.append(stream.step(frame)["y"][0, 0])
    np.testing.assert_allclose([float(number) for number in printed], expected, rtol=1e-4, atol=1e-5)


def test_the_folder_of_java_is_packaged_alone(tmp_path: Path) -> None:
    """Tests that need the goldens say so and are skipped, the others run; nothing is written beside it."""
    prepare("java")
    folder = copied("java", tmp_path / "some" / "where" / "java")
    said("mvn", "--quiet", "--batch-mode", "package", cwd=folder)
    assert (folder / "target" / "rnnx.jar").is_file()
    assert list(tmp_path.glob("*/*/*")) == [folder]
    reports = [path.read_text() for path in (folder / "target" / "surefire-reports").glob("*.xml")]
    ran = sum(report.count("<testcase ") for report in reports)
    reasons = re.findall(r'<skipped message="(.*?)"', "".join(reports))
    assert 0 < len(reasons) < ran
    assert all("parity_tests/golden" in reason for reason in reasons)


def test_the_headers_of_onnxruntime_are_found_with_go_alone(tmp_path: Path) -> None:
    """The script runs beside the requirements of the Go module, and sets up no environment of Python's."""
    prepare("go")
    for path in ("scripts/onnxruntime_headers", "runtimes/go/go.mod", "runtimes/go/go.sum"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, tmp_path / path)
    (tmp_path / "scripts" / "setup.sh").write_text("exit 1\n")
    before = sorted(tmp_path.rglob("*"))
    found = said(tmp_path / "scripts" / "onnxruntime_headers", cwd=tmp_path / "scripts").strip()
    assert (Path(found) / "onnxruntime_c_api.h").is_file()
    assert sorted(tmp_path.rglob("*")) == before
