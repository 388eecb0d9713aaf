"""Output files are written whole or not at all.

A file is written beside its final place under a temporary name, flushed to the disk, and renamed into
place. Whoever reads the final name sees the old file or the new one, never a part of either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from rnnx.errors import FileError

_LONGEST = 255  # bytes of a name, in every file system in use


def check_output(path: str | os.PathLike[str], *, inputs: tuple[str | os.PathLike[str], ...] = ()) -> Path:
    """Check that `path` can be written, before long work begins.

    Args:
        path: the file to be written.
        inputs: files that are read by the same command and must not be overwritten.

    Raises:
        FileError: `name-too-long`, `output-folder-missing`, `output-is-folder`, `output-not-a-file`,
            `cannot-write` or `output-is-input`.
    """
    path = Path(path)
    if len(os.fsencode(path.name)) > _LONGEST:
        raise FileError(
            "name-too-long",
            expected=f"a file name of at most {_LONGEST} bytes",
            found=f"one of {len(os.fsencode(path.name))}: {path.name[:40]!r}...",
            fix="choose a shorter one",
        )
    if path.exists() and not path.is_file() and not path.is_dir():
        # Renaming a file into the place of /dev/null would replace the device.
        raise FileError(
            "output-not-a-file",
            expected=f"a file, or nothing yet, at {path}",
            found="a device or pipe",
            fix="name a file",
        )
    if path.is_dir():
        raise FileError(
            "output-is-folder",
            expected=f"a file name to write to at {path}",
            found="a folder",
            fix="name a file inside it",
        )
    if not path.parent.is_dir():
        found = "a file in its place" if path.parent.exists() else "no such folder"
        raise FileError(
            "output-folder-missing",
            expected=f"a folder at {path.parent}",
            found=found,
            fix=f"create it with 'mkdir -p {path.parent}' or choose another place",
        )
    if not os.access(path.parent, os.W_OK):
        raise write_error(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    for source in inputs:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise FileError(
                "output-is-input",
                expected="an output that is not also an input",
                found=f"{path} for both",
                fix="choose another output name",
            )
    return path


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block ends well.

    Raises:
        FileError: `output-folder-missing`, `output-is-folder`, `disk-full` or `cannot-write`.
    """
    final = check_output(path)
    # A symbolic link stays one: what it names is replaced.
    final = final.resolve()
    try:
        # Cut, because a name may be as long as the file system allows already.
        handle, name = tempfile.mkstemp(prefix=f".{final.name[:40]}.", suffix=".tmp", dir=final.parent)
    except OSError as error:
        raise write_error(final, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    except OSError as error:
        raise write_error(final, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write `data` to `path` whole or not at all. Raises as `writing` does."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write several files that belong together: none is put in its place before all are on the disk.

    Raises:
        FileError: as `writing` does.
    """
    with contextlib.ExitStack() as stack:
        for path, data in files.items():
            stack.enter_context(writing(path)).write_bytes(data)


def read_bytes(path: str | os.PathLike[str], *, what: str) -> bytes:
    """Return the content of the file at `path`.

    Args:
        path: the file to read.
        what: what the file should be, for the error message ("a trace").

    Raises:
        FileError: `file-missing`, or `cannot-read` for anything else that stops it.
    """
    with _read_errors(path, what):
        if Path(path).is_char_device():  # /dev/zero never ends
            raise OSError(errno.EINVAL, "a device")
        return Path(path).read_bytes()


def read_lines(path: str | os.PathLike[str], *, what: str) -> Iterator[bytes]:
    """Yield the lines of the file at `path`, read as they are asked for. Raises as `read_bytes`."""
    with _read_errors(path, what), Path(path).open("rb") as file:
        yield from file


@contextlib.contextmanager
def _read_errors(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileError(
            "file-missing", expected=f"{what} at {path}", found="no such file", fix="check the path"
        ) from error
    except OSError as error:
        found = "a folder" if isinstance(error, IsADirectoryError) else (error.strerror or str(error))
        raise FileError(
            "cannot-read", expected=f"{what} at {path}", found=found, fix="name a readable file"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_error(path: Path, error: OSError) -> FileError:
    """Return the error for a file or folder that cannot be written: `disk-full` or `cannot-write`."""
    if isinstance(error, shutil.Error):  # of a whole folder: (source, target, text) for each file
        reason = str(error.args[0][0][2])
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in reason else None
        error = OSError(number, reason) if number else OSError(reason)
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return FileError(
        "disk-full" if full else "cannot-write",
        expected=f"to write {path}",
        found=error.strerror or str(error),
        fix="free some space or choose another place; nothing was changed",
    )
