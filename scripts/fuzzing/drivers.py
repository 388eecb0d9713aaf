"""The runtimes of other languages being fed: a program for each, which reads many models, one by one.

It takes a path a line and answers each with a line: `ok`, or `error CODE`. Whatever else it does is a
finding: another answer or none in time, a word on standard error, an end before its input ends, or more
memory than it may have. It is built as the programs of other tests are (scripts/replay --contracts LANGUAGE).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import selectors
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from fuzzing import worker
from fuzzing.worker import Ending
from support.replay_programs import contract_reader

MEMORY = 1 << 30  # bytes of data that a program may have, whatever its language reserves without using it
LARGEST = 512  # megabytes that it may take beyond what it began with
# What a contract or the bytes around it may be refused for; all else is a fault of ours.
_CODES = re.compile(
    r"not-onnx|no-contract|contract-(invalid|newer|requires|graph)|external-data-(missing|refused)|engine-refused"
)


@dataclasses.dataclass
class _Running:
    """A program that has answered the first model."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    began_with: int  # megabytes


class Driver:
    """The program of one language, begun when it is needed and again when it has ended."""

    def __init__(self, language: str, good: Path) -> None:
        self._command = contract_reader(language)
        self._good = good
        self._running: _Running | None = None

    def attempt(self, place: Path) -> Ending:
        """Give it the model in `place`; say how that ended."""
        running = self._running or self._begin()
        before = worker.content(place)
        began = time.monotonic()
        try:
            answer = _ask(running.process, place / "model.onnx", began + worker.SECONDS)
        except TimeoutError:
            return self._ended("time", f"more than {worker.SECONDS:g} s", began)
        except BrokenPipeError:
            answer = ""
        if not answer.endswith("\n"):
            code = running.process.wait()
            what = signal.Signals(-code).name if code < 0 else f"it left with exit code {code}"
            return self._ended("signal" if code < 0 else "exception", what, began, answer)
        taken = max(0, _peak(running.process.pid) - running.began_with)
        kind, what = _told(answer.rstrip("\n"))
        if taken > LARGEST:
            kind, what = "memory", f"more than {LARGEST} MiB"
        elif worker.content(place) != before:
            kind, what = "written", "a file beside the input"
        elif shown := _said(running):
            kind, what = "text", f"on standard error: {worker.plain(shown)}"
        if kind in ("fine", "refused"):
            return Ending(kind, what, answer, time.monotonic() - began, taken)
        return self._ended(kind, what, began, answer)

    def close(self) -> str:
        """Let its input end; return what was wrong with how it ended then, "" if nothing was."""
        if self._running is None:
            return ""
        process, self._running = self._running.process, None
        assert process.stdin is not None
        process.stdin.close()
        try:
            code = process.wait(worker.SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "it went on when its input had ended"
        return f"it left with exit code {code} when its input had ended" if code else ""

    def _begin(self) -> _Running:
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_bound,
            cwd=tempfile.gettempdir(),
        )
        answer = _ask(process, self._good, time.monotonic() + 60)
        if answer != "ok\n":
            raise SystemExit(f"{self._command} said {answer!r} of {self._good}, and {_read(errors)}")
        self._running = _Running(process, errors, _peak(process.pid))
        return self._running

    def _ended(self, kind: str, what: str, began: float, answer: str = "") -> Ending:
        """Let the program go, with what it said last."""
        assert self._running is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.process.pid, signal.SIGKILL)
        self._running.process.wait()
        shown = (answer + _read(self._running.errors))[-6000:]
        self._running = None
        return Ending(kind, what, shown, time.monotonic() - began, 0)


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))


def _ask(process: subprocess.Popen[bytes], path: Path, until: float) -> str:
    """Return a line, or what there is of one when the program ends.

    Raises:
        TimeoutError: there was none in time.
        BrokenPipeError: the program had ended before.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{path}\n".encode())
    process.stdin.flush()
    answer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not answer.endswith(b"\n"):
            if not selector.select(max(0, until - time.monotonic())):
                raise TimeoutError
            part = os.read(process.stdout.fileno(), 4096)
            if not part:
                break
            answer += part
    return answer.decode(errors="replace")


def _told(answer: str) -> tuple[str, str]:
    if answer == "ok":
        return "fine", ""
    code = answer.removeprefix("error ")
    if answer.startswith("error ") and _CODES.fullmatch(code):
        return "refused", code
    return ("fault", code) if re.fullmatch("error [a-z-]+", answer) else ("text", worker.plain(answer))


def _said(running: _Running) -> str:
    return _read(running.errors) if os.fstat(running.errors.fileno()).st_size else ""


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _peak(process: int) -> int:
    """Return the most megabytes that a process had in memory at once."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) >> 10 if found else 0
