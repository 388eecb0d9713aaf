"""Libraries built with this machine's C compiler, kept in the user's cache.

A library is built in a folder of its own under a temporary name, and renamed into place when it is whole: of
two processes that build the same one, one wins and the other uses it. Digests of all files lie beside them,
and are compared before anything is used: what was damaged is built anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rnnx.errors import ProviderError, first_line

FLAGS = ("-std=c99", "-O2", "-ftree-vectorize", "-fPIC", "-shared", "-fvisibility=hidden")
_PACKAGE = Path(__file__).parent
_DIGESTS = "digests.json"


def cache_folder() -> Path:
    """Return where libraries are kept: RNNX_CACHE, or the usual place of this system."""
    chosen = os.environ.get("RNNX_CACHE")
    if chosen:
        return Path(chosen)
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "rnnx"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "rnnx"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rnnx"
    except RuntimeError as error:  # neither HOME nor an entry for this user
        raise _not_writeable("this user's home folder", error) from error


def _not_writeable(place: object, error: Exception) -> ProviderError:
    return ProviderError(
        "cache-not-writeable",
        expected=f"to write to the cache {place}",
        found=getattr(error, "strerror", None) or str(error),
        fix="set RNNX_CACHE to a folder that can be written and has room",
    )


def compiler() -> list[str]:
    """Return the command of the C compiler: CC, or the first that is there.

    Raises:
        ProviderError: `compiler-missing`.
    """
    words = os.environ.get("CC", "")
    try:
        chosen = shlex.split(words)
    except ValueError as error:
        raise _no_compiler(f"CC={words!r}, which no shell could read ({error})") from error
    for command in [chosen] if chosen else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            _version(tuple(command))
            return command
    raise _no_compiler(f"none called {chosen[0]!r}" if chosen else "none")


def _no_compiler(found: str) -> ProviderError:
    return ProviderError(
        "compiler-missing",
        expected="a C compiler for the native provider: cc, gcc or clang, or the one that CC names",
        found=found,
        fix="install the package gcc ('apt install gcc', 'dnf install gcc', 'apk add gcc musl-dev'; on macOS "
        "'xcode-select --install'), or use provider cpu",
    )


@functools.lru_cache(maxsize=1)
def fingerprint() -> str:
    """Return a hash of this package's own files: a newer compiler of ours builds anew."""
    found = hashlib.sha256(platform.machine().encode())
    for path in sorted(_PACKAGE.rglob("*")):
        if path.suffix in (".py", ".c", ".h"):
            found.update(path.read_bytes())
    return found.hexdigest()


@functools.lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    """Return what a compiler says of itself. Raises ProviderError `compiler-missing` if it cannot start."""
    try:
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    except (OSError, ValueError) as error:
        raise _no_compiler(f"{command[0]!r}, which cannot be started ({first_line(error)})") from error
    return result.stdout.partition("\n")[0]


def kept(
    parts: Sequence[str], make: Callable[[], Mapping[str, bytes]], build: Mapping[str, Sequence[str]]
) -> Path:
    """Return the folder of what was built from `parts`, building it if it is not there yet.

    Args:
        parts: what tells it apart.
        make: returns the files to build from, by name.
        build: for each library, its name and the compiler's arguments, relative to the folder.

    Raises:
        ProviderError: `compiler-missing`, `compiler-failed` or `cache-not-writeable`.
    """
    command = compiler()
    key = hashlib.sha256(
        "\0".join([*parts, fingerprint(), *command, _version(tuple(command))]).encode()
    ).hexdigest()
    home = cache_folder() / "native"
    final = home / key
    if _is_whole(final, build):
        return final
    try:
        shutil.rmtree(final, ignore_errors=True)  # it was whole when it was renamed into place
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(prefix=".building-", dir=home))
    except OSError as error:
        raise _not_writeable(home, error) from error
    try:
        return _built(folder, final, make, command, build)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _built(
    folder: Path,
    final: Path,
    make: Callable[[], Mapping[str, bytes]],
    command: Sequence[str],
    build: Mapping[str, Sequence[str]],
) -> Path:
    """Build in `folder`, which becomes `final`; return that."""
    files = make()
    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        for library, arguments in build.items():
            _compile([*command, *arguments, "-o", library], folder)
        digests = {name: _digest(folder / name) for name in _files(folder)}
        (folder / _DIGESTS).write_text(json.dumps(digests))
        folder.rename(final)
    except OSError as error:
        if not _is_whole(final, build):  # or else another process was faster
            raise _not_writeable(final.parent, error) from error
    return final


def _is_whole(folder: Path, build: Mapping[str, Sequence[str]]) -> bool:
    """Whether a folder holds the files that it was made with, byte for byte, and no others."""
    try:
        digests = json.loads((folder / _DIGESTS).read_bytes())
        names = _files(folder) - {_DIGESTS}
        if not isinstance(digests, dict) or set(digests) != names or not set(build) <= names:
            return False
        return all(_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, RecursionError):
        return False


def _files(folder: Path) -> set[str]:
    """Return the paths of all files in a folder and below it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compile(command: Sequence[str], folder: Path) -> None:
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:  # it was there a moment ago, to say its version
        raise _no_compiler(f"{command[0]!r}, which cannot be started ({first_line(error)})") from error
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
        raise ProviderError(
            "compiler-failed",
            expected=f"{command[0]} to compile the model",
            found=(lines or [f"exit status {result.returncode}"])[0].strip(),
            fix="name another compiler with CC, or use provider cpu",
        )
