"""The C API: snapshots, many streams, and what a step must not do in real time."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnx
from rnnx_native.compile import Compiled
from support.native_folders import exported, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return write(model, tmp_path_factory.mktemp("c"), name="net", chunk=4)


@pytest.fixture(scope="module")
def lib(made: Compiled, tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> ctypes.CDLL:
    path, compiler = tmp_path_factory.mktemp("library") / "net.so", tool("gcc")
    sources = [f"{made.name}.c", f"{made.name}_weights.c"]
    command = [compiler, "-std=c99", "-O2", "-fPIC", "-shared", *sources, "-lm", "-o", str(path)]
    subprocess.run(command, cwd=made.folder, check=True)
    found = ctypes.CDLL(str(path))
    found.net_save.restype = ctypes.c_size_t
    return found


class Net:
    """The C API on a state of its own, from Python."""

    def __init__(self, lib: ctypes.CDLL, sizes: dict[str, int]) -> None:
        self.lib = lib
        self.state = (ctypes.c_char * sizes["state"])()
        lib.net_init(self.state, ctypes.byref(ctypes.c_char.in_dll(lib, "net_default_weights")))

    def run(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        y = np.zeros((len(x), 3), np.float32)
        self.lib.net_run(self.state, x.ctypes, y.ctypes, ctypes.c_size_t(len(x)))
        return y

    def save(self) -> bytes:
        data = ctypes.create_string_buffer(4096)
        size = self.lib.net_save(self.state, data, ctypes.c_size_t(4096))
        return data.raw[:size]

    def load(self, data: bytes) -> int:
        return int(self.lib.net_load(self.state, data, ctypes.c_size_t(len(data))))


@pytest.fixture(scope="module")
def sizes(made: Compiled, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "sizes.c").write_text(
        '#include "net.h"\n#include <stdio.h>\nint main(void) { printf("{\\"state\\": %d, \\"many\\": %d}",'
        " (int)sizeof(net_state), (int)sizeof(net_many)); return 0; }\n"
    )
    compiler = shutil.which("gcc") or "cc"
    subprocess.run([compiler, f"-I{made.folder}", "sizes.c", "-o", "sizes"], cwd=folder, check=True)
    found: dict[str, int] = json.loads(
        subprocess.run([folder / "sizes"], capture_output=True, check=True).stdout
    )
    return found


def test_snapshots_are_pythons_byte_for_byte(lib: ctypes.CDLL, model: Path, sizes: dict[str, int]) -> None:
    net, session = Net(lib, sizes), rnnx.load(model)
    x = np.random.default_rng(0).standard_normal((30, 5), np.float32)
    stream = session.stream()
    assert net.save() == stream.snapshot()  # at their start all states are equal
    net.run(x[:13])
    assert stream.restore(net.save()) is None
    assert stream.position == 13
    assert net.save() == stream.snapshot()
    np.testing.assert_allclose(net.run(x[13:]), stream.run(x[None, 13:])["y"][0], atol=2e-6)
    saved = stream.snapshot()
    net.run(x)
    assert net.load(saved) == 0
    assert net.save() == saved
    assert Net(lib, sizes).load(saved) == 0


def test_wrong_snapshots_leave_the_state_as_it_was(lib: ctypes.CDLL, sizes: dict[str, int]) -> None:
    net = Net(lib, sizes)
    net.run(np.ones((3, 5), np.float32))
    saved = net.save()
    for change, code in [
        (lambda data: data[:200], 1),
        (lambda data: data.replace(b"rnnx-snapshot", b"rnnx-something"), 2),
        (lambda data: data.replace(b'"version":"1"', b'"version":"2"'), 2),
        (lambda data: data.replace(b"sha256:", b"sha257:"), 3),
        (lambda data: data.replace(b'"position":"3"', b'"position":"x"'), 2),
        (lambda data: data.replace(b"state.lstm.h", b"state.lstm.x"), 3),
        (lambda data: data.replace(b"F32", b"F16", 1), 3),
        (lambda data: data.replace(b"[1,1,20]", b"[1,2,20]", 1), 3),
        (lambda data: data[:-4], 3),
        (lambda data: b"", 1),
    ]:
        changed = change(saved)
        assert changed != saved
        assert net.load(changed) == code
        assert net.save() == saved


def test_a_snapshot_survives_any_damage_without_reading_outside(
    made: Compiled, sizes: dict[str, int], tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """Bytes are changed at random; the sanitizer stops the program if anything else is read."""
    (tmp_path / "damage.c").write_text(
        """
