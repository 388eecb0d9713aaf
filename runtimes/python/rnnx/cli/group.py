"""What every verb shares: loading on use, help, and one line for every error."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from rnnx.cli.console import remark
from rnnx.errors import FileError, RnnxError, UsageError, first_line, was_interrupted
from rnnx.spelling import as_flags

# Typer exports the subclasses only; its click is a package of its own since 0.26, a dependency before.
_ClickError: Any = typer.BadParameter.__mro__[2]

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_EXTRAS = {
    "torch": "export",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "onnxruntime": "cpu",
    "matplotlib": "report",
    "soundfile": "audio",
}
_NO_MEMORY = ("allocate memory", "out of memory")  # what PyTorch says, whose error is a RuntimeError


@dataclasses.dataclass(frozen=True)
class Verb:
    """Where a verb lives and its one line in `rnnx --help`."""

    module: str
    function: str
    help: str


class Group(TyperGroup):
    """A click group over a table of verbs, each imported when it is called."""

    verbs: ClassVar[Mapping[str, Verb]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the order of the table."""
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command behind a verb, importing it; None if there is no such verb."""
        verb = self.verbs.get(cmd_name)
        return None if verb is None else load_verb(cmd_name, verb)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table of verbs without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in self.verbs.items()])

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the description, its examples line by line."""
        self.help = keep_examples(self.help or "")
        super().format_help_text(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that `args` begin with, or name the nearest."""
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.verbs, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.verbs)}"
            ctx.fail(f"no such command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read the arguments. What click would turn into an exit code without a word gets a name here."""
        with _named_ends():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; as `make_context`."""
        with _named_ends():
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and exit with its code; no error leaves here as a traceback unless asked for."""
        arguments, wanted = _take_traceback(sys.argv[1:] if args is None else args)

        def call() -> Any:
            with as_flags():
                return super(Group, self).main(
                    arguments, "rnnx", complete_var, False, windows_expand_args, **extra
                )

        if not standalone_mode:
            return call()
        sys.exit(guarded(call, show_traceback=wanted))


class _Ended(BaseException):
    """A signal that asks a process to end came: what is open is left as an interrupt would leave it."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise within the block, unless somebody else deals with them (nohup does)."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    found = [getattr(signal, name) for name in names]
    ours = [number for number in found if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []

    def end(number: int, frame: Any) -> None:
        raise _Ended(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class _ReaderLeftError(Exception):
    """Whoever read our standard output has closed it: `rnnx run ... | head`."""


@contextlib.contextmanager
def _named_ends() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Abort from None
    except BrokenPipeError as error:
        raise _ReaderLeftError from error


def load_verb(name: str, verb: Verb) -> Any:
    """Import a verb and return its click command.

    Raises:
        LookupError: the table of verbs names a module or function that does not exist.
    """
    try:
        module = importlib.import_module(verb.module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{verb.module}.".startswith(f"{error.name}."):
            raise
        raise LookupError(f"verb {name!r} names the module {verb.module}, which does not exist") from error
    function = getattr(module, verb.function, None)
    if function is None:
        raise LookupError(f"verb {name!r} names {verb.function!r}, which {verb.module} does not have")
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name=name, help=keep_examples(inspect.getdoc(function) or verb.help))(function)
    command = typer.main.get_command(single)
    command.context_settings.update(CONTEXT)
    return command


def keep_examples(text: str) -> str:
    """Return help text in which indented paragraphs are marked (`\\b`) to be printed line by line."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(
        f"\b\n{paragraph}" if all(line.startswith("  ") for line in paragraph.splitlines()) else paragraph
        for paragraph in paragraphs
    )


