"""What commands print with: results on standard output, progress and remarks on standard error.

Colours only on a terminal that wants them (https://no-color.org).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, TextIO

import typer

from rnnx.foreign_text import in_terminal

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors, and JSON where asked for.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

_BAR_WIDTH, _SHORTEST_BAR = 24, 6
_TERMINAL_SECONDS = 0.1
_LINE_SECONDS = 10.0


def has_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that wants colours."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def bold(text: str, stream: TextIO | None = None) -> str:
    """Return `text` in bold where `stream` (standard output unless given) shows it."""
    text = in_terminal(text)
    return f"\033[1m{text}\033[0m" if has_colour(stream or sys.stdout) else text


def remark(text: str, *, quiet: bool = False) -> None:
    """Print a line that is no result on standard error."""
    if not quiet:
        print(in_terminal(text), file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[str]], *, indent: int = 2) -> str:
    """Return rows of text as aligned columns, without a line end after the last."""
    rows = [[in_terminal(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(max(map(len, rows)))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    return "\n".join(" " * indent + line for line in lines)


class Progress:
    """A bar on a terminal, a line now and then elsewhere. Made by `progress`."""

    def __init__(self, label: str, total: float | None, unit: str, stream: TextIO | None) -> None:
        self._label, self._total, self._unit, self._stream = label, total, unit, stream
        self._terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._began = time.monotonic()
        self._shown = self._began if not self._terminal else 0.0
        self._done, self._note = 0.0, ""
        self._last: tuple[float, str] | None = None

    def update(self, done: float, note: str = "") -> None:
        """Say how much is done (of `total`, in `unit`) and what else is worth knowing."""
        self._done, self._note = done, note
        now = time.monotonic()
        if now - self._shown >= (_TERMINAL_SECONDS if self._terminal else _LINE_SECONDS):
            self._shown = now
            self._show()

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Say that `amount` more is done."""
        self.update(self._done + amount, note)

    def close(self) -> None:
        """Show the last state and leave the line; show nothing if nothing was done."""
        begun = self._last is not None or self._done or self._note
        if begun and self._last != (self._done, self._note):
            self._show()
        if begun and self._terminal and self._stream is not None:
            self._stream.write("\n")
            self._stream.flush()

    def _show(self) -> None:
        if self._stream is None:
            return
        self._last = (self._done, self._note)
        text = "  ".join(part for part in self._parts() if part)
        if self._terminal:
            room = shutil.get_terminal_size().columns - 1
            text = f"{self._label}  {self._bar(room - len(self._label) - len(text) - 4)}{text}"
            self._stream.write(f"\r\033[K{text[:room]}")
        else:
            self._stream.write(f"{self._label}  {text}\n")
        self._stream.flush()

    def _parts(self) -> list[str]:
        elapsed = time.monotonic() - self._began
        if not self._total:
            return [f"{self._done:,.0f} {self._unit}", self._note, clock(elapsed)]
        share = min(self._done / self._total, 1.0)
        left = elapsed * (1 - share) / share if share else 0.0
        spent = f"{clock(left)} left" if share < 1 else f"took {clock(elapsed)}"
        counts = f"{self._done:,.0f}/{self._total:,.0f} {self._unit}" if self._unit else ""
        return [f"{share:4.0%}", counts, self._note, spent if share else ""]

    def _bar(self, room: int) -> str:
        """Return a bar of at most `room` characters; none where that is too few, or nobody knows the end."""
        width = min(_BAR_WIDTH, room)
        if not self._total or width < _SHORTEST_BAR:
            return ""
        utf8 = (getattr(self._stream, "encoding", "") or "").lower().startswith("utf")
        full, empty = ("━", "─") if utf8 else ("#", "-")
        filled = round(width * min(self._done / self._total, 1.0))
        return full * filled + empty * (width - filled) + "  "


@contextlib.contextmanager
def stages(label: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Give what shows on standard error what is being done, each in place of the one before.

    Elsewhere than on a terminal the label alone is printed.
    """
    stream = sys.stderr
    if quiet or not stream.isatty() or os.environ.get("TERM") == "dumb":
        remark(label, quiet=quiet)
        yield lambda stage: None
        return
    began = time.monotonic()

    def show(stage: str) -> None:
        text = in_terminal(f"{label}  {stage}  {clock(time.monotonic() - began)}")
        stream.write(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}")
        stream.flush()

    try:
        yield show
    finally:
        stream.write("\r\033[K")
        stream.flush()


def clock(seconds: float) -> str:
    """Return a duration as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def progress(
    label: str, total: float | None, *, unit: str = "steps", quiet: bool = False
) -> Iterator[Progress]:
    """Show progress on standard error while the block runs.

    Args:
        label: what is being done ("training").
        total: how much there is to do, None where nobody knows.
        unit: what `total` counts; "" shows the share alone.
        quiet: show nothing.
    """
    bar = Progress(label, total, unit, None if quiet else sys.stderr)
    try:
        yield bar
    finally:
        bar.close()
