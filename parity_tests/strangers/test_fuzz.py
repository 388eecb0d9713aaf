"""Damaged and hostile files end in errors of rnnx: a few fresh ones, by a fuzzer that sees faults."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from support.replay_programs import READERS, prepare

PARTS = ["inspect", "load", "run-cpu", "run-native", "compile", "embed", "inputs", "snapshots", "traces"]
# For each part, divided by what one input costs: about half a minute on one core for all of them.
INPUTS = 80
READ = 40  # of a reader in another language, whose inputs cost a tenth: a few seconds
SECONDS = 600

# What must not be, each as a target does it in its child; none of it needs a file.
FAULTS = {
    "signal SIGABRT": "os.abort()",
    "signal SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "exception ZeroDivisionError": "1 / 0",
    "exception MemoryError": "bytearray(3 << 30)",
    "exception the process left": "os._exit(3)",
    "fault internal": "raise RnnxError('internal', expected='', found='', fix='')",
    "time more than": "time.sleep(60)",
    "written open": "open('/proc/self/comm', 'w').write('x')",
    "written a file beside the input": "pathlib.Path('other').write_text('x')",
    "written a file beside the input ": "pathlib.Path('model.onnx').write_text('x')",
    "written output in spite of an error": "pathlib.Path('out').write_text('x'); refused()",
    "written a temporary file among the output": "pathlib.Path('out.tmp').write_text('x')",
    "written a temporary file left": "tempfile.mkstemp()",
    "refused usage": "refused()",
    "fine ": "pathlib.Path('out').write_text('x')",
    "text a text of the model as code": "code('int a; /* b */ ZQA ZQB ;')",
    "text .c:": "code('int a; @')",
    "fine  ": "code('int a; /* ZQA ZQB */')",
}
PROGRAM = """
import json, os, pathlib, signal, sys, tempfile, time
sys.path[:0] = {paths!r}
from fuzzing import targets, worker
from rnnx.errors import RnnxError, UsageError
worker.SECONDS = 3.0

def refused():
    raise UsageError("usage", expected="", found="", fix="")

def code(text):
    pathlib.Path("out.c").write_text(text)
    targets._require_no_text(pathlib.Path("out.c"))

root = pathlib.Path(tempfile.mkdtemp(dir={folder!r}))
for name, text in {faults!r}.items():
    place = worker.cleared(root / "input")
    (place / "model.onnx").write_text("as it was")
    ending = worker.attempt(lambda folder: exec(text, globals()), place, cache=root / "cache")
    print(json.dumps([name, f"{{ending.kind}} {{ending.what}}"]), flush=True)
"""

AGAIN = """
import hashlib, random, sys
sys.path[:0] = {paths!r}
from fuzzing import targets
for part, target in targets.TARGETS.items():
    for number in range(10):
        made = target.make(random.Random(f"5 {{part}} {{number}}"))
        print(hashlib.sha256(repr((part, number, made)).encode()).hexdigest())
"""
# What a program in another language must not do, as one that reads paths from its input does it. The first
# model is the good one, which it is begun with.
STRAY = """
import ctypes, os, pathlib, sys, time
kept = []
for number, line in enumerate(sys.stdin):
    path = pathlib.Path(line.strip())
    fault = path.parent.joinpath("fault").read_text() if number else "say('ok')"
    say = lambda text: print(text, flush=True)
    exec(fault)
