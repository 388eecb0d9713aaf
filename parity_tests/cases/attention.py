"""Decoders over a memory, streaming caches, audio; and what no graph can hold."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

STEP = {"x": "float32[batch, 6]"}
X = {"x": "float32[batch, time, 6]"}
H = "float32[batch, 8]"


@case(
    "attention_decoder",
    "decoders",
    states=["h"],
    inputs={"token": "int64[batch] in 0..9", "memory": "float32[batch, memory, 8]"},
    state={"h": H},
)
class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.cell, self.out = nn.Embedding(10, 8), nn.GRUCell(16, 8), nn.Linear(8, 10)

    def forward(self, token, memory, h):
        weight = torch.softmax(torch.einsum("bd,bmd->bm", h, memory), -1)
        context = torch.einsum("bm,bmd->bd", weight, memory)
        h = self.cell(torch.cat([self.embedding(token), context], -1), h)
        return self.out(h), h


@case(
    "encoder_decoder_step",
    "decoders",
    states=["h"],
    inputs={"token": "int64[batch] in 0..9", "source": "float32[batch, memory, 6]"},
    state={"h": H},
)
class EncoderDecoder(nn.Module):
    """The encoder reads its whole input at every step; it must not be lifted."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(6, 8, batch_first=True)
        self.embedding, self.cell = nn.Embedding(10, 8), nn.GRUCell(16, 8)

    def forward(self, token, source, h):
        memory, _ = self.encoder(source)
        weight = torch.softmax(torch.einsum("bd,bmd->bm", h, memory), -1)
        context = torch.einsum("bm,bmd->bd", weight, memory)
        h = self.cell(torch.cat([self.embedding(token), context], -1), h)
        return h, h


@case(
    "transducer_predictor",
    "decoders",
    states=["state.0", "state.1"],
    inputs={"token": "int64[batch, time] in 0..29"},
    state={"state": ("float32[2, batch, 8]",) * 2},
)
class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 8, padding_idx=0)
        self.rnn, self.out = nn.LSTM(8, 8, 2, batch_first=True), nn.Linear(8, 8)

    def forward(self, token, state):
        y, state = self.rnn(self.embedding(token), state)
        return self.out(y), state


@case("attention_weights_returned", "decoders", whole="2 time axes", inputs=X)
class WeightsReturned(nn.Module):
    """What each step looked at: steps paired with steps."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        y, weights = self.attention(x, x, x)
        return y, weights


@case(
    "windowed_attention_cache",
    "decoders",
    states=["k", "v", "seen"],
    inputs=STEP,
    state={"k": "float32[batch, 4, 6]", "v": "float32[batch, 4, 6]", "seen": "int64[] in 0..4"},
)
class Windowed(nn.Module):
    """Attention over the last four frames and how many are real, as in streaming Conformers."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 18)

    def forward(self, x, k, v, seen):
        q, k_new, v_new = self.qkv(x).chunk(3, -1)
        k = torch.cat([k, k_new[:, None]], 1)[:, 1:]
        v = torch.cat([v, v_new[:, None]], 1)[:, 1:]
        seen = torch.clamp(seen + 1, max=4)
        score = torch.einsum("bf,bkf->bk", q, k)
        score = score.masked_fill(torch.arange(4) < 4 - seen, -1e9)
        return torch.einsum("bk,bkf->bf", torch.softmax(score, -1), v), k, v, seen


@case("speaker_embedding", "decoders", states=["rnn.h"], inputs={**X, "speaker": "float32[batch, 4]"})
class Conditioned(nn.Module):
    """An input without time holds for the whole call."""

    def __init__(self):
        super().__init__()
        self.rnn, self.film = nn.GRU(6, 8, batch_first=True), nn.Linear(4, 8)

    def forward(self, x, speaker):
        return self.rnn(x)[0] * self.film(speaker)[:, None]


