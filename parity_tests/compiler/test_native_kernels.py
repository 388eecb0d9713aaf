"""Activations are within 2 or 2.5 ulp of the exact value for every float; halves round exactly."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rnnx_native.c_source import kernels
from rnnx_native.program import pack_weights
from support.native_folders import C99, STRICT

ACTIVATIONS = {"exp_f32": 2.0, "sigmoid_f32": 2.5, "tanh_f32": 2.0}  # largest error, ulp
PATHS = {"portable": 0, "avx2": 1, "avx512": 2, "best": 3}
HEAD = ["#include <math.h>", "#include <stdint.h>", "#include <string.h>"]
STRIDE = 97  # of all floats; --slow takes every one


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("kernels")
    dispatched = [*ACTIVATIONS, "quantize_i8", "lstm_f32", "gru_f32"]
    calls = [f"rnnx_{name}(" for name in (*dispatched, "widen", "narrow")]
    lines = [*HEAD, *kernels.includes(calls), *kernels.table("k", dispatched)]
    for name in ACTIVATIONS:
        lines.append(
            f"void {name}(int most, float *y, const float *x, int n) {{ k_choose(most)->{name}(y, x, n); }}"
        )
    lines += [
        "void lstm(int most, float *h_new, float *c_new, const float *h, const float *c, const float *start,",
        "    int apart, const int64_t *places, const float *wh, int units, int rows, int back) {",
        "  k_choose(most)->lstm_f32(h_new, c_new, c, start, (size_t)apart, places, 0, 0, 0, wh, h, units,",
        "      units, rows, back);",
        "}",
        "void gru(int most, float *h_new, const float *h, const float *start, int apart,",
        "    const int64_t *places, const float *hidden, const float *wh, int units, int rows, int back) {",
        "  k_choose(most)->gru_f32(h_new, h, start, (size_t)apart, places, hidden, 0, 0, 0, wh, h, units,",
        "      units, rows, back);",
        "}",
    ]
    lines += ["void widen(float *y, const uint16_t *x, int n) { rnnx_widen(y, x, n); }"]
    lines += ["void narrow(uint16_t *y, const float *x, int n) { rnnx_narrow(y, x, n); }"]
    lines += [
        "void quantize(int most, uint8_t *y, const float *x, int n, int rows) {",
        "  k_choose(most)->quantize_i8(y, x, n, rows);",
        "}",
    ]
    (folder / "k.c").write_text("\n".join(lines))
    command = [
        tool("gcc"),
        "-O2",
        "-fPIC",
        "-shared",
        f"-I{kernels.FOLDER.parent}",
        "k.c",
        "-lm",
        "-o",
        "k.so",
    ]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "k.so"))


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """Return the value in float64; from 1 / (1 + exp(-x)) nothing is lost there."""
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        return {"exp_f32": np.exp, "tanh_f32": np.tanh, "sigmoid_f32": lambda v: 1 / (1 + np.exp(-v))}[name](
            wide
        )


def ulps(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest distance, in units of the last place of the exact value."""
    with np.errstate(over="ignore"):
        shown = want.astype(np.float32)
    finite = np.isfinite(shown)
    assert (got[~finite] == shown[~finite]).all(), "where the exact value overflows"
    spacing = np.spacing(np.abs(shown[finite])).astype(np.float64)
    errors = np.abs(got[finite].astype(np.float64) - want[finite]) / spacing
    return float(errors.max(initial=0.0))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.slow)])
def test_activations_are_exact_to_the_last_places(
    library: ctypes.CDLL, name: str, path: str, stride: int
) -> None:
    worst, block = 0.0, 1 << 22
    for sign in (0, 1 << 31):
        for begin in range(0, 0x7F800001, block * stride):
            bits = np.arange(begin, min(begin + block * stride, 0x7F800001), stride, np.uint32) + np.uint32(
                sign
            )
            x = bits.view(np.float32)
            y = np.empty_like(x)
            getattr(library, name)(PATHS[path], y.ctypes, x.ctypes, x.size)
            worst = max(worst, ulps(y, exact(name, x)))
    assert worst <= ACTIVATIONS[name], worst


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_short_arrays_and_special_values(library: ctypes.CDLL, name: str, path: str) -> None:
    values = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 0.625, -0.625, 88.7, -103.9], np.float32)
    for size in range(1, 40):
        x = np.resize(values, size)
        y = np.full(size + 1, 7.0, np.float32)
        getattr(library, name)(PATHS[path], y.ctypes, x.ctypes, size)
        assert ulps(y[:size], exact(name, x)) <= ACTIVATIONS[name]
        assert y[size] == 7.0, "nothing behind the end is written"
    x = np.full(33, np.nan, np.float32)
    y = np.zeros_like(x)
    getattr(library, name)(PATHS[path], y.ctypes, x.ctypes, x.size)
    assert np.isnan(y).all()