exec(globals().get("last", ""))
"""
STRAYS = {
    "fine ": "say('ok')",
    "refused contract-graph": "say('error contract-graph')",
    "fault internal": "say('error internal')",
    "fault out-of-memory": "say('error out-of-memory')",
    "text panic": "say('panic: x')",
    "text ok ok": "say('ok ok')",
    "text on standard error": "os.write(2, b'x'); say('ok')",
    "signal SIGSEGV": "ctypes.string_at(0)",
    "signal SIGABRT": "os.abort()",
    "exception it left with exit code 3": "os._exit(3)",
    "exception it left with exit code 0": "os._exit(0)",
    "exception it left with exit code 1": "bytearray(2 << 30)",
    "memory more than 512": "kept.append(b'x' * (600 << 20)); say('ok')",
    "time more than": "time.sleep(60)",
    "written a file beside": "path.with_name('other').write_text('x'); say('ok')",
    "fine": "say('ok')",
}
DRIVEN = """
import json, pathlib, sys, tempfile
sys.path[:0] = {paths!r}
from fuzzing import drivers, worker
worker.SECONDS = 3.0
drivers.contract_reader = lambda language: [sys.executable, "-c", {stray!r}]
root = pathlib.Path(tempfile.mkdtemp(dir={folder!r}))
driver = drivers.Driver("stray", root / "good.onnx")
for name, fault in {faults!r}.items():
    place = worker.cleared(root / "input")
    (place / "model.onnx").write_text("as it was")
    (place / "fault").write_text(fault)
    ending = driver.attempt(place)
    print(json.dumps([name, f"{{ending.kind}} {{ending.what}}"]), flush=True)
ended = [driver.close()]
for last in ("os._exit(3)", "time.sleep(60)"):
    (place / "fault").write_text(f"last = {{last!r}}; say('ok')")
    driver.attempt(place)
    ended.append(driver.close())
print(json.dumps(ended))
"""
PATHS = [str(REPOSITORY / "scripts"), str(REPOSITORY / "parity_tests")]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_damaged_and_hostile_files_end_in_errors_of_rnnx() -> None:
    assert_nothing_is_found(PARTS, INPUTS)


@pytest.mark.parametrize("language", READERS)
def test_damaged_contracts_end_in_errors_in_each_language(language: str) -> None:
    prepare(language)
    assert_nothing_is_found([f"contract-{language}"], READ)


def assert_nothing_is_found(parts: list[str], inputs: int) -> None:
    seed = secrets.randbits(32)
    done = run("scripts/fuzz.py", *parts, "--inputs", str(inputs), "--seed", str(seed), "--json")
    assert done.returncode in (0, 1), done.stderr
    summaries = [json.loads(line) for line in done.stdout.splitlines()]
    print(json.dumps(summaries, indent=1))
    assert [summary["part"] for summary in summaries] == parts
    assert all(summary["inputs"] for summary in summaries)
    found = {summary["part"]: summary["findings"] for summary in summaries if summary["findings"]}
    assert found == {}, f"scripts/fuzz PART --seed {seed} --only NUMBER shows one again"


def test_the_fuzzer_sees_each_way_of_going_wrong(tmp_path: Path) -> None:
    done = run("-c", PROGRAM.format(paths=PATHS, folder=str(tmp_path), faults=FAULTS))
    assert done.returncode == 0, done.stderr
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert {name: ending for name, ending in found.items() if not ending.startswith(name.strip())} == {}
    assert len(found) == len(FAULTS)


def test_an_input_is_the_same_each_time() -> None:
    found = [run("-c", AGAIN.format(paths=PATHS)).stdout for _ in range(2)]
    assert found[0] == found[1]
    digests = found[0].split()
    assert len(digests) == len(set(digests)) == 10 * (len(PARTS) + len(READERS))


def test_the_fuzzer_sees_each_way_in_which_a_program_goes_wrong(tmp_path: Path) -> None:
    program = DRIVEN.format(paths=PATHS, folder=str(tmp_path), stray=STRAY, faults=STRAYS)
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    *lines, ended = [json.loads(line) for line in done.stdout.splitlines()]
    found = dict(lines)
    assert {name: ending for name, ending in found.items() if not ending.startswith(name.strip())} == {}
    assert len(found) == len(STRAYS)
    assert ended == [
        "",
        "it left with exit code 3 when its input had ended",
        "it went on when its input had ended",
    ]