#include "net.h"
#include <stdlib.h>
#include <string.h>
int main(void) {
  static net_state s;
  unsigned char good[4096];
  size_t size, round, i;
  net_init(&s, &net_default_weights);
  size = net_save(&s, good, sizeof good);
  srand(1);
  for (round = 0; round < 20000; round++) {
    size_t cut = round % 3 ? size : (size_t)rand() % (size + 1);
    unsigned char *copy = (unsigned char *)malloc(cut + 1);
    memcpy(copy, good, cut);
    for (i = 0; i < 3 && cut; i++) copy[(size_t)rand() % (cut < 400 ? cut : 400)] = (unsigned char)rand();
    net_load(&s, copy, cut);
    free(copy);
  }
  return 0;
}
"""
    )
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{made.folder}"]
    sources = [tmp_path / "damage.c", made.folder / "net.c", made.folder / "net_weights.c"]
    subprocess.run([tool("gcc"), *flags, *sources, "-lm", "-o", tmp_path / "damage"], check=True)
    assert subprocess.run([tmp_path / "damage"], capture_output=True).returncode == 0


@pytest.mark.parametrize("count", [1, 8, 9, 16, 21, 40])
def test_many_streams_give_what_each_gives_alone(lib: ctypes.CDLL, sizes: dict[str, int], count: int) -> None:
    together = (ctypes.c_char * (sizes["state"] * count))()
    room = (ctypes.c_char * sizes["many"])()
    weights = ctypes.byref(ctypes.c_char.in_dll(lib, "net_default_weights"))
    base = ctypes.addressof(together)
    for row in range(count):
        lib.net_init(ctypes.c_void_p(base + row * sizes["state"]), weights)
    x = np.random.default_rng(1).standard_normal((6, count, 5), np.float32)
    alone = np.stack([Net(lib, sizes).run(np.ascontiguousarray(x[:, row])) for row in range(count)], 1)
    for step in range(6):
        y = np.zeros((count, 3), np.float32)
        inputs = np.ascontiguousarray(x[step])
        lib.net_step_many(together, inputs.ctypes, y.ctypes, ctypes.c_size_t(count), room)
        np.testing.assert_allclose(y, alone[step], atol=2e-6)
    assert lib.net_error  # the function is there; what it says is tested with wrong weights


def test_a_step_calls_nothing_but_mathematics(
    made: Compiled, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """A file that names no such function makes no allocation, lock or system call, and writes no global."""
    assert symbols(made.folder / "net.c", made, tmp_path, tool) == ([], [])
    text = (made.folder / "net.c").read_text()
    worse = tmp_path / "worse.c"
    worse.write_text(
        text.replace(
            "void net_step(net_state *s, const net_input *input, net_output *output) {",
            "#include <stdlib.h>\nint net_count;\n"
            "void net_step(net_state *s, const net_input *input, net_output *output) {\n"
            "  net_count += (int)((uintptr_t)malloc(8) >> 4);",
        )
    )
    foreign, written = symbols(worse, made, tmp_path, tool)
    assert (foreign, written) == (["malloc"], ["net_count"])


MATHEMATICS = {"memcpy", "memset", "memcmp", "memmove", "strlen", "strchr"}
MATHEMATICS |= {
    f"{name}{suffix}" for name in ("exp", "log", "tanh", "sqrt", "log1p", "expm1") for suffix in ("", "f")
}
CPU = {"__cpu_model", "__cpu_indicator_init", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def symbols(
    source: Path, made: Compiled, folder: Path, tool: Callable[[str], str]
) -> tuple[list[str], list[str]]:
    """Return the functions that an object takes from elsewhere, but for mathematics, and its variables."""
    target = folder / "object.o"
    # Tables of addresses are constants only where the linker need not fill them in.
    command = [tool("gcc"), "-O2", "-fno-pic", f"-I{made.folder}", "-c", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    lines = [
        line.split()
        for line in subprocess.run([tool("nm"), target], capture_output=True, text=True).stdout.splitlines()
    ]
    foreign = [line[-1] for line in lines if line[-2] == "U" and line[-1] not in MATHEMATICS | CPU]
    return sorted(foreign), sorted(line[-1] for line in lines if line[-2] in "BbDdCc" and "." not in line[-1])


def test_a_step_makes_no_system_call(made: Compiled, tmp_path: Path, tool: Callable[[str], str]) -> None:
    """Linux kills a process that makes any in its strictest mode."""
    for body, code in (("", 0), ("getppid();", -9)):
        (tmp_path / "strict.c").write_text(
            f"""
#define _GNU_SOURCE
#include "net.h"
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {{
  static net_state s;
  static net_input inputs[9];
  static net_output outputs[9];
  unsigned char bytes[4096];
  net_init(&s, &net_default_weights);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) return 7;
  net_step(&s, inputs, outputs);
  net_run(&s, inputs, outputs, 9);
  net_load(&s, bytes, net_save(&s, bytes, sizeof bytes));
  net_reset(&s);
  {body}
  syscall(SYS_exit, 0);
  return 0;
}}
"""
        )
        sources = [tmp_path / "strict.c", made.folder / "net.c", made.folder / "net_weights.c"]
        command = [tool("gcc"), "-O2", f"-I{made.folder}", *sources, "-lm", "-o", tmp_path / "strict"]
        subprocess.run(command, check=True)
        assert subprocess.run([tmp_path / "strict"]).returncode == code
