"""Sound in `.wav` files: PCM of 8, 16, 24 or 32 bits and floats, any number of channels.

http://soundfile.sapp.org/doc/WaveFormat/ has the layout: chunks, each a name of 4 letters, a size and bytes.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator

import numpy as np

from rnnx.errors import FileError
from rnnx.files import read_bytes
from rnnx.limits import check_bytes, max_bytes
from rnnx.model.shapes import Array

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_KINDS = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}


@dataclasses.dataclass(frozen=True)
class Wav:
    """What a `.wav` holds.

    Attributes:
        samples: float32 [frame, channel], PCM scaled to -1..1.
        rate: frames a second.
        bits: of a sample.
        is_float: whether samples are floats in the file.
    """

    samples: Array
    rate: int
    bits: int = 16
    is_float: bool = False


def read_wav(path: str | os.PathLike[str]) -> Wav:
    """Return the sound in a file.

    Raises:
        FileError: `file-missing`, `cannot-read` or `not-wav`.
        InputError: `out-of-memory`.
    """
    return decode_wav(read_bytes(path, what="sound"), label=str(path))


def decode_wav(data: bytes, *, label: str) -> Wav:
    """Return the sound in the bytes of a `.wav`.

    Args:
        data: the bytes.
        label: what to call them in a message.

    Raises:
        FileError: `not-wav`.
        InputError: `out-of-memory`.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise _not_wav(label, f"{len(data)} bytes that begin otherwise")
    chunks = dict(_chunks(data))
    layout, body = chunks.get(b"fmt ", b""), chunks.get(b"data")
    if len(layout) < 16 or body is None:
        raise _not_wav(label, "no layout, or no samples")
    kind, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", layout[:16])
    if kind == _EXTENSIBLE and len(layout) >= 26:
        kind = int.from_bytes(layout[24:26], "little")
    if (kind, bits) not in _KINDS or not channels or not rate or frame_bytes != channels * bits // 8:
        raise _not_wav(label, f"format {kind} with {channels} channels of {bits} bits")
    frames = len(body) // frame_bytes
    check_bytes(f"samples in {label}", frames * channels * 8, max_bytes())
    flat = _to_floats(body[: frames * frame_bytes], bits, is_float=kind == _FLOAT)
    return Wav(flat.reshape(frames, channels), rate, bits, kind == _FLOAT)


def encode_wav(wav: Wav) -> bytes:
    """Return the bytes of a `.wav`; PCM is rounded, and what lies outside of -1..1 is cut off."""
    frames, channels = wav.samples.shape
    kind = _FLOAT if wav.is_float else _PCM
    size = wav.bits // 8
    layout = struct.pack(
        "<HHIIHH", kind, channels, wav.rate, wav.rate * channels * size, channels * size, wav.bits
    )
    parts = {b"fmt ": layout + (b"\0\0" if wav.is_float else b"")}
    if wav.is_float:
        parts[b"fact"] = struct.pack("<I", frames)
    parts[b"data"] = _from_floats(wav.samples.reshape(-1), wav.bits, is_float=wav.is_float)
    body = b"".join(
        name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in parts.items()
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content; a size that says more than there is, as of a stream, means the rest."""
    begin = 12
    while begin + 8 <= len(data):
        size = int.from_bytes(data[begin + 4 : begin + 8], "little")
        yield data[begin : begin + 4], data[begin + 8 : begin + 8 + size]
        begin += 8 + size + size % 2


def _to_floats(body: bytes, bits: int, *, is_float: bool) -> Array:
    if is_float:
        return np.frombuffer(body, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:
        return (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / 128
    if bits == 24:
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)  # the lowest byte stays 0
        whole: Array = wide.view("<i4")[:, 0] / 256
    else:
        whole = np.frombuffer(body, f"<i{bits // 8}")
    return np.asarray(whole / 2 ** (bits - 1), np.float32)


def _from_floats(flat: Array, bits: int, *, is_float: bool) -> bytes:
    if is_float:
        return bytes(flat.astype(f"<f{bits // 8}").tobytes())
    end = 2 ** (bits - 1)
    whole = np.clip(np.rint(flat.astype(np.float64) * end), -end, end - 1).astype(np.int64)
    if bits == 8:
        return bytes((whole + 128).astype(np.uint8).tobytes())
    wide = whole.astype("<i4").view(np.uint8).reshape(-1, 4)
    return bytes(wide[:, : bits // 8].tobytes())


def _not_wav(label: str, found: str) -> FileError:
    return FileError(
        "not-wav",
        expected=f"PCM or floats in a .wav at {label}",
        found=found,
        fix="convert it: 'ffmpeg -i SOUND -c:a pcm_s16le sound.wav', or give the samples as .npy",
    )
