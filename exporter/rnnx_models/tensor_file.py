"""safetensors files with one JSON document in their metadata: what checkpoints are stored as."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from rnnx.errors import FileError
from rnnx.files import read_bytes, write_bytes

# torch.save writes a zip archive; older versions, and pickle itself, a pickle of protocol 2 or later.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def write_tensors(path: Path, tensors: dict[str, Tensor], key: str, document: str) -> None:
    """Write `tensors` and the JSON text `document` under the metadata key `key`, whole or not at all.

    One key only: safetensors writes several in no fixed order, and equal runs should give equal files.

    Raises:
        FileError: as `rnnx.files.writing`.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, safetensors.torch.save(contiguous, {key: document}))


def read_tensors(path: Path, *, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, and its metadata.

    Args:
        path: the file.
        what: what it should be, for the error messages ("a checkpoint").

    Raises:
        FileError: `file-missing`, `cannot-read`, `checkpoint-is-pickle` or `not-safetensors`.
    """
    data = read_bytes(path, what=what)
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        # Only now: the length that a good file begins with may look like a pickle.
        if data.startswith(_PICKLE_STARTS):
            raise FileError(
                "checkpoint-is-pickle",
                expected=f"{what} in safetensors format at {path}",
                found="a pickle, as torch.save writes it, which can run any code when it is read",
                fix="train with 'rnnx train'; export a module of yours as file.py:Name --weights FILE",
            ) from error
        raise FileError(
            "not-safetensors",
            expected=f"{what} in safetensors format at {path}",
            found=f"{len(data)} bytes that are not ({error})",
            fix="check the path; if the file was copied, copy it again whole",
        ) from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tensors, header.get("__metadata__", {})
