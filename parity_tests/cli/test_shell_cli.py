"""The command line: it answers at once, every error is one line, and exit codes mean what they say."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import rnnx
from rnnx.cli import VERBS
from rnnx.cli.group import Group, Verb, keep_examples, load_verb
from rnnx.errors import FileError, ModelError, ParityError, RefusedError, RnnxError, UsageError

HEAVY = ("torch", "onnxruntime", "onnx", "numpy", "rich.console", "matplotlib")


def loaded_by(arguments: list[str]) -> list[str]:
    """Return which heavy packages one call of the command line loads."""
    program = (
        "import sys\nfrom rnnx.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return output.stdout.splitlines()[-1].split()[1:]


def test_help_lists_every_verb_and_loads_nothing_heavy(command: Callable[..., Result]) -> None:
    result = command("--help")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    for name, verb in VERBS.items():
        assert any(line.startswith(f"{name} ") and line.endswith(verb.help) for line in lines), name
    assert loaded_by(["--help"]) == []
    assert loaded_by(["--version"]) == []


@pytest.mark.parametrize("name", VERBS)
def test_help_of_a_verb_has_an_example_and_loads_neither_torch_nor_onnxruntime(
    name: str, command: Callable[..., Result]
) -> None:
    result = command(name, "--help")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "  Example:" in lines
    assert any(line.startswith(f"      rnnx {name}") for line in lines)
    assert not {"torch", "onnxruntime", "onnx"} & set(loaded_by([name, "--help"]))


@pytest.mark.parametrize("name", ["", *VERBS])
def test_help_is_as_wide_as_a_terminal_and_no_example_is_wrapped(
    name: str, command: Callable[..., Result]
) -> None:
    for line in command(*[name] * bool(name), "--help").stdout.splitlines():
        assert len(line) <= (120 if line.startswith("      rnnx ") else 100), line


def test_importing_it_changes_nothing_but_how_threads_wait() -> None:
    program = """
        import os, signal, sys, threading, warnings
        import typer
        def state():
            handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
            return [dict(os.environ), list(sys.path), handlers, list(warnings.filters), threading.enumerate(),
                    os.getcwd(), sys.excepthook, sys.stdout, sys.stderr]
        before = state()
        import rnnx.cli
        before[0].setdefault("OMP_WAIT_POLICY", "PASSIVE")
        assert state() == before
    """
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for given in ({}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        line = [sys.executable, "-c", textwrap.dedent(program)]
        ended = subprocess.run(line, env=environment | given, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_every_name_of_the_package_is_there() -> None:
    assert all(getattr(rnnx, name) is not None for name in rnnx.__all__)
    assert sorted(rnnx.__all__) == rnnx.__all__
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        rnnx.lod  # type: ignore[attr-defined]  # noqa: B018


def test_version(command: Callable[..., Result]) -> None:
    result = command("--version")
    assert (result.exit_code, result.stdout) == (0, f"rnnx {rnnx.__version__}\n")


def test_version_is_the_one_that_is_installed() -> None:
    import importlib.metadata

    assert importlib.metadata.version("rnnx") == rnnx.__version__


def test_verb_that_does_not_exist_names_the_nearest(command: Callable[..., Result]) -> None:
    result = command("trian")
    assert result.exit_code == 2
    assert result.stderr == (
        "rnnx: error[usage]: no such command 'trian': did you mean 'train'?; fix: see 'rnnx --help'\n"
    )
    assert "there are train, export" in command("zzz").stderr


def test_nothing_at_all_shows_the_help_and_is_a_usage_error(command: Callable[..., Result]) -> None:
    result = command()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["inspect"], ["inspect", "--nonsense", "x"], ["doctor", "stray"], ["--x"]]
)
def test_wrong_arguments_are_one_line_and_exit_2(
    arguments: list[str], command: Callable[..., Result]
) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("rnnx: error[usage]: ")
    assert result.stderr.count("\n") == 1
    assert "--help'" in result.stderr


def test_table_that_names_a_missing_module_or_function_says_so() -> None:
    with pytest.raises(
        LookupError, match=r"verb 'sing' names the module rnnx\.cli\.sing, which does not exist"
    ):
        load_verb("sing", Verb("rnnx.cli.sing", "sing", ""))
    with pytest.raises(
        LookupError, match=r"verb 'sing' names 'sing', which rnnx\.cli\.inspect does not have"
    ):
        load_verb("sing", Verb("rnnx.cli.inspect", "sing", ""))


def test_module_missing_inside_a_verb_is_not_taken_for_a_missing_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
        load_verb("needy", Verb("needy", "needy", ""))


def test_examples_are_kept_line_by_line() -> None:
    assert keep_examples("Do it.\n\n    one\n    two\n\nwell\n") == "Do it.\n\n\b\n    one\n    two\n\nwell"


# What a verb may end with: a made-up verb raises it.


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    module = types.ModuleType("made_up_verb")
    monkeypatch.setitem(sys.modules, "made_up_verb", module)

    class MadeUp(Group):
        verbs = {"end": Verb("made_up_verb", "end", "End somehow.")}  # noqa: RUF012

    app = typer.Typer(cls=MadeUp, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback()
    def main(traceback: bool = False) -> None:
        """Test."""

    def run(outcome: Any, *arguments: str) -> Result:
        def end(words: list[str] = typer.Argument(default=[])) -> Any:  # noqa: B008
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        module.end = end  # type: ignore[attr-defined]
        return CliRunner().invoke(app, list(arguments) or ["end"])

    return run


def told(kind: type[RnnxError]) -> RnnxError:
    return kind("some-code", expected="an\negg", found="a  stone", fix="ask")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (None, 0),
        (0, 0),
        (1, 1),
        (told(RefusedError), 1),
        (told(ParityError), 1),
        (told(ModelError), 2),
        (told(FileError), 2),
        (told(UsageError), 2),
        (ValueError("oops"), 2),
        (MemoryError(), 2),
        (KeyboardInterrupt(), 130),
        (typer.Exit(1), 1),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
    ],
    ids=lambda value: value if isinstance(value, int) else type(value).__name__,
)
def test_exit_code_says_how_it_ended(ending: Callable[..., Result], outcome: object, code: int) -> None:
    result = ending(outcome)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.count("\n") <= 1
    assert "Traceback" not in result.stderr


def test_error_is_one_line_with_code_expected_found_and_fix(ending: Callable[..., Result]) -> None:
    expected = "rnnx: error[some-code]: expected an egg; found a stone; fix: ask\n"
    assert ending(told(ModelError)).stderr == expected


def test_unexpected_error_says_how_to_see_more(ending: Callable[..., Result]) -> None:
    stderr = ending(ValueError("one\ntwo")).stderr
    assert stderr.startswith("rnnx: error[internal]: ")
    assert "ValueError: one two" in stderr
    assert "--traceback" in stderr


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), "MemoryError"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes\nError 12"),
            "DefaultCPUAllocator",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "CUDA out of memory"),
    ],
)
def test_want_of_memory_has_a_name(ending: Callable[..., Result], error: Exception, found: str) -> None:
    stderr = ending(error).stderr
    assert stderr.startswith(f"rnnx: error[out-of-memory]: expected enough memory; found {found}")


def test_an_error_sends_no_control_characters(ending: Callable[..., Result]) -> None:
    name = "a\x1b]0;title\x07\x9b2Jb"
    stderr = ending(ModelError("bad", expected=name, found="it", fix="do")).stderr
    assert stderr == "rnnx: error[bad]: expected a\\x1b]0;title\\x07\\x9b2Jb; found it; fix: do\n"


def test_missing_package_names_the_extra_that_brings_it(ending: Callable[..., Result]) -> None:
    stderr = ending(ModuleNotFoundError("No module named 'torch._C'", name="torch._C")).stderr
    assert stderr.startswith("rnnx: error[package-missing]: expected the package torch")
    assert "pip install 'rnnx[export]'" in stderr


@pytest.mark.parametrize("arguments", [["--traceback", "end"], ["end", "--traceback"]])
def test_traceback_is_shown_where_asked_for(ending: Callable[..., Result], arguments: list[str]) -> None:
    result = ending(told(ModelError), *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.endswith("fix: ask\n")


def test_traceback_after_a_double_dash_is_an_ordinary_word(ending: Callable[..., Result]) -> None:
    assert "Traceback" not in ending(told(ModelError), "end", "--", "--traceback").stderr


@pytest.mark.skipif(os.name != "posix", reason="not run: pipes of POSIX")
def test_reader_that_leaves_early_is_no_error(leak: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    line = [sys.executable, "-m", "rnnx.cli", "inspect", str(leak)]
    try:
        ended = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def made_up_verb(folder: Path, body: str) -> dict[str, Any]:
    """Return how to start a process that calls a verb whose function has this body."""
    (folder / "made_up.py").write_text(f"import sys, time\ndef made_up():\n    {body}\n")
    program = (
        "from rnnx.cli import VERBS, app\nfrom rnnx.cli.group import Verb\n"
        "VERBS['made-up'] = Verb('made_up', 'made_up', 'Test.')\napp(['made-up'])\n"
    )
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    # Unbuffered output would hide what happens when the last of it is written at the very end.
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": ""}
    return {"args": [sys.executable, "-c", program], "env": environment}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: no /dev/full")
@pytest.mark.parametrize("body", ["print('result')", "print('result', flush=True)"], ids=["late", "at once"])
def test_full_disk_behind_standard_output_is_an_error(tmp_path: Path, body: str) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            **made_up_verb(tmp_path, body), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "rnnx: error[cannot-write-output]: expected to write the result to standard output"
    )
    assert ended.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="not run: signals of POSIX")
def test_interrupt_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    start = made_up_verb(tmp_path, "print('ready', flush=True); time.sleep(60)")
    with subprocess.Popen(**start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stderr == "rnnx: interrupted\n"


@pytest.mark.parametrize(
    "body",
    [
        "raise KeyboardInterrupt",
        "raise ImportError('initialization failed') from KeyboardInterrupt()",
    ],
)
@pytest.mark.parametrize("place", ["module", "function"])
def test_an_interrupt_while_packages_are_loaded_is_one(tmp_path: Path, body: str, place: str) -> None:
    """Python turns Ctrl-C inside the import of a package in C into an ImportError."""
    start = made_up_verb(tmp_path, body)
    if place == "module":
        (tmp_path / "made_up.py").write_text(body)
    ended = subprocess.run(**start, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "rnnx: interrupted\n")


def test_an_interrupt_while_arguments_are_read_is_one(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **extra: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.core.TyperGroup.make_context", interrupted)
    result = command("doctor")
    assert (result.exit_code, result.stderr) == (130, "rnnx: interrupted\n")


def test_an_interrupt_before_there_is_a_command_line_is_one(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    line = [sys.executable, "-c", "from rnnx.cli import app"]
    ended = subprocess.run(line, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "rnnx: interrupted\n")


def test_closed_standard_streams_are_empty_ones() -> None:
    """Python has None for them."""
    program = "from rnnx.cli import app; app(['run', 'none.onnx', '-i', '-', '-o', '-'])"
    result = subprocess.run(
        ["sh", "-c", f'"$0" -c "{program}" <&- >&-', sys.executable], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "error[file-missing]" in result.stderr
