"""One input, one child process: what it may take, and how it ended.

The child is forked from a parent that has imported everything and opened nothing. It has a bound on memory
and time, a folder of its own, and a hook that hears of each file that Python opens for writing; what ends it,
ends it alone. Compiled libraries are not heard by the hook; for them, the folder is compared afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnnx import limits
from rnnx.errors import RnnxError

MEMORY = 1 << 30  # bytes that a child may take beyond what it was forked with
ALLOWED = 256 << 20  # bytes that rnnx is told to allow: far less, so that it has to notice first
SECONDS = 20.0
# Codes that say a fault of ours: `compiler-failed` is C that we wrote and no compiler takes.
_FAULTS = ("internal", "compiler-failed", "cache-damaged", "name-taken", "sources-missing")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a child ended.

    Attributes:
        kind: `fine`, `refused` (an RnnxError), or a finding: `signal`, `exception`, `fault` (an error code
            that says a fault of ours), `time`, `memory`, `written` (a file where none may be), `text` (of the
            model, in code; words that no one asked for).
        what: the error's code, or where it ended; findings of one kind and one `what` are one.
        shown: all that was printed, for a report.
        seconds, megabytes: what it took.
    """

    kind: str
    what: str
    shown: str
    seconds: float
    megabytes: int

    @property
    def is_finding(self) -> bool:
        """Whether this must not be."""
        return self.kind not in ("fine", "refused")


class RejectionError(Exception):
    """Raised by a target: what it looked at is a finding of this kind."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(kind, what)


def attempt(call: Callable[[Path], None], place: Path, *, cache: Path) -> Ending:
    """Run `call(folder)` in a child, in `place`, whose files are the input; say how it ended."""
    before = content(place)
    log = place.with_name("log")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(call, place, log, cache)
    status, usage = _wait(child, began + SECONDS)
    took = time.monotonic() - began
    shown = log.read_bytes().decode(errors="replace") if log.exists() else ""
    kind, what = _told(status, place.with_name("ending"), shown)
    if kind in ("fine", "refused") and (wrong := _written(place, before, kind)):
        kind, what = "written", wrong
    return Ending(kind, what, shown[-6000:], took, _taken(usage, place.with_name("held")))


def _child(call: Callable[[Path], None], place: Path, log: Path, cache: Path) -> None:
    """Never returns."""
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(handle, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        faulthandler.enable()
        for name in ("home", "tmp"):
            place.with_name(name).mkdir(exist_ok=True)
        os.environ |= {
            "HOME": str(place.with_name("home")),
            "TMPDIR": str(place.with_name("tmp")),
            "RNNX_CACHE": str(cache),
        }
        _bound()
        os.chdir(place)
        place.with_name("held").write_text(str(_pages()[1] * resource.getpagesize() >> 20))
        with limits.bounded(ALLOWED):
            ending = _ending(call, place, cache)
        place.with_name("ending").write_text(json.dumps(ending))
    except BaseException:
        traceback.print_exc()
        os._exit(99)
    os._exit(0)


def _taken(usage: Any, held: Path) -> int:
    """Return how many megabytes a child took beyond those that it began with."""
    return max(0, (usage.ru_maxrss >> 10) - int(held.read_text())) if held.exists() else 0


def _pages() -> list[int]:
    """Return how many pages this process has, and how many lie in memory."""
    return [int(word) for word in Path("/proc/self/statm").read_text().split()[:2]]


def _bound() -> None:
    size = _pages()[0] * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS) + 5,) * 2)


def _ending(call: Callable[[Path], None], place: Path, cache: Path) -> tuple[str, str]:
    outside: list[str] = []
    sys.addaudithook(_hook((place.parent, cache), outside))
    kind, what = "fine", ""
    try:
        call(place)
    except RnnxError as error:
        kind, what = ("fault" if error.code in _FAULTS else "refused"), error.code
        print(f"error[{error.code}]: {error}", flush=True)
        if kind == "fault":
            what = f"{error.code}: {_where(error)} {plain(error.found)}"
            traceback.print_exc()
    except RejectionError as error:
        kind, what = error.args
    except BaseException as error:
        traceback.print_exc()
        kind, what = "exception", f"{type(error).__name__} {_where(error)}"
    sys.stdout.flush()
    return ("written", outside[0]) if outside else (kind, what)


def _hook(homes: tuple[Path, ...], outside: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    allowed = tuple(str(home) for home in homes)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        ) or event in _CHANGES:
            if isinstance(arguments[0], int):
                return
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path != os.devnull and not path.startswith(allowed) and len(outside) < 9:
                outside.append(f"{event} {path}")
        elif event.startswith("socket.") and event in ("socket.connect", "socket.bind"):
            outside.append(event)

    return hear


def _where(error: BaseException) -> str:
    """Return the last line of ours that an error came through, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    cause = error.__cause__ or error.__context__
    if isinstance(error, RnnxError) and cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
    ours = [frame for frame in frames if "rnnx" in frame.filename and "fuzzing" not in frame.filename]
    told = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in (ours[-1:] or frames[-1:])]
    return " ".join(told)


def plain(text: str) -> str:
    """Return a text without what differs from input to input."""
    return re.sub(r"[0-9']+", "#", text)[:70]


def _wait(child: int, until: float) -> tuple[int, Any]:
    pause = 0.001
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            return -1, usage
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it may have started
    return status, usage


def _told(status: int, ending: Path, shown: str) -> tuple[str, str]:
    if status == -1:
        return "time", f"more than {SECONDS:g} s"
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        frames = re.findall(r'File "([^"]+)", line (\d+) in', shown)
        ours = next((f"{Path(file).name}:{line}" for file, line in frames if "rnnx" in file), "")
        said = re.search(
            r"(terminate called[^\n]*|what\(\)[^\n]*|[^\n]*Assertion[^\n]*|double free[^\n]*)", shown
        )
        return "signal", f"{name} {ours} {plain(said[0]) if said else ''}".strip()
    if os.WEXITSTATUS(status) or not ending.exists():
        return "exception", f"the process left with exit code {os.WEXITSTATUS(status)}"
    kind, what = json.loads(ending.read_text())
    return kind, what


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file in a folder by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _written(place: Path, before: dict[str, bytes], kind: str) -> str:
    """Return what is wrong with the files that are there now; "" if nothing is."""
    after = content(place)
    outputs = {name for name in after if name.split("/")[0].startswith("out")}
    others = {name: data for name, data in after.items() if name not in outputs}
    left = [
        path.name for name in ("home", "tmp") for path in place.with_name(name).rglob("*") if path.is_file()
    ]
    if others != before:
        return "a file beside the input"
    if left:
        return f"a temporary file left: {plain(left[0])}"
    if kind == "refused" and outputs:
        return "output in spite of an error"
    if any(name.endswith(".tmp") for name in outputs):
        return "a temporary file among the output"
    return ""


def cleared(root: Path) -> Path:
    """Return an empty folder for the next input."""
    shutil.rmtree(root, ignore_errors=True)
    place = root / "work"
    place.mkdir(parents=True)
    return place
