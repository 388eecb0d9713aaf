"""safetensors bytes, written in one fixed order and read with care: what traces and snapshots are stored as.

Source: the safetensors format, a header of JSON behind its length as little-endian uint64, then the data.
The safetensors package writes metadata in random order; equal content gives equal bytes here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnx.errors import FileError
from rnnx.model.shapes import Array

_CODES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
_DTYPES = {code: np.dtype(name).newbyteorder("<") for name, code in _CODES.items()}
_LARGEST_HEADER = 100_000_000  # the format's own limit


def encode_tensors(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return safetensors bytes: tensors in the order given, largest elements first for alignment."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, end = [], 0
    for name in sorted(tensors, key=lambda name: -tensors[name].itemsize):
        array = tensors[name]
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end + len(data)],
        }
        end += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def decode_tensors(data: bytes, *, what: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors by name, as fresh arrays, and the metadata of safetensors bytes.

    Args:
        data: the bytes.
        what: what they should be, for the error message ("a trace").

    Raises:
        FileError: `not-safetensors` for anything that is not whole and well formed.
    """
    try:
        return _decode(data)
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        reason = f"{error}" if type(error) is ValueError else f"a malformed header ({type(error).__name__})"
        raise FileError(
            "not-safetensors",
            expected=f"{what}, in safetensors format",
            found=f"{len(data)} bytes that are not: {reason}",
            fix="check the path; if the file was copied, copy it again whole",
        ) from error


def _decode(data: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    if len(data) < 8:
        raise ValueError("too short for a header")
    size = int.from_bytes(data[:8], "little")
    if size > min(len(data) - 8, _LARGEST_HEADER):
        raise ValueError("cut short in the header")
    header = json.loads(data[8 : 8 + size])
    body = memoryview(data)[8 + size :]
    metadata = header.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata that is not text")
    entries = {name: _entry(name, entry, len(body)) for name, entry in header.items()}
    used = 0
    # Every byte belongs to one tensor, so that a file costs what it is long.
    for name, (_, _, start, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != used and start != end:
            raise ValueError(f"tensor {name!r} at {start}, where the one before it ends at {used}")
        used = max(used, end)
    if used != len(body):
        raise ValueError(f"{len(body) - used} bytes behind the last tensor")
    return {name: _array(name, entry, body) for name, entry in entries.items()}, metadata


_Entry = tuple["np.dtype[Any]", tuple[int, ...], int, int]


def _entry(name: str, entry: Any, available: int) -> _Entry:
    """Return dtype, shape and place of a tensor, held to each other and to the bytes that there are."""
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    # JSON, as Python reads it, has 1.5, true and Infinity, too.
    if not all(type(size) is int for size in (start, end, *shape)):
        raise ValueError(f"tensor {name!r} with a size that is no whole number")
    dtype = _DTYPES[entry["dtype"]]
    if min(start, *shape, 0) < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name!r} of another size than its shape")
    if end > available:
        raise ValueError(f"cut short in tensor {name!r}")
    return dtype, shape, start, end


def _array(name: str, entry: _Entry, body: memoryview) -> Array:
    dtype, shape, start, _ = entry
    array = np.frombuffer(body, dtype, math.prod(shape), start).reshape(shape).astype(dtype.newbyteorder("="))
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:  # engines may read it as either
        raise ValueError(f"tensor {name!r} with a boolean that is neither 0 nor 1")
    return array


def decimal(text: str) -> int | None:
    """Return the number that stands in metadata, None for anything else.

    Of a number of more than 20 digits the first 20 are returned, which is too large for anything as well:
    Python reads no numbers of thousands of digits.
    """
    return int(text.lstrip("0")[:20] or 0) if text.isascii() and text.isdecimal() else None


def check_format(
    metadata: Mapping[str, str], *, what: str, name: str, version: int, model_id: str | None
) -> None:
    """Check that a file is of our `name` and `version`, and belongs to the model at hand.

    Raises:
        FileError: `not-a-NAME`, `NAME-newer` or `NAME-of-another-model`.
    """
    written = decimal(metadata.get("version", ""))
    if metadata.get("format") != f"rnnx-{name}" or written is None:
        raise FileError(
            f"not-a-{name}",
            expected=f"{what} (metadata format 'rnnx-{name}' and a version)",
            found=f"safetensors of format {metadata.get('format', '')!r}",
            fix=f"name a {name} that rnnx wrote",
        )
    if written > version:
        raise FileError(
            f"{name}-newer",
            expected=f"{what} of version {version} at most",
            found=f"version {written}",
            fix="install a newer rnnx",
        )
    if model_id is not None and metadata.get("model") != model_id:
        raise FileError(
            f"{name}-of-another-model",
            expected=f"{what} of the model {model_id}",
            found=f"one of {metadata.get('model', 'no model')}",
            fix="use the model file that it was made with",
        )
