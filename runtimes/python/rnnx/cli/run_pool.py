"""The part of `rnnx run` that runs many sequences through a pool: a folder of files, or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from rnnx.cli.console import Progress, progress
from rnnx.cli.sequence_files import (
    LINES,
    count_sequences,
    encode_line,
    folder_sequences,
    line_sequences,
    sequence_paths,
    write_sequence,
)
from rnnx.errors import FileError, UsageError
from rnnx.files import check_output, writing
from rnnx.formats.array_files import SUFFIXES
from rnnx.sequences import run_sequences
from rnnx.session import Session

_STANDARD = "-"


def check_pool(model: Path, source: str | None, output: str | None, state: Path | None) -> None:
    """Refuse what cannot end well before anything is loaded or computed.

    Raises:
        UsageError: `arguments`.
        FileError: `file-missing`, or as `rnnx.files.check_output`.
    """
    if source is None or output is None or state is not None:
        found = "--load-state or --save-state" if state is not None else "--pool alone"
        raise _usage("--pool with --input and --output", found, "name a folder or a .jsonl for each")
    if Path(source).is_dir():
        _check_folders(source, output)
        return
    if Path(source).suffix.lower() != LINES:
        raise _usage(f"a folder, or a {LINES}, as --input with --pool", source, "leave out --pool")
    if not Path(source).exists():
        raise FileError(
            "file-missing", expected=f"sequences at {source}", found="no such file", fix="check the path"
        )
    if output == _STANDARD:
        return
    if Path(output).suffix.lower() != LINES:
        raise _usage(f"a {LINES} or '-' as --output", output, f"choose a name that ends in {LINES}")
    check_output(output, inputs=(model, source))


def run_pool(session: Session, source: str, output: str, capacity: int, chunk: int, *, quiet: bool) -> None:
    """Run the sequences in `source` and write what comes out to `output`, in the same order.

    Args:
        session: the model.
        source: a folder, or a file of JSON lines.
        output: a folder, made if it is not there; or such a file, or "-".
        capacity: sequences that run at a time.
        chunk: most steps at a time.
        quiet: show no progress.
    """
    run = _run_folder if Path(source).is_dir() else _run_lines
    run(session, source, output, capacity, chunk, quiet)


def _run_folder(session: Session, source: str, output: str, capacity: int, chunk: int, quiet: bool) -> None:
    paths, folder = sequence_paths(source), Path(output)
    with _progress(len(paths), quiet) as bar:
        steps = _Steps(bar)
        for path, outputs in run_sequences(
            session, folder_sequences(paths), capacity=capacity, chunk=chunk, advanced=steps.add
        ):
            folder.mkdir(exist_ok=True)
            write_sequence(folder, path, outputs)
            steps.ended()


def _run_lines(session: Session, source: str, output: str, capacity: int, chunk: int, quiet: bool) -> None:
    with _progress(count_sequences(source), quiet) as bar, _lines(output) as write:
        steps = _Steps(bar)
        for _, outputs in run_sequences(
            session,
            line_sequences(source, session.contract),
            capacity=capacity,
            chunk=chunk,
            in_order=True,
            advanced=steps.add,
        ):
            write(encode_line(session.contract, outputs))
            steps.ended()


@contextmanager
def _lines(output: str) -> Iterator[Callable[[str], None]]:
    """Yield what writes a line: at once to standard output, else to a file that is there whole at the end."""
    if output == _STANDARD:
        yield lambda line: print(line, flush=True)
        return
    with writing(output) as temporary, temporary.open("w", newline="\n") as file:
        yield lambda line: print(line, file=file)


def _check_folders(source: str, output: str) -> None:
    folder = Path(output)
    is_file = folder.exists() or folder.suffix.lower() in (LINES, *SUFFIXES)
    if output == _STANDARD or (is_file and not folder.is_dir()):
        raise _usage("a folder as --output, as --input is", output, "name a folder")
    if folder.exists() and folder.samefile(source):
        raise FileError(
            "output-is-input",
            expected="an output that is not also an input",
            found=f"{folder} for both",
            fix="choose another output name",
        )
    if not folder.exists():
        check_output(folder)


class _Steps:
    """Progress in sequences, with the steps beside it."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._sequences, self._steps = bar, 0, 0

    def add(self, steps: int) -> None:
        self._steps += steps
        self._show()

    def ended(self) -> None:
        self._sequences += 1
        self._show()

    def _show(self) -> None:
        self._bar.update(self._sequences, f"{self._steps:,} steps")


def _progress(sequences: int, quiet: bool) -> AbstractContextManager[Progress]:
    return progress("running", sequences, unit="sequences", quiet=quiet)


def _usage(expected: str, found: str, fix: str) -> UsageError:
    return UsageError("arguments", expected=expected, found=found, fix=fix)
