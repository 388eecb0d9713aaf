"""Sound in files, held to Python's own module `wave`; and the rate that a model has."""

from __future__ import annotations

import io
import re
import sys
import wave
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import pytest

import rnnx
from rnnx.audio import rate_of, to_input, to_sound
from rnnx.errors import FileError, InputError, UsageError
from rnnx.formats.sound_file import Sound, encode_sound, read_sound
from rnnx.model.shapes import Array
from support.replay_programs import GOLDEN

HOPS = rnnx.load(GOLDEN / "hops.onnx").contract
GRU = rnnx.load(GOLDEN / "gru.onnx").contract


def by_wave(frames: Array, rate: int, width: int) -> bytes:
    """Write whole numbers, [frame, channel], by the standard library."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(frames.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            file.writeframes((frames + 128).astype(np.uint8).tobytes())
        else:
            file.writeframes(
                frames.astype("<i4").view(np.uint8).reshape(*frames.shape, 4)[..., :width].tobytes()
            )
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_pcm_is_read_and_written_as_python_s_own_module_does(
    width: int, channels: int, tmp_path: Path
) -> None:
    end = 2 ** (8 * width - 1)
    frames = np.random.default_rng(0).integers(-end, end, (8, channels))
    frames[:2] = [[-end], [end - 1]]
    (tmp_path / "x.wav").write_bytes(by_wave(frames, 8000, width))
    found = read_sound(tmp_path / "x.wav")
    assert (found.rate, found.kind) == (8000, "PCM_U8" if width == 1 else f"PCM_{8 * width}")
    np.testing.assert_allclose(found.samples, frames / end, atol=1e-7)
    if width < 4:  # float32 has 24 bits
        with wave.open(io.BytesIO(encode_sound("y.wav", found))) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, channels, width)
            written = file.readframes(99)
        assert written == by_wave(frames, 8000, width)[-len(written) :]


def test_pcm_cuts_off_what_lies_outside() -> None:
    loud = Sound(np.array([[-2.0], [-1], [0.5], [1], [2]], np.float32), 8000)
    with wave.open(io.BytesIO(encode_sound("y.wav", loud))) as file:
        written = np.frombuffer(file.readframes(9), "<i2")
    assert written.tolist() == [-(2**15), -(2**15), 2**14, 2**15 - 1, 2**15 - 1]


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE"])
def test_floats_come_back_as_they_were(kind: str, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32) * 3
    (tmp_path / "x.wav").write_bytes(encode_sound("x.wav", Sound(samples, 44100, kind)))
    found = read_sound(tmp_path / "x.wav")
    np.testing.assert_array_equal(found.samples, samples)
    assert found.kind == kind


def test_flac_holds_pcm(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(-(2**15), 2**15, (500, 2))
    sound = Sound((frames / 2**15).astype(np.float32), 16000, "FLOAT")
    (tmp_path / "x.flac").write_bytes(encode_sound(tmp_path / "x.flac", sound))
    assert (tmp_path / "x.flac").read_bytes()[:4] == b"fLaC"
    found = read_sound(tmp_path / "x.flac")
    assert found.kind == "PCM_16"
    np.testing.assert_array_equal(found.samples, sound.samples)


@pytest.mark.parametrize("change", [slice(0, 4), slice(22, 24)])
def test_what_is_no_sound_is_refused(change: slice, tmp_path: Path) -> None:
    whole = by_wave(np.arange(6)[:, None], 8000, 2)
    data, path = bytearray(whole), tmp_path / "x.wav"
    data[change] = bytes(7 for _ in range(*change.indices(len(data))))
    for content in (bytes(data), whole[:20], b""):
        path.write_bytes(content)
        with pytest.raises(FileError, match="expected sound at") as refused:
            read_sound(path)
        assert refused.value.code == "not-sound"


def test_what_a_format_cannot_hold_is_refused() -> None:
    with pytest.raises(FileError, match="9 channels at 8000"):
        encode_sound("y.flac", Sound(np.zeros((4, 9), np.float32), 8000))


def test_the_extra_is_named_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'rnnx[audio]'")) as refused:
        read_sound(tmp_path / "x.wav")
    assert refused.value.code == "soundfile-missing"


def test_the_rate_is_that_of_the_steps() -> None:
    assert rate_of(HOPS, HOPS.inputs[0]) == 16000
    samples = np.linspace(-1, 1, 320, dtype=np.float32)[:, None]
    given = to_input(HOPS, Sound(samples, 16000))
    np.testing.assert_array_equal(given["audio"], samples.T)
    back = to_sound(HOPS, {"y": given["audio"]}, None)
    np.testing.assert_array_equal(back.samples, samples)
    assert back.rate == 16000
    with pytest.raises(InputError, match="expected 16000 samples a second, 160 a step; found 8000"):
        to_input(HOPS, Sound(samples, 8000))
    with pytest.raises(InputError, match="1 channel; found 2"):
        to_input(HOPS, Sound(np.zeros((320, 2), np.float32), 16000))
    odd = msgspec.structs.replace(HOPS, steps_per_second=62.5)
    assert rate_of(odd, odd.inputs[0]) == Fraction(10000)
    unknown = msgspec.structs.replace(HOPS, steps_per_second=None)
    assert to_sound(unknown, {"y": given["audio"]}, Sound(samples, 8000)).rate == 8000
    with pytest.raises(UsageError, match="no rate"):
        to_sound(unknown, {"y": given["audio"]}, None)


@pytest.mark.parametrize(("shape", "order"), [(["batch", 2, "160*time"], 1), (["batch", "160*time", 2], 0)])
def test_channels_lie_on_the_axis_that_is_neither_batch_nor_time(shape: list[int | str], order: int) -> None:
    inputs = [msgspec.structs.replace(HOPS.inputs[0], shape=shape)]
    outputs = [msgspec.structs.replace(HOPS.outputs[0], shape=shape)]
    stereo = msgspec.structs.replace(HOPS, inputs=inputs, outputs=outputs)
    samples = np.random.default_rng(0).normal(size=(320, 2)).astype(np.float32)
    given = to_input(stereo, Sound(samples, 16000))["audio"]
    np.testing.assert_array_equal(given, [samples.T if order else samples])
    np.testing.assert_array_equal(to_sound(stereo, {"y": given}, None).samples, samples)


def test_a_model_that_takes_no_samples_is_told_so() -> None:
    wide = msgspec.structs.replace(HOPS.inputs[0], shape=["batch", 3, "time", 2])
    with pytest.raises(UsageError, match="samples along time"):
        to_input(msgspec.structs.replace(HOPS, inputs=[wide]), Sound(np.zeros((9, 1), np.float32), 16000))
    with pytest.raises(InputError, match="4 channels"):
        to_input(GRU, Sound(np.zeros((9, 1), np.float32), 16000))