def guarded(call: Callable[[], Any], *, show_traceback: bool) -> int:
    """Run `call`, print what it raises as one line on standard error, and return the exit code."""
    # Python has None for a stream that was closed; there is nothing to read there, and nobody who reads.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    _print_any_name()
    try:
        with _ending_in_order():
            code = call()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except _Ended as ended:
        print(f"rnnx: ended by {signal.Signals(ended.number).name}", file=sys.stderr)
        return 128 + ended.number
    except (BrokenPipeError, _ReaderLeftError):
        _abandon_stdout()
        return 141
    except typer.Abort:
        return _interrupted()
    except _ClickError as error:
        if show_traceback:
            traceback.print_exc()
        return _usage(error)
    except Exception as error:
        if show_traceback:
            traceback.print_exc()
        if was_interrupted(error):
            return _interrupted()
        told = as_rnnx_error(error)
        _complain(told.code, str(told))
        if told.code == "cannot-write-output":
            _abandon_stdout()
        return told.exit_code


def _print_any_name() -> None:
    """Let file names that are no UTF-8 be printed, the bytes in question as `\\udcff`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() in ("utf-8", "utf8"):
            stream.reconfigure(errors="backslashreplace")


def as_rnnx_error(error: Exception) -> RnnxError:
    """Return `error`, or what an error that is not ours means to a user."""
    if isinstance(error, RnnxError):
        return error
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in _EXTRAS:
        return UsageError(
            "package-missing",
            expected=f"the package {package}",
            found="it is not installed",
            fix=f"pip install 'rnnx[{_EXTRAS[package]}]'",
        )
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeEncodeError):
        return UsageError(
            "cannot-write-output",
            expected=f"letters that the encoding of standard output has, {error.encoding}",
            found=ascii(error.object[error.start : error.end][:20]),
            fix="set PYTHONIOENCODING=utf-8",
        )
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib, before 3.13
        what = "links that lead to a file"
        return FileError("cannot-open", expected=what, found=first_line(error), fix="check the path")
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return RnnxError(
            "out-of-memory",
            expected="enough memory",
            found=first_line(error),
            fix="use a smaller network, batch or chunk, or a machine with more",
        )
    return RnnxError(
        "internal",
        expected="no failure inside rnnx",
        found=f"{type(error).__name__}: {error}",
        fix="run it again with --traceback, and report what it shows",
    )


def _of_system(error: OSError) -> FileError:
    """Return what an error of the system means that none of our functions has named."""
    found = error.strerror or first_line(error)
    if error.filename is not None:
        what = f"to reach {str(error.filename)[:200]}"
        return FileError("cannot-open", expected=what, found=found, fix="check the path")
    if isinstance(error, FileNotFoundError):
        what = "the working directory to be there"
        return FileError("cannot-open", expected=what, found=found, fix="change to a folder that is")
    if _is_of_printing(error):
        what, fix = "to write the result to standard output", "free some space or send it elsewhere"
        return FileError("cannot-write-output", expected=what, found=found, fix=fix)
    fix = "see to it that there is room, and that you may write there"
    return FileError("cannot-write", expected="to write a file", found=found, fix=fix)


def _is_of_printing(error: Exception) -> bool:
    """Whether standard output is what fails: what could not be written is still there to be written.

    An unbuffered one keeps nothing; there the error tells by the code that raised it, ours or click's.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    places = Path(frames[-1].filename).parts if frames else ()
    return "click" in places or "typer" in places or places[-3:-1] == ("rnnx", "cli")


def _interrupted() -> int:
    print("rnnx: interrupted", file=sys.stderr)
    return 130


def _abandon_stdout() -> None:
    """Let standard output lead nowhere, or the interpreter complains when it flushes it at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: Any) -> int:
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
        return 2
    message = error.format_message()
    called = context.command_path if context else "rnnx"
    _complain("usage", f"{message[:1].lower()}{message[1:].rstrip('.')}; fix: see '{called} --help'")
    return 2


def _complain(code: str, text: str) -> None:
    remark(f"rnnx: error[{code}]: {' '.join(text.split())}")


def _take_traceback(args: Sequence[str]) -> tuple[list[str], bool]:
    """Return the arguments without `--traceback`, and whether it was there; all after `--` are left alone."""
    arguments = list(args)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [argument for argument in arguments[:end] if argument != "--traceback"]
    return ours + arguments[end:], len(ours) < end
