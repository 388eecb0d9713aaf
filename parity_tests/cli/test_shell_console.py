"""What commands print with: progress goes to standard error, fits its line, and keeps quiet when asked."""

from __future__ import annotations

import io

import pytest

from rnnx.cli import console


class Terminal(io.StringIO):
    """A terminal that remembers what it was sent."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_redraws_one_line_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with console.progress("training", 3, unit="steps") as bar:
        for _ in range(3):
            bar.advance(note="a remark that is much too long for the line " * 3)
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    frames = shown.rstrip("\n").split("\r\033[K")
    assert frames[0] == ""
    assert "100%" in frames[-1]
    assert "3/3 steps" in frames[-1]
    assert all(len(frame) <= 79 for frame in frames)


@pytest.mark.parametrize(("columns", "bar"), [(120, 24), (62, 8), (40, 0)])
def test_progress_bar_gives_way_to_what_is_written(
    monkeypatch: pytest.MonkeyPatch, columns: int, bar: int
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    with console.progress("training", 100, unit="steps") as progress:
        progress.update(100, "loss 1.23")
    frame = terminal.getvalue().rstrip("\n").split("\r\033[K")[-1]
    assert frame.count("━") == bar
    assert frame.endswith("took 0:00") or columns == 40


def test_progress_elsewhere_is_whole_lines_without_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LINE_SECONDS", 0.0)
    with console.progress("running", 2, unit="chunks") as bar:
        bar.update(1, "half")
        bar.update(2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\r" not in captured.err
    assert "\033" not in captured.err
    lines = captured.err.splitlines()
    assert lines[0].startswith("running   50%  1/2 chunks  half  ")
    assert lines[-1].startswith("running  100%  2/2 chunks  took ")


def test_progress_without_a_known_end_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("reading", None, unit="bytes") as bar:
        bar.update(12345)
    assert capsys.readouterr().err.startswith("reading  12,345 bytes  0:00")


def test_progress_of_nothing_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with console.progress("running", 5):
        pass
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress("running", 5):
        pass
    assert terminal.getvalue() == ""


def test_quiet_progress_and_remarks_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("running", 2, quiet=True) as bar:
        bar.update(1)
    console.remark("hello", quiet=True)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_remarks_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    console.remark("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_bold_only_where_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.bold("x", Terminal()) == "\033[1mx\033[0m"
    assert console.bold("x", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.bold("x", Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert console.bold("x", Terminal()) == "x"


def test_table_aligns_its_columns() -> None:
    assert console.table([("a", "bb", "c"), ("aaa", "b", "")]) == "  a    bb  c\n  aaa  b"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (3600, "1:00:00"), (59.9, "1:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert console.clock(seconds) == text


def test_stages_replace_each_other_on_a_terminal_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    with console.stages("exporting net.py:Net") as told:
        told("find states")
        told("direct: a stage whose name is much too long for the line")
    shown = terminal.getvalue()
    assert "\n" not in shown
    frames = shown.split("\r\033[K")
    assert frames[1] == "exporting net.py:Net  find states  0:00"
    assert all(len(frame) <= 39 for frame in frames)
    assert frames[-1] == ""


@pytest.mark.parametrize(("quiet", "line"), [(False, "exporting net.py:Net\n"), (True, "")])
def test_stages_elsewhere_are_the_label_alone(
    quiet: bool, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.stages("exporting net.py:Net", quiet=quiet) as told:
        told("find states")
    assert capsys.readouterr().err == line
