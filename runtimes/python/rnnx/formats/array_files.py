"""Arrays in files: `.npy` for one, `.npz` and `.safetensors` for several by name."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from rnnx.errors import FileError, InputError, UsageError, first_line
from rnnx.files import read_bytes, write_bytes
from rnnx.formats.safetensors_file import decode_tensors, encode_tensors
from rnnx.limits import check_bytes, max_bytes
from rnnx.model.shapes import Array

SUFFIXES = (".npy", ".npz", ".safetensors")
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # of a .npz, of an empty one
NUMPY_STARTS = (b"\x93NUMPY", *_ZIP_STARTS)


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

    A compressed file may hold a thousand times its size: all arrays together are held to `rnnx.limits`.

    Args:
        data: the bytes.
        label: what to call them in a message.

    Raises:
        FileError: `not-an-array`.
        InputError: `out-of-memory`.
    """
    left = max_bytes()
    try:
        if not data.startswith(_ZIP_STARTS):
            return _read_array(io.BytesIO(data), len(data), label, left)
        arrays: dict[str, Array] = {}
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as member:
                    array = _read_array(member, entry.file_size, label, left)
                arrays[entry.filename.removesuffix(".npy")] = array
                left -= array.nbytes
        return arrays
    except InputError:
        raise
    except Exception as error:  # archives and headers that are damaged end in errors of many kinds
        raise FileError(
            "not-an-array",
            expected=f"numbers in NumPy's format in {label}",
            found=_what_else(data, error),
            fix="save it with numpy.save or numpy.savez; if it was copied, copy it again whole",
        ) from error


def _read_array(file: IO[bytes], length: int, label: str, limit: int) -> Array:
    """Return the array of a `.npy` of `length` bytes; its header is held to both before values are read."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"NumPy's format in version {version}, which is for records")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("Python objects, as pickle writes them")
    size = math.prod(shape) * dtype.itemsize
    if size != length - file.tell():
        raise ValueError(f"{length - file.tell()} bytes, where its shape {shape} has {size}")
    check_bytes(f"arrays in {label}", size, limit)
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"only {len(content)} of {size} bytes")
    flat = np.frombuffer(content, dtype).copy()
    return flat.reshape(shape, order="F" if fortran else "C")


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
