"""Sound in `.wav` files, held to Python's own module `wave`; and the rate that a model has."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import pytest

import rnnx
from rnnx.audio import rate_of, to_input, to_wav
from rnnx.errors import FileError, InputError, UsageError
from rnnx.formats.wav_file import Wav, decode_wav, encode_wav, read_wav
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
def test_pcm_is_read_and_written_as_python_s_own_module_does(width: int, channels: int) -> None:
    end = 2 ** (8 * width - 1)
    frames = np.random.default_rng(0).integers(-end, end, (8, channels))
    frames[:2] = [[-end], [end - 1]]
    data = by_wave(frames, 8000, width)
    found = decode_wav(data, label="it")
    assert (found.rate, found.bits, found.is_float) == (8000, 8 * width, False)
    np.testing.assert_allclose(found.samples, frames / end, atol=1e-7)
    if width < 4:  # float32 has 24 bits
        assert encode_wav(found) == data


def test_pcm_cuts_off_what_lies_outside() -> None:
    loud = Wav(np.array([[-2.0], [-1], [0.5], [1], [2]], np.float32), 8000)
    assert (decode_wav(encode_wav(loud), label="it").samples * 2**15).ravel().tolist() == [
        -(2**15),
        -(2**15),
        2**14,
        2**15 - 1,
        2**15 - 1,
    ]


@pytest.mark.parametrize("bits", [32, 64])
def test_floats_come_back_as_they_were(bits: int) -> None:
    samples = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32) * 3
    data = encode_wav(Wav(samples, 44100, bits, is_float=True))
    found = decode_wav(data, label="it")
    np.testing.assert_array_equal(found.samples, samples)
    assert (found.bits, found.is_float) == (bits, True)
    assert struct.unpack("<H", data[20:22]) == (3,)


def test_a_stream_s_size_that_says_too_much_means_the_rest() -> None:
    data = bytearray(by_wave(np.arange(6)[:, None], 8000, 2))
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    assert len(decode_wav(bytes(data), label="it").samples) == 6


@pytest.mark.parametrize("change", [slice(0, 4), slice(20, 22), slice(22, 24), slice(34, 36)])
def test_what_is_no_wav_is_refused(change: slice, tmp_path: Path) -> None:
    data = bytearray(by_wave(np.arange(6)[:, None], 8000, 2))
    data[change] = bytes(7 for _ in range(*change.indices(len(data))))
    (tmp_path / "x.wav").write_bytes(data)
    with pytest.raises(FileError) as refused:
        read_wav(tmp_path / "x.wav")
    assert refused.value.code == "not-wav"
    for length in range(44):
        with pytest.raises(FileError):
            decode_wav(by_wave(np.arange(6)[:, None], 8000, 2)[:length], label="it")


def test_the_rate_is_that_of_the_steps() -> None:
    assert rate_of(HOPS, HOPS.inputs[0]) == 16000
    samples = np.linspace(-1, 1, 320, dtype=np.float32)[:, None]
    given = to_input(HOPS, Wav(samples, 16000))
    np.testing.assert_array_equal(given["audio"], samples.T)
    back = to_wav(HOPS, {"y": given["audio"]}, None)
    np.testing.assert_array_equal(back.samples, samples)
    assert back.rate == 16000
    with pytest.raises(InputError, match="expected 16000 samples a second, 160 a step; found 8000"):
        to_input(HOPS, Wav(samples, 8000))
    with pytest.raises(InputError, match="1 channel; found 2"):
        to_input(HOPS, Wav(np.zeros((320, 2), np.float32), 16000))
    odd = msgspec.structs.replace(HOPS, steps_per_second=62.5)
    assert rate_of(odd, odd.inputs[0]) == Fraction(10000)
    unknown = msgspec.structs.replace(HOPS, steps_per_second=None)
    assert to_wav(unknown, {"y": given["audio"]}, Wav(samples, 8000)).rate == 8000
    with pytest.raises(UsageError, match="no rate"):
        to_wav(unknown, {"y": given["audio"]}, None)


@pytest.mark.parametrize(("shape", "order"), [(["batch", 2, "160*time"], 1), (["batch", "160*time", 2], 0)])
def test_channels_lie_on_the_axis_that_is_neither_batch_nor_time(shape: list[int | str], order: int) -> None:
    inputs = [msgspec.structs.replace(HOPS.inputs[0], shape=shape)]
    outputs = [msgspec.structs.replace(HOPS.outputs[0], shape=shape)]
    stereo = msgspec.structs.replace(HOPS, inputs=inputs, outputs=outputs)
    samples = np.random.default_rng(0).normal(size=(320, 2)).astype(np.float32)
    given = to_input(stereo, Wav(samples, 16000))["audio"]
    np.testing.assert_array_equal(given, [samples.T if order else samples])
    np.testing.assert_array_equal(to_wav(stereo, {"y": given}, None).samples, samples)


def test_a_model_that_takes_no_samples_is_told_so() -> None:
    wide = msgspec.structs.replace(HOPS.inputs[0], shape=["batch", 3, "time", 2])
    with pytest.raises(UsageError, match="samples along time"):
        to_input(msgspec.structs.replace(HOPS, inputs=[wide]), Wav(np.zeros((9, 1), np.float32), 16000))
    with pytest.raises(InputError, match="4 channels"):
        to_input(GRU, Wav(np.zeros((9, 1), np.float32), 16000))
