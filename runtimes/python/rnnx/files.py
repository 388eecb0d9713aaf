"""Output files are written whole or not at all.

A file is written beside its final place under a temporary name, flushed to the disk, and renamed into
place. Whoever reads the final name sees the old file or the new one, never a part of either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from rnnx.errors import FileError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None  # type: ignore[assignment]

_JUST_MADE_SECONDS = 60
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
    check_name(path)
    if len(os.fsencode(path.name)) > _LONGEST:
        raise FileError(
            "name-too-long",
            expected=f"a file name of at most {_LONGEST} bytes",
            found=f"one of {len(os.fsencode(path.name))}: {path.name[:40]!r}...",
            fix="choose a shorter one",
        )
    followed(path)
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


def followed(path: Path) -> Path:
    """Return a path with its links followed. Raises FileError `cannot-write` for one that leads to itself."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # resolve() says so up to Python 3.12 only
            raise write_error(path, error) from error
    return path.resolve()


def check_name(path: Path) -> None:
    """Refuse what no file can be called. Raises FileError `name-invalid`."""
    try:
        wrong = "\0" in str(path) or not os.fsencode(path)
    except UnicodeEncodeError:  # half of a pair that stands for one character
        wrong = True
    if wrong:
        raise FileError(
            "name-invalid",
            expected="a name that a file can have",
            found=ascii(str(path)[:80]),
            fix="choose another name",
        )


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block ends well.

    Raises:
        FileError: `output-folder-missing`, `output-is-folder`, `disk-full` or `cannot-write`.
    """
    # A symbolic link stays one: what it names is replaced.
    final = followed(check_output(path))
    try:
        before = final.stat() if final.exists() else None
        _clear_abandoned(final)
        temporary, handle = _make_temporary(final, 0o666 if before is None else before.st_mode & 0o666)
    except OSError as error:
        raise write_error(final, error) from error
    try:
        yield temporary
        if before is not None:
            _dress(temporary, before)
        os.fsync(handle)
        temporary.replace(final)
    except OSError as error:
        raise write_error(final, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _make_temporary(final: Path, mode: int) -> tuple[Path, int]:
    """Return a new empty file beside `final`, open and locked; the system takes the umask off its mode."""
    while True:
        # Cut, because a name may be as long as the file system allows already.
        path = final.with_name(f".{final.name[:40]}.{secrets.token_hex(4)}.tmp")
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), mode)
        except FileExistsError:
            continue
        if fcntl is not None:
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path, handle


def _clear_abandoned(final: Path) -> None:
    """Remove what killed processes left half written for `final`: temporaries that nobody holds locked."""
    if fcntl is None:
        return
    ours = re.compile(re.escape(f".{final.name[:40]}.") + "[0-9a-f]{8}[.]tmp")
    for path in final.parent.iterdir():
        if not ours.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            # Another writer may be between making its file and locking it.
            if found.st_size or time.time() - found.st_mtime > _JUST_MADE_SECONDS:
                path.unlink()


def _dress(path: Path, like: os.stat_result) -> None:
    """Give a file mode and owner of the one that it replaces, as far as the user may."""
    found = path.stat()
    if hasattr(os, "chown") and (found.st_uid, found.st_gid) != (like.st_uid, like.st_gid):
        with contextlib.suppress(PermissionError):
            os.chown(path, like.st_uid, like.st_gid)
    path.chmod(stat.S_IMODE(like.st_mode))


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


def file_and_key(path: str) -> tuple[str, str]:
    """Return a file of weights and the key in it, "" for all of it: `ck.pt:model`."""
    home, colon, key = path.rpartition(":")
    return (home, key) if colon and not os.path.exists(path) and os.path.isfile(home) else (path, "")


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
    check_name(Path(path))
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


def write_error(path: Path, error: OSError) -> FileError:
    """Return the error for a file or folder that cannot be written: `disk-full` or `cannot-write`."""
    if isinstance(error, shutil.Error):  # of a whole folder: (source, target, text) for each file
        reason = str(error.args[0][0][2])
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in reason else None
        error = OSError(number, reason) if number else OSError(reason)
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    advice = "free some space" if full else "see to it that you may write there"
    return FileError(
        "disk-full" if full else "cannot-write",
        expected=f"to write {path}",
        found=error.strerror or str(error),
        fix=f"{advice}, or choose another place; nothing was changed",
    )
