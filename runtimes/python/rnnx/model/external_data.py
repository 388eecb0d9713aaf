"""Tensors of an ONNX file whose values lie in other files: found wherever a tensor may stand, read with care.

The standard lets any tensor name a file: an initializer, an attribute of a Constant or of another node, the
parts of a sparse tensor, in subgraphs, functions and training graphs too. A location is read from the model's
own folder only, whatever the working directory is, never through a link out of it, from a pipe or a device.

Field numbers and the meaning of `external_data` are those of onnx.proto (TensorProto, fields 1, 2, 13, 14).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from rnnx.errors import ModelError
from rnnx.model import protobuf
from rnnx.model.onnx_messages import INSIDE, element_count, entry, walk

_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128,
    16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8,
}  # fmt: skip
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of TensorProto
_EXTERNAL = 1  # TensorProto.DataLocation
_BLOCK = 1 << 20
_SHARED = 4  # how many tensors may share values, on average


@dataclasses.dataclass(frozen=True)
class ExternalTensor:
    """One tensor whose values lie outside the model.

    Attributes:
        location: the file, as the model names it.
        offset: where in it the values begin.
        nbytes: how many bytes they are, by dtype and shape.
    """

    location: str
    offset: int
    nbytes: int


def external_tensors(data: bytes) -> list[ExternalTensor]:
    """Return the external tensors of a model in the order in which they stand in it.

    Raises:
        ModelError: `external-data-refused` for what no such tensor may say.
        ValueError: the bytes are no model.
    """
    return [_external(tensor) for tensor in walk(memoryview(data), "model", "tensor") if _is_external(tensor)]


def read_external(folder: Path | None, tensor: ExternalTensor) -> Iterator[bytes]:
    """Yield the values of a tensor block by block.

    Args:
        folder: of the model; None for a model that is bytes alone.
        tensor: which.

    Raises:
        ModelError: `external-data-missing`, or `external-data-refused` where the location leads out of the
            folder or names no plain file, or the file is too short.
    """
    if folder is None:
        raise _missing(tensor, "bytes without a folder")
    path = _place(folder, tensor)
    try:
        found = path.stat()
        if tensor.offset + tensor.nbytes > found.st_size:
            raise _refused(
                f"{tensor.nbytes} bytes from {tensor.offset} on in {tensor.location!r}",
                f"a file of {found.st_size}",
            )
        with path.open("rb") as file:
            file.seek(tensor.offset)
            left = tensor.nbytes
            while left:
                block = file.read(min(left, _BLOCK))
                if not block:
                    raise EOFError(tensor.location)
                left -= len(block)
                yield block
    except (OSError, EOFError, ValueError) as error:
        raise _missing(tensor, _why(error)) from error


def read_all(folder: Path | None, tensors: Sequence[ExternalTensor]) -> Iterator[bytes]:
    """Yield the values of all tensors, block by block. Several may share values, but not without end.

    Raises:
        ModelError: as `read_external`; `external-data-refused` where the tensors are many times their files.
    """
    files = {tensor.location: tensor for tensor in tensors}
    held = 0 if folder is None else sum(_place(folder, tensor).stat().st_size for tensor in files.values())
    if folder is not None and (wanted := sum(tensor.nbytes for tensor in tensors)) > _SHARED * held:
        raise _refused(f"at most {_SHARED} times the {held} bytes of the files that hold it", f"{wanted}")
    for tensor in tensors:
        yield from read_external(folder, tensor)


def relocated(data: bytes, names: Mapping[str, str]) -> bytes:
    """Return the model with other files named: `names` has the new location by the old one."""
    return _relocated(memoryview(data), "model", names)


def _relocated(message: memoryview, kind: str, names: Mapping[str, str]) -> bytes:
    parts = []
    for number, value, start, end in protobuf.fields(message):
        part = bytes(message[start:end])
        inside = INSIDE[kind].get(number)
        if inside is not None and isinstance(value, memoryview):
            part = protobuf.encode_bytes(number, _relocated(value, inside, names))
        elif kind == "tensor" and number == _EXTERNAL_DATA and isinstance(value, memoryview):
            key, location = entry(value)
            if key == "location":
                pair = protobuf.encode_bytes(1, b"location") + protobuf.encode_bytes(
                    2, names[location].encode()
                )
                part = protobuf.encode_bytes(number, pair)
        parts.append(part)
    return b"".join(parts)


def _is_external(tensor: memoryview) -> bool:
    return any(
        number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == _EXTERNAL)
        for number, value, _, _ in protobuf.fields(tensor)
    )


def _external(tensor: memoryview) -> ExternalTensor:
    entries: dict[str, str] = {}
    bits = None
    for number, value, _, _ in protobuf.fields(tensor):
        if number == 2 and isinstance(value, int):
            bits = _BITS.get(value)
        elif number == _EXTERNAL_DATA and isinstance(value, memoryview):
            entries.update([entry(value)])
    if bits is None:
        raise _refused("an external tensor of a dtype with a size", "one of another")
    nbytes = (element_count(tensor) * bits + 7) // 8
    sizes = {
        name: _size(name, entries.get(name), default) for name, default in (("offset", 0), ("length", nbytes))
    }
    if sizes["length"] != nbytes:
        raise _refused(f"an external tensor of {nbytes} bytes, as its shape has", f"length {sizes['length']}")
    return ExternalTensor(entries.get("location", ""), sizes["offset"], nbytes)


def _size(name: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise _refused(f"a whole number of bytes as {name} of an external tensor", repr(text[:40]))
    return int(text)


def _place(folder: Path, tensor: ExternalTensor) -> Path:
    """Return the plain file that holds a tensor, with all links followed: none may lead out of the folder."""
    location = tensor.location
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    wrong = not location or "\0" in location or posix.is_absolute() or windows.drive or windows.root
    if wrong or ".." in posix.parts or ".." in windows.parts:
        raise _refused("external data in a file of the model's folder", repr(location[:80]))
    try:
        home = folder.resolve(strict=True)
        path = (home / location).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise _missing(tensor, _why(error)) from error
    if not path.is_relative_to(home):
        raise _refused("external data in a file of the model's folder", f"a link out of it: {location!r}")
    if not path.is_file():
        raise _refused(f"a plain file at {location!r}", "a folder, pipe or device")
    return path


def _why(error: Exception) -> str:
    absent = isinstance(error, FileNotFoundError | NotADirectoryError)
    return "no such file" if absent else "one that cannot be read"


def _missing(tensor: ExternalTensor, found: str) -> ModelError:
    return ModelError(
        "external-data-missing",
        expected=f"the model's weights in {tensor.location!r} beside it",
        found=found,
        fix="keep both files together and load the model by its path",
    )


def _refused(expected: str, found: str) -> ModelError:
    return ModelError(
        "external-data-refused",
        expected=expected,
        found=found,
        fix="export the model again, or ask whoever made it",
    )
