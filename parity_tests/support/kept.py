"""What one run of the tests leaves for the next, by the digest of what it is made from. CI starts anew."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ON_CI = os.environ.get("CI", "").lower() in ("1", "true")
_SOURCES = ("exporter/rnnx_export", "runtimes/python/rnnx", "parity_tests/cases", "parity_tests/support")
_PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
_DAYS = 3  # that something is kept after it was last asked for


def folder(kind: str, base: Path) -> Path:
    """Return where things of a kind are kept: in build/tests, on CI in the folder of the run, `base`."""
    found = (base if ON_CI else REPOSITORY / "build" / "tests") / kind
    found.mkdir(parents=True, exist_ok=True)
    return found


def once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder `target`, made by whichever process asks first; what fails is not kept."""
    with open(target.with_name(f"{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a parallel run share the folder
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as place:
                made = Path(place) / "made"
                made.mkdir()
                make(made)
                made.rename(target)
    return target


def digest(parts: Iterable[bytes]) -> str:
    """Return a name for what is made from these parts."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:20]


def program(target: Path, parts: Iterable[bytes], build: Callable[[], None]) -> Path:
    """Return the program `target`, built, or as it was built from the same parts before."""
    if ON_CI:
        build()
        return target
    home = folder("programs", target.parent)
    found = home / digest(parts)
    if not found.exists():
        build()
        with tempfile.TemporaryDirectory(dir=home) as place:
            shutil.copy2(target, made := Path(place) / "made")
            made.rename(found)
    os.utime(found)
    _forget(home)
    shutil.copy2(found, target)
    return target


@functools.cache
def exports(base: Path) -> Path:
    """Return where exported cases are kept: by all the code that makes one, and the packages that it uses."""
    files = sorted(path for source in _SOURCES for path in (REPOSITORY / source).rglob("*.py"))
    parts = [f"{path.relative_to(REPOSITORY)}".encode() + b"\0" + path.read_bytes() for path in files]
    parts += [f"{name} {importlib.metadata.version(name)}".encode() for name in _PACKAGES]
    home = folder("exports", base)
    found = home / digest(parts)
    found.mkdir(exist_ok=True)
    os.utime(found)
    _forget(home)
    return found


def _forget(home: Path) -> None:
    """Remove what no run has asked for in the last days; another worker may be faster."""
    for path in home.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAYS * 24 * 3600:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
