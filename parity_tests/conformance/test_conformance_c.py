"""The C and C++ runtimes beyond conformance: their unit tests, memory checkers, installed as a package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import rnnx
from cases.onnx_models import build, lstm
from conftest import REPOSITORY
from rnnx.formats.trace_file import write_trace
from rnnx.model.contract import Contract, InputSpec, OutputSpec, StateSpec
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.parity.record_trace import record_trace
from support.replay_programs import GOLDEN, MODELS, prepare, run

C, CPP = REPOSITORY / "runtimes" / "c", REPOSITORY / "runtimes" / "cpp"
Tool = Callable[[str], str]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """What the programs need to find ONNX Runtime; the C runtime is built."""
    _, library = prepare("c")
    return {**os.environ, "RNNX_ONNXRUNTIME": library}


def said(*words: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=600, env=env, cwd=cwd
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def headers() -> str:
    script = REPOSITORY / "scripts" / "onnxruntime_headers"
    return subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def test_unit_tests(environment: dict[str, str]) -> None:
    """100,000 steps allocate nothing and memory stays flat, among others."""
    said("ctest", "--test-dir", C / "build", "--output-on-failure", env=environment)
    prepare("cpp")
    said("ctest", "--test-dir", CPP / "build", "--output-on-failure", env=environment)


def test_no_sanitizer_complains(environment: dict[str, str], tmp_path: Path) -> None:
    """The address and undefined behaviour sanitizers, on unit tests, golden models and faults, in both."""
    options = ["-DRNNX_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug", f"-DONNXRUNTIME_INCLUDE_DIR={headers()}"]
    tests = {
        C: (["test_values"], ["test_pool", GOLDEN], ["test_streams", GOLDEN, "200"]),
        CPP: (["test_cpp", GOLDEN],),
    }
    for source, programs in tests.items():
        folder = tmp_path / source.name
        said("cmake", "-S", source, "-B", folder, *options)
        said("cmake", "--build", folder)
        for name, *arguments in programs:
            said(folder / name, *arguments, env=environment)
        for words in every_kind_of_call(tmp_path):
            replayed = [folder / "replay", *words, "--json"]
            done = subprocess.run(replayed, cwd=GOLDEN, env=environment, capture_output=True)
            assert done.returncode in (0, 2), done.stderr.decode()[-4000:]
            assert not done.stderr, done.stderr.decode()[-4000:]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", ["-O2 -ffast-math", "-Ofast", "-O3 -funsafe-math-optimizations"])
def test_flags_of_fast_math_change_nothing(
    compiler: str, flags: str, tool: Tool, environment: dict[str, str], tmp_path: Path
) -> None:
    """Of a project for its own sums: NaN is seen, draws are exact. Without CMake it does not compile."""
    include = f"-DONNXRUNTIME_INCLUDE_DIR={headers()}"
    path = tool(compiler)
    options = [f"-DCMAKE_C_COMPILER={path}", f"-DCMAKE_C_FLAGS={flags}", "-DCMAKE_BUILD_TYPE=None", include]
    said("cmake", "-S", C, "-B", tmp_path, *options)
    said("cmake", "--build", tmp_path)
    said(tmp_path / "test_values", env=environment)
    said(tmp_path / "test_streams", GOLDEN, "200", env=environment)
    faults = json.loads((GOLDEN / "errors.json").read_text(encoding="utf-8"))
    wanted = ("not a number", "infinity", "infinity in float16", "a snapshot that holds NaN")
    for fault in (fault for fault in faults if fault["name"] in wanted):
        words = [tmp_path / "replay", *fault["arguments"], "--json"]
        done = subprocess.run(words, cwd=GOLDEN, env=environment, capture_output=True)
        assert json.loads(done.stdout)["error"]["code"] == fault["code"]
    alone = [
        path,
        *flags.split(),
        f"-I{headers()}",
        f"-I{C}",
        "-c",
        str(C / "src" / "values.c"),
        "-o",
        "/dev/null",
    ]
    done = subprocess.run(alone, capture_output=True, text=True)
    if compiler == "gcc" or "fast" in flags:  # clang says nothing of the others
        assert done.returncode != 0
        assert "-fno-fast-math" in done.stderr


def every_kind_of_call(folder: Path) -> list[list[str]]:
    """Arguments of `replay`: each fault, and a good call of each kind."""
    faults = [
        entry["arguments"] for entry in json.loads((GOLDEN / "errors.json").read_text(encoding="utf-8"))
    ]
    traces = [
        [path.name, f"{path.stem}.trace.safetensors", "--chunks", "3,1,0"] for path in GOLDEN.glob("*.onnx")
    ]
    more = [
        ["characters.onnx", "--text", "a", "--length", "20"],
        ["gru.onnx", "gru.trace.safetensors", "--snapshot", str(folder / "snapshot"), "--after", "3"],
        ["gru.onnx", "--restore", "faults/snapshot.safetensors"],
        ["--draw", "1,2,3", "--count", "5"],
    ]
    return [*faults, *traces, *more]


@pytest.mark.parametrize(
    "arguments",
    [
        ["gru.onnx", "gru.trace.safetensors", "--chunks", "3,1,0"],
        ["faults/other-names.onnx"],
    ],
    ids=" ".join,
)
def test_valgrind_finds_no_error_and_no_leak(
    tool: Tool, environment: dict[str, str], arguments: list[str]
) -> None:
    checked = [tool("valgrind"), "--leak-check=full", "--errors-for-leak-kinds=definite,possible"]
    checked += ["--error-exitcode=99", f"--suppressions={C / 'tests' / 'valgrind.supp'}"]
    done = subprocess.run(
        [*checked, C / "build" / "replay", *arguments], cwd=GOLDEN, env=environment, capture_output=True
    )
    assert done.returncode in (0, 2), done.stderr.decode()[-4000:]


@pytest.mark.parametrize("language", ["c", "rust", "go", "java"])
def test_an_output_of_a_size_that_only_the_engine_knows(language: str, tmp_path: Path) -> None:
    """Its dimension has a name that no input and no state has."""
    model = tmp_path / "loose.onnx"
    for has_time in (True, False):
        model.write_bytes(loose_model(has_time))
        contract = read_contract(read_model(model))
        inputs = {"x": np.arange(24, dtype="f4").reshape(6, 2, 2)}
        trace = record_trace(Doubling(), contract, inputs, sizes={"batch": 2}, model_id=read_model(model).id)
        write_trace(tmp_path / "trace", trace)
        for chunks in ("1", "0", "2,1"):
            for name in ("python", language):
                got = run(name, model, tmp_path / "trace", "--chunks", chunks)
                assert got.code == 0, got.value


class Doubling:
    """y = x, sum' = sum + x: what `loose_model` computes."""

    name = "by hand"

    def start(self, sizes: Any) -> Any:
        return {"sum": np.zeros((2, 2), "f4")}

    def steps(self, inputs: Any, states: Any) -> Any:
        total = states["sum"]
        for row in inputs["x"]:
            total = total + row
            yield {"y": row}, {"sum": total}


