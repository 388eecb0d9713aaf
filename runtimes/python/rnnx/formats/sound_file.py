"""Sound in `.wav` and `.flac` files, by the package soundfile (the extra `audio`)."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

from rnnx.errors import FileError, UsageError, first_line
from rnnx.files import read_bytes
from rnnx.limits import check_bytes, max_bytes
from rnnx.model.shapes import Array

_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
SUFFIXES = tuple(_FORMATS)
_DEFAULT = "PCM_16"


@dataclasses.dataclass(frozen=True)
class Sound:
    """What a file of sound holds.

    Attributes:
        samples: float32 [frame, channel], PCM scaled to -1..1.
        rate: frames a second.
        kind: of samples in the file, such as `PCM_16`, `PCM_24` or `FLOAT`.
    """

    samples: Array
    rate: int
    kind: str = _DEFAULT


def is_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds sound, by its name."""
    return Path(path).suffix.lower() in SUFFIXES


def read_sound(path: str | os.PathLike[str]) -> Sound:
    """Return the sound in a file.

    Raises:
        FileError: `file-missing`, `cannot-read` or `not-sound`.
        InputError: `out-of-memory`.
        UsageError: `soundfile-missing`.
    """
    soundfile, data = _library(), read_bytes(path, what="sound")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            check_bytes(f"samples in {path}", file.frames * file.channels * 4, max_bytes())
            samples = file.read(dtype="float32", always_2d=True)
            return Sound(samples, file.samplerate, file.subtype)
    except soundfile.SoundFileError as error:
        raise FileError(
            "not-sound",
            expected=f"sound at {path}",
            found=first_line(error),
            fix="convert it: 'ffmpeg -i SOUND -c:a pcm_s16le sound.wav', or give the samples as .npy",
        ) from error


def encode_sound(path: str | os.PathLike[str], sound: Sound) -> bytes:
    """Return the bytes of a file by that name; PCM is rounded, and what lies outside of -1..1 is cut off.

    Where the format has no samples of that kind, as FLAC has no floats, they are PCM of 16 bits.

    Raises:
        UsageError: `soundfile-missing`.
        FileError: `not-sound`, of channels or a rate that the format does not hold.
    """
    soundfile, buffer = _library(), io.BytesIO()
    form = _FORMATS[Path(path).suffix.lower()]
    kind = sound.kind if soundfile.check_format(form, sound.kind) else _DEFAULT
    try:
        soundfile.write(buffer, sound.samples, sound.rate, format=form, subtype=kind)
    except soundfile.SoundFileError as error:
        raise FileError(
            "not-sound",
            expected=f"sound that a {form} file can hold",
            found=f"{sound.samples.shape[1]} channels at {sound.rate} a second: {first_line(error)}",
            fix="write the samples as .npy",
        ) from error
    return buffer.getvalue()


def _library() -> Any:
    try:
        import soundfile  # type: ignore[import-untyped]
    except (ImportError, OSError) as error:  # OSError: without libsndfile
        raise UsageError(
            "soundfile-missing",
            expected="the package soundfile, to read and write sound",
            found=first_line(error),
            fix="pip install 'rnnx[audio]'",
        ) from error
    return soundfile
