"""Edits of files of arrays: safetensors, `.npy` and `.npz`, in their headers, bodies and archives."""

from __future__ import annotations

import io
import json
import random
import zipfile

import numpy as np

from fuzzing.edits import FLOATS, edit_bytes, edit_json_text, integer, text
from rnnx.formats.safetensors_file import decode_tensors, encode_tensors

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_TYPES = ("<f4", "<f8", ">f4", "<i8", "|O", "|V8", "<c8", "<U3", "|b1", "<M8[s]", "f", "<f9")


def edit_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file of which header, length or body say something else."""
    if rng.random() < 0.2:
        return edit_bytes(data, rng)
    if rng.random() < 0.6:
        return _edit_tensors(data, rng)
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if rng.random() < 0.8:
        written = edit_json_text(header, rng).encode("utf-8", "surrogatepass")
    else:
        written = data[8 : 8 + size]
        body = edit_bytes(body, rng)
    length = (
        len(written) if rng.random() < 0.9 else rng.choice((0, 2**63, 2**64 - 1, len(written) + 1, 2**27))
    )
    return length.to_bytes(8, "little") + written + body


def _edit_tensors(data: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file that is one, with other tensors or metadata than it should have."""
    tensors, metadata = decode_tensors(data, what="a good file")
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(tensors) or [""])
        way = rng.randrange(7)
        if way == 0 and metadata:
            metadata[rng.choice(list(metadata))] = rng.choice(
                (text(rng), str(integer(rng)), "9" * 5000, "{}")
            )
        elif way == 1 and metadata:
            metadata.pop(rng.choice(list(metadata)))
        elif name in tensors and way == 2:
            tensors[text(rng)] = tensors.pop(name)
        elif name in tensors and way == 3:
            dtype = rng.choice(("float32", "float64", "int64", "bool", "float16"))
            with np.errstate(all="ignore"):
                tensors[name] = tensors[name].astype(dtype)
        elif name in tensors and way == 4 and tensors[name].ndim:
            tensors[name] = tensors[name][rng.choice((None, slice(0, 0), slice(1, None), ...))]
        elif name in tensors and way == 5:
            tensors[name] = tensors[name].repeat(rng.choice((2, 100)))
        elif name in tensors and tensors[name].size:
            with np.errstate(all="ignore"):
                strange = np.array(rng.choice([*FLOATS, float(integer(rng))])).astype(tensors[name].dtype)
            tensors[name].flat[rng.randrange(tensors[name].size)] = strange
    return encode_tensors(tensors, metadata)


def npz(arrays: dict[str, np.ndarray], rng: random.Random) -> bytes:
    """Return a `.npz` of these arrays, mostly with something wrong about a member or the archive."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", rng.choice(_METHODS)) as archive:
        for name, array in arrays.items():
            content = edit_npy(npy(array), rng) if rng.random() < 0.6 else npy(array)
            entry = zipfile.ZipInfo(f"{name}.npy" if rng.random() < 0.9 else f"../{name}")  # of a fixed date
            archive.writestr(entry, content, archive.compression)
    data = made.getvalue()
    return edit_bytes(data, rng) if rng.random() < 0.5 else data


def edit_npy(data: bytes, rng: random.Random) -> bytes:
    """Return a `.npy` whose header says another dtype, order, shape or length, or is none."""
    if rng.random() < 0.3:
        return edit_bytes(data, rng)
    size = int.from_bytes(data[8:10], "little")
    body = data[10 + size :]
    shape = tuple(integer(rng) for _ in range(rng.randrange(4)))
    dtype, order = rng.choice(_TYPES), rng.choice((True, False, None, "x"))
    header = repr({"descr": dtype, "fortran_order": order, "shape": shape})
    if rng.random() < 0.3:
        header = rng.choice(
            ("{", "(" * 500, "{'descr': 1}", "[]", "{'a':" * 90, header[:-9], "0" * 5000, "é")
        )
    written = header.encode("latin1", "replace")
    length = len(written) if rng.random() < 0.9 else rng.choice((0, 65535))
    version = bytes((rng.choice((1, 1, 1, 2, 3, 9)), 0))
    width = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + length.to_bytes(width, "little") + written + body


def npy(array: np.ndarray) -> bytes:
    made = io.BytesIO()
    np.save(made, array, allow_pickle=False)
    return made.getvalue()


def safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    """Return a good safetensors file of these arrays."""
    return encode_tensors(arrays, {"format": "rnnx-arrays"})