def loose_model(has_time: bool) -> bytes:
    time: list[int | str] = ["time"] if has_time else []
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    nodes += [
        helper.make_node("ReduceSum", ["x", "axes"], ["steps"], keepdims=0)
        if has_time
        else helper.make_node("Identity", ["x"], ["steps"]),
        helper.make_node("Add", ["sum", "steps"], ["sum_out"]),
    ]
    contract = Contract(
        name="loose",
        inputs=[InputSpec(name="x", dtype="float32", shape=["batch", *time, 2])],
        outputs=[OutputSpec(name="y", dtype="float32", shape=["batch", *time, "width"])],
        states=[StateSpec(name="sum", input="sum", output="sum_out", dtype="float32", shape=["batch", 2])],
    )
    return build(nodes, contract, {"axes": np.array([1], np.int64)} if has_time else {})


@pytest.mark.parametrize("language", ["c", "cpp"])
def test_example_of_the_readme_runs(language: str, environment: dict[str, str], tmp_path: Path) -> None:
    page = (REPOSITORY / "runtimes" / language / "README.md").read_text()
    (example,) = re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    source, target = ("main.c", "rnnx::rnnx") if language == "c" else ("main.cpp", "rnnx::cpp")
    (tmp_path / source).write_text(example)
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.20)\nproject(app {'C' if language == 'c' else 'CXX'})\n"
        f"add_subdirectory({REPOSITORY / 'runtimes' / language} rnnx)\n"
        f"add_executable(app {source})\ntarget_link_libraries(app PRIVATE {target})\n"
    )
    said("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DONNXRUNTIME_INCLUDE_DIR={headers()}")
    said("cmake", "--build", tmp_path / "build")
    (tmp_path / "denoiser.onnx").write_bytes(lstm(width=257, features=257))
    printed = said(tmp_path / "build" / "app", env=environment, cwd=tmp_path).splitlines()
    stream = rnnx.load(tmp_path / "denoiser.onnx").stream()
    expected = [stream.step(np.zeros((1, 257), "f4"))["y"][0, 0] for _ in range(100)]
    np.testing.assert_allclose([float(line) for line in printed], expected, rtol=1e-4, atol=1e-5)


