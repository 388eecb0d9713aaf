"""Arrays in files: `.npy` for one, `.npz` and `.safetensors` for several by name."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rnnx.errors import FileError, UsageError, first_line
from rnnx.files import read_bytes, write_bytes
from rnnx.shapes import Array
from rnnx.tensor_file import decode_tensors, encode_tensors

SUFFIXES = (".npy", ".npz", ".safetensors")
NUMPY_STARTS = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")  # of a .npy, of a .npz, of an empty one


def read_arrays(path: str | os.PathLike[str]) -> Array | dict[str, Array]:
    """Return the array in a `.npy`, or the arrays by name in a `.npz` or `.safetensors`.

    Raises:
        UsageError: `array-format` for another suffix.
        FileError: `file-missing`, `cannot-read`, `not-an-array` or `not-safetensors`.
    """
    suffix = check_suffix(path)
    data = read_bytes(path, what="arrays")
    if suffix == ".safetensors":
        return decode_tensors(data, what=f"arrays at {path}")[0]
    return decode_numpy(data, label=str(path))


def decode_numpy(data: bytes, *, label: str) -> Array | dict[str, Array]:
    """Return what the bytes of a `.npy` or `.npz` hold; objects, which are pickles, are refused.

    Raises:
        FileError: `not-an-array`.
    """
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except (ValueError, TypeError, EOFError, OSError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise FileError(
            "not-an-array",
            expected=f"numbers in NumPy's format in {label}",
            found=_what_else(data, error),
            fix="save it with numpy.save or numpy.savez; if it was copied, copy it again whole",
        ) from error


def _what_else(data: bytes, error: Exception) -> str:
    """Return what bytes are that hold no numbers. NumPy takes what it does not know for a pickle."""
    if not data:
        return "an empty file"
    if not data.startswith(NUMPY_STARTS):
        return f"{len(data)} bytes that begin as nothing NumPy writes"
    if "pickle" in str(error):
        return "Python objects, which are no numbers"
    return f"{len(data)} bytes that break off or are damaged ({first_line(error)})"


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays whole or not at all; a `.npy` takes exactly one.

    Raises:
        UsageError: `array-format`, also for several arrays in a `.npy`.
        FileError: as `rnnx.files.writing`.
    """
    write_bytes(path, encode_arrays(path, arrays))


def encode_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> bytes:
    """Return the bytes of a file called `path` that holds `arrays`. Raises UsageError `array-format`."""
    suffix = check_suffix(path, count=len(arrays))
    if suffix == ".safetensors":
        return encode_tensors(arrays, {"format": "rnnx-arrays"})
    buffer = io.BytesIO()
    if suffix == ".npz":
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
    else:
        np.save(buffer, next(iter(arrays.values())), allow_pickle=False)
    return buffer.getvalue()


def check_suffix(path: str | os.PathLike[str], *, count: int = 1) -> str:
    """Return the suffix of `path` if it can hold `count` arrays. Raises UsageError `array-format`."""
    suffix = Path(path).suffix.lower()
    allowed = SUFFIXES if count == 1 else SUFFIXES[1:]
    if suffix not in allowed:
        raise UsageError(
            "array-format",
            expected=f"a name ending in {' or '.join(allowed)}"
            + (f", to hold {count} arrays" if count > 1 else ""),
            found=str(path),
            fix="choose one of these endings",
        )
    return suffix