def test_compilers_vectorise_the_portable_activations(tmp_path: Path, tool: Callable[[str], str]) -> None:
    text = (kernels.FOLDER / "activations.h").read_text()
    head = "\n".join([*HEAD, ""])
    (tmp_path / "k.c").write_text(head + re.sub(r"static RNNX_UNUSED void (rnnx_\w+_f32)", r"void \1", text))
    include = f"-I{kernels.FOLDER}"
    command = [tool("gcc"), "-O3", include, "-c", "k.c", "-o", "k.o", "-fopt-info-vec-optimized"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    lines = {int(found) for found in re.findall(r"k\.c:(\d+):.*loop vectorized", said)}
    loops = [n for n, line in enumerate((head + text).splitlines(), 1) if re.match(r"  for .*_f32\(", line)]
    assert len(loops) == 2 * len(ACTIVATIONS)
    assert set(loops) <= lines, said


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("units", [5, 16, 37])
@pytest.mark.parametrize("rows", [1, 4, 6])
@pytest.mark.parametrize("begins", ["shared", "in order", "placed"])
@pytest.mark.parametrize("back", [0, 1])
def test_lstm_is_its_formula(
    library: ctypes.CDLL, path: str, units: int, rows: int, begins: str, back: int
) -> None:
    random = np.random.default_rng(units)
    weights = random.standard_normal((4, units, units)).astype(np.float32)  # [gates, units, columns]
    begin = random.standard_normal((4, units, 1 if begins == "shared" else rows)).astype(np.float32)
    h, c = random.standard_normal((2, rows, units)).astype(np.float32)
    got = np.full((2, rows * units + 1), 7.0, np.float32)
    places = random.integers(0, rows, rows) if begins == "placed" else None
    start = np.stack([pack_weights.starts(begin[..., row]) for row in range(begin.shape[2])])
    arrays = (got[0], got[1], h, c, start)
    stride = 0 if begins == "shared" else start[0].size
    tiles = pack_weights.packed_tiles(weights)
    where = None if places is None else places.ctypes
    library.lstm(PATHS[path], *(a.ctypes for a in arrays), stride, where, tiles.ctypes, units, rows, back)
    used = begin if places is None else begin[..., places]
    i, o, f, g = np.einsum("guk,rk->gru", weights, h, dtype=np.float64) + used.swapaxes(1, 2)
    cell = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    want = np.stack([np.tanh(cell) / (1 + np.exp(-o)), cell]).reshape(2, -1)
    np.testing.assert_allclose(got[:, :-1], want, rtol=2e-5, atol=1e-5)
    assert (got[:, -1] == 7.0).all(), "nothing behind the end is written"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("units", [5, 16, 37])
@pytest.mark.parametrize("rows", [1, 4, 6])
@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("back", [0, 1])
def test_gru_is_its_formula(
    library: ctypes.CDLL, path: str, units: int, rows: int, placed: bool, back: int
) -> None:
    random = np.random.default_rng(units)
    weights = random.standard_normal((3, units, units)).astype(np.float32)  # [gates, units, columns]
    begin = random.standard_normal((3, units, rows)).astype(np.float32)
    bias = random.standard_normal((3, units)).astype(np.float32)
    h = random.standard_normal((rows, units)).astype(np.float32)
    start = np.stack([pack_weights.starts(begin[..., row]) for row in range(rows)])
    hidden, tiles = pack_weights.starts(bias), pack_weights.packed_tiles(weights)
    got = np.full(rows * units + 1, 7.0, np.float32)
    places = random.integers(0, rows, rows) if placed else None
    where = None if places is None else places.ctypes
    arrays = (got.ctypes, h.ctypes, start.ctypes, start[0].size, where, hidden.ctypes, tiles.ctypes)
    library.gru(PATHS[path], *arrays, units, rows, back)
    sums = np.einsum("guk,rk->gru", weights, h, dtype=np.float64) + bias[:, None]
    first = (begin if places is None else begin[..., places]).swapaxes(1, 2)
    z, r = 1 / (1 + np.exp(-(sums[0] + first[0]))), 1 / (1 + np.exp(-(sums[1] + first[1])))
    n = np.tanh(first[2] + r * sums[2])
    np.testing.assert_allclose(got[:-1].reshape(rows, units), n + z * (h - n), rtol=2e-5, atol=1e-5)
    assert got[-1] == 7.0, "nothing behind the end is written"


def test_half_floats_are_numpys(library: ctypes.CDLL) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    wide = np.empty(halves.size, np.float32)
    library.widen(wide.ctypes, halves.ctypes, halves.size)
    want = halves.view(np.float16).astype(np.float32)
    assert np.array_equal(wide, want, equal_nan=True)
    bits = np.arange(0, 1 << 32, 977, dtype=np.uint64).astype(np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        beside = [np.nextafter(want, np.float32(0)), (want[1:] + want[:-1]) / 2]  # ties among them
    floats = np.concatenate([bits.view(np.float32), want, *beside]).astype(np.float32)
    narrow = np.empty(floats.size, np.uint16)
    library.narrow(narrow.ctypes, floats.ctypes, floats.size)
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.array_equal(narrow.view(np.float16), floats.astype(np.float16), equal_nan=True)


@pytest.mark.parametrize("path", PATHS)
def test_inputs_are_scaled_to_bytes_and_rounded_to_nearest(library: ctypes.CDLL, path: str) -> None:
    for columns in (1, 3, 16, 18, 37, 48):
        x = np.random.default_rng(columns).standard_normal((3, columns)).astype(np.float32)
        x[1] = 0
        padded = -(-columns // 4) * 4
        room = np.zeros(3 * (8 + padded) + 16, np.uint8)
        rows = room[:-16].reshape(3, 8 + padded)
        library.quantize(PATHS[path], rows.ctypes, x.ctypes, columns, 3)
        assert not room[-16:].any(), "nothing behind the end is written"
        largest = np.abs(x).max(1, keepdims=True)
        np.testing.assert_array_equal(rows[:, :4].copy().view(np.float32), largest / np.float32(127))
        exact_values = x.astype(np.float64) * 127 / np.where(largest == 0, 1, largest)
        assert np.abs(rows[:, 8 : 8 + columns].astype(np.float64) - 128 - exact_values).max() <= 0.5001
        assert (rows[:, 8 + columns :] == 128).all()


ALL = [*kernels.DISPATCHED, "widen", "narrow", "row", "exp1_f32", "exp_f64", "sigmoid_f64", "tanh_f64"]
ALL += [f"{layer}_f64" for layer in ("project", "dense", "rnn", "gru", "lstm")]


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """Return a C file that includes each kernel of each kind for each instruction set."""
    calls = [f"rnnx_{name}(" for name in ALL]
    plain = sorted(set(ALL) - set(kernels.DISPATCHED))
    lines = [*HEAD, *kernels.includes(calls), *kernels.table("k", kernels.DISPATCHED)]
    lines += [f"void (*use_{name}(void))(void) {{ return (void (*)(void))rnnx_{name}; }}" for name in plain]
    lines += ["const k_kernels *use_table(int most) { return k_choose(most); }"]
    for path, text in kernels.files("\n".join(lines)).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "k.c").write_text("\n".join([*lines, ""]))
    return tmp_path / "k.c"


@pytest.mark.parametrize(
    "command",
    [
        "gcc -O1",
        "clang -O1",
        "gcc -O1 -DRNNX_PORTABLE",
        "clang -O1 -DRNNX_PORTABLE",
        "g++ -x c++ -std=c++11 -O1",
        "clang++ -x c++ -std=c++11 -O1",
        "aarch64-linux-gnu-gcc -O1",
        "x86_64-w64-mingw32-gcc -O1",
    ],
)
def test_every_kernel_of_every_kind_and_set_builds_without_a_warning(
    everything: Path, command: str, tool: Callable[[str], str]
) -> None:
    compiler, *flags = command.split()
    words = [tool(compiler), *(STRICT if "c++" in flags else C99), *flags, "-c", "k.c", "-o", "k.o"]
    result = subprocess.run(words, cwd=everything.parent, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[:2000]


def test_a_file_of_kernels_is_there_for_something(everything: Path) -> None:
    files = {path.name for path in (everything.parent / "kernels").iterdir()}
    assert files == {path.name for path in kernels.FOLDER.glob("*.h")} - {"json.h", "precise.h"}


@pytest.mark.parametrize("compiler", ["gcc", "aarch64-linux-gnu-gcc"])
def test_short_names_of_macros_end_with_the_kernels(
    everything: Path, compiler: str, tool: Callable[[str], str]
) -> None:
    """A model's own names stand behind them, and may be the same."""

    def macros(name: str) -> set[str]:
        words = [tool(compiler), "-std=c99", "-E", "-dM", name]
        text = subprocess.run(words, cwd=everything.parent, capture_output=True, text=True, check=True).stdout
        return {line.split()[1].partition("(")[0] for line in text.splitlines()}

    (everything.parent / "before.c").write_text("\n".join([*HEAD, '#include "kernels/instructions.h"', ""]))
    added = macros("k.c") - macros("before.c")
    assert "RNNX_NAME" in added
    assert {name for name in added if not name.startswith("RNNX_")} == set()


def test_a_program_has_the_kernels_that_it_calls_and_no_others() -> None:
    included = kernels.includes(["rnnx_gru_h16(a, b);", "  y[0] = rnnx_tanh1_f64(x[0]);"])
    files = kernels.files("\n".join(included))
    assert {"kernels/gru.h", "kernels/h16.h", "kernels/activations_f64.h"} <= set(files)
    others = ("lstm", "rnn", "dense", "project", "f32", "f64", "i8", "byte", "byte_avx2", "vnni", "row")
    assert not {f"kernels/{name}.h" for name in others} & set(files)
    assert kernels.includes(["y[0] = x[0];"]) == []