def test_runs_on_another_version_of_onnxruntime(environment: dict[str, str], tmp_path: Path) -> None:
    """The one inside Java's artifact, 1.29: the same program, not built anew."""
    prepare("java")
    jars = (Path.home() / ".m2" / "repository").glob("com/microsoft/onnxruntime/onnxruntime/1.29.0/*.jar")
    library = "ai/onnxruntime/native/linux-x64/libonnxruntime.so"
    zipfile.ZipFile(next(jars)).extract(library, tmp_path)
    older = {**environment, "RNNX_ONNXRUNTIME": str(tmp_path / library)}
    for name in MODELS:
        said(C / "build" / "replay", f"{name}.onnx", f"{name}.trace.safetensors", env=older, cwd=GOLDEN)


@pytest.mark.parametrize(
    ("built", "language"), [(C, "C"), (CPP, "C"), (CPP, "CXX")], ids=["C alone", "C", "C++"]
)
def test_example_of_the_header_runs_with_the_installed_package(
    built: Path, language: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """C alone, or C and C++, in projects of one language."""
    prepare(built.name)
    said("cmake", "--install", built / "build", "--prefix", tmp_path / "there")
    header, target = ("rnnx.h", "rnnx::rnnx") if language == "C" else ("rnnx.hpp", "rnnx::cpp")
    source = "app.c" if language == "C" else "app.cpp"
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.20)\nproject(app {language})\nfind_package(rnnx 0.1 REQUIRED)\n"
        f"add_executable(app {source})\ntarget_link_libraries(app PRIVATE {target})\n"
        "target_compile_options(app PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Werror)\n"
    )
    comment = (tmp_path / "there" / "include" / header).read_text().split("*/")[0]
    example = "\n".join(re.findall(r"^ \*     (.*)$", comment, flags=re.MULTILINE))
    standard = "stdio.h" if language == "C" else "cstdio"
    (tmp_path / source).write_text(
        f"#include <{header}>\n#include <{standard}>\nint main(void)\n{{\n{example}\nreturn 0;\n}}\n"
    )
    said("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={tmp_path / 'there'}")
    said("cmake", "--build", tmp_path / "build")
    (tmp_path / "denoiser.onnx").write_bytes(lstm(width=257, features=257))
    printed = said(tmp_path / "build" / "app", env=environment, cwd=tmp_path)
    expected = rnnx.load(tmp_path / "denoiser.onnx").stream().step(np.zeros((1, 257), "f4"))["y"][0, 0]
    np.testing.assert_allclose(float(printed), expected, rtol=1e-4, atol=1e-5)