@case("audio_hops", "audio", states=["rnn.h"], inputs={"audio": "float32[batch, 16*time]"})
class Hops(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(16, 12, batch_first=True), nn.Linear(12, 16)

    def forward(self, audio):
        frames = audio.reshape(audio.shape[0], -1, 16)
        y, _ = self.rnn(frames)
        return self.out(y).reshape(audio.shape[0], -1)


@case(
    "stft_denoiser_step",
    "audio",
    states=["past", "tail", "h"],
    inputs={"hop": "float32[batch, 16]"},
    state={"past": "float32[batch, 16]", "tail": "float32[batch, 16]", "h": "float32[batch, 12]"},
    returns=("y", "past", "tail", "h"),
)
class StftStep(nn.Module):
    """A window of two hops, its spectrum, a mask, and overlap-add."""

    def __init__(self):
        super().__init__()
        self.cell, self.mask = nn.GRUCell(17, 12), nn.Linear(12, 17)
        self.register_buffer("window", torch.hann_window(32).sqrt())

    def forward(self, hop, past, tail, h):
        spectrum = torch.fft.rfft(torch.cat([past, hop], -1) * self.window)
        h = self.cell(torch.log1p(spectrum.abs()), h)
        frame = torch.fft.irfft(spectrum * torch.sigmoid(self.mask(h)), n=32) * self.window
        return frame[:, :16] + tail, hop, frame[:, 16:], h


@case("stft_analysis", "audio", inputs={"audio": "float32[batch, 16*time]"})
class Analysis(nn.Module):
    """Audio in, log spectrum and a GRU, audio out: the window's past is left padding."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(17, 12, batch_first=True), nn.Linear(12, 16)
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, audio):
        frames = F.pad(audio, (16, 0)).unfold(-1, 32, 16)
        spectrum = torch.fft.rfft(frames * self.window)
        y, _ = self.rnn(torch.log1p(spectrum.real**2 + spectrum.imag**2))
        return self.out(y).flatten(1)


@case(
    "complex_rotation",
    "audio",
    states=["z"],
    inputs={"x": "float32[batch, 4]"},
    state={"z": "float32[batch, 4, 2]"},
)
class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.angle = nn.Parameter(torch.rand(4))

    def forward(self, x, z):
        turned = torch.view_as_complex(z) * torch.polar(torch.full((4,), 0.9), self.angle)
        z = torch.view_as_real(turned + x)
        return z[..., 0], z


@case("branch_on_value", "cells", states=["h"], inputs=STEP, state={"h": H})
class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, h):
        h = self.cell(x, h)
        if h.mean() > 0:
            h = h * 0.5
        return h.tanh(), h


@case("early_break", "refused", refused="not-exported", mentions="attention.py:", inputs=X, state={"h": H})
class EarlyBreak(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, h):
        ys = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            ys.append(h)
            if bool((h.abs().max() > 5).item()):
                break
        return torch.stack(ys, 1), h


@case(
    "refused_cut_by_value",
    "refused",
    refused="not-exported",
    mentions="a size that depends on a tensor's value",
    inputs={"x": "float32[batch, 6]"},
    state={"cache": "float32[4, batch, 6]", "count": "int64[1]"},
)
class CutByValue(nn.Module):
    """A cache of fixed size, of which only what is there already is looked at."""

    def forward(self, x, cache, count):
        there = min(4, count[0].item())
        y = x + cache[4 - there :].sum(0)
        return y, torch.cat([cache, x[None]])[-4:], count + 1


@case(
    "data_dependent_shape",
    "refused",
    refused="data-dependent-shape",
    mentions="attention.py:",
    inputs=STEP,
    state={"h": H},
)
class DataShape(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, h):
        h = self.cell(x, h)
        return h[h > 0], h


@case("noise_in_eval", "refused", refused="random", mentions="attention.py:", inputs=STEP, state={"h": H})
class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, h):
        h = self.cell(x + 0.1 * torch.randn_like(x), h)
        return h.tanh(), h


@case("dropout_always_on", "refused", refused="random", mentions="attention.py:", inputs=X)
class AlwaysDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True)

    def forward(self, x):
        return F.dropout(self.rnn(x)[0], 0.3, training=True)


@case("stft_denoiser", "audio", states=["past", "tail", "rnn.h"], inputs={"audio": "float32[batch, 16*time]"})
class Denoiser(nn.Module):
    """Audio in, audio out, any number of hops a call: windows over the past, spectrum, mask, overlap-add."""

    def __init__(self):
        super().__init__()
        self.rnn, self.mask = nn.GRU(17, 12, batch_first=True), nn.Linear(12, 17)
        self.register_buffer("window", torch.hann_window(32).sqrt())
        self.register_buffer("past", torch.zeros(1, 16))
        self.register_buffer("tail", torch.zeros(1, 16))

    def forward(self, audio):
        batch = audio.shape[0]
        joined = torch.cat([self.past.expand(batch, -1), audio], 1)
        spectrum = torch.fft.rfft(joined.unfold(1, 32, 16) * self.window)
        y, _ = self.rnn(torch.log1p(spectrum.abs()))
        frames = torch.fft.irfft(spectrum * torch.sigmoid(self.mask(y)), n=32) * self.window
        late = torch.cat([self.tail.expand(batch, -1)[:, None], frames[:, :-1, 16:]], 1)
        self.past, self.tail = joined[:, -16:], frames[:, -1, 16:]
        return (frames[:, :, :16] + late).flatten(1)


@case("stft_operator", "audio", inputs={"audio": "float32[batch, 16*time]"})
class StftOperator(nn.Module):
    """torch.stft over a padded past."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(17, 12, batch_first=True), nn.Linear(12, 16)
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, audio):
        spectrum = torch.stft(
            F.pad(audio, (16, 0)), 32, hop_length=16, window=self.window, center=False, return_complex=True
        )
        y, _ = self.rnn(torch.log1p(spectrum.abs()).transpose(1, 2))
        return self.out(y).flatten(1)


@case(
    "transform_of_any_length", "audio", states=["past", "rnn.h"], inputs={"audio": "float32[batch, 12*time]"}
)
class TransformOfAnyLength(nn.Module):
    """Transforms of 24 and 10: no powers of two."""

    def __init__(self):
        super().__init__()
        self.rnn, self.mask = nn.GRU(13, 12, batch_first=True), nn.Linear(12, 13)
        self.register_buffer("window", torch.hann_window(24).sqrt())

    def forward(self, audio):
        spectrum = torch.stft(
            F.pad(audio, (12, 0)), 24, 12, window=self.window, center=False, return_complex=True
        )
        mask = torch.sigmoid(self.mask(self.rnn(spectrum.abs().transpose(1, 2))[0])).transpose(1, 2)
        frames = torch.fft.irfft((spectrum * mask).transpose(1, 2), n=24) * self.window
        mixed = torch.fft.ifft(torch.fft.fft(frames[..., :10], norm="ortho"), norm="ortho").real
        return torch.cat([mixed, frames[..., 10:]], -1)
