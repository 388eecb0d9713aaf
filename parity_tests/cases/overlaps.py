"""Frames that are spread over entries and added up: transposed convolutions and overlap-add."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

X = {"x": "float32[batch, time, 6]"}
CHANNELS = {"x": "float32[batch, 6, time]"}


@case("upsampling", "overlaps", states=["up.past"], route="direct", inputs=CHANNELS)
class Upsampling(nn.Module):
    """Each frame becomes 3 samples and reaches 5 further ones, which the two frames behind it share."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose1d(6, 4, 4, 3, dilation=2, groups=2)

    def forward(self, x):
        return self.up(x)[..., : 3 * x.shape[-1]]


@case("upsampling_looks_ahead", "whole", whole="looks 1 step ahead", inputs=CHANNELS)
class CentredUpsampling(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose1d(6, 4, 4, 2, padding=1)

    def forward(self, x):
        return self.up(x)


@case(
    "waveform_decoder",
    "overlaps",
    states=["past", "up.past", "past_2", "up_2.past", "past_3"],
    route="direct",
    inputs=CHANNELS,
)
class WaveformDecoder(nn.Module):
    """From 6 numbers a frame to 8 samples, as neural codecs do (Zeghidour et al. 2021)."""

    def __init__(self):
        super().__init__()
        self.begin = nn.Conv1d(6, 8, 5)
        self.up, self.up_2 = nn.ConvTranspose1d(8, 6, 8, 4), nn.ConvTranspose1d(6, 4, 4, 2)
        self.inner, self.end = nn.Conv1d(6, 6, 3, dilation=3), nn.Conv1d(4, 1, 7)

    def forward(self, x):
        y = F.elu(self.begin(F.pad(x, (4, 0))))
        y = self.up(y)[..., :-4]
        y = y + self.inner(F.pad(F.elu(y), (6, 0)))
        y = self.up_2(y)
        y = y.narrow(-1, 0, y.shape[-1] - 2)
        return torch.tanh(self.end(F.pad(F.elu(y), (6, 0))))


@case(
    "waveform_unet",
    "overlaps",
    states=["past", "past_2", "gru.h", "up_2.past", "up.past"],
    inputs={"x": "float32[batch, 1, 4*time]"},
)
class WaveformUNet(nn.Module):
    """A denoiser of samples with skips around a GRU (Defossez et al. 2020)."""

    def __init__(self):
        super().__init__()
        self.down, self.down_2 = nn.Conv1d(1, 4, 4, 2), nn.Conv1d(4, 5, 4, 2)
        self.gru = nn.GRU(5, 5, batch_first=True)
        self.up_2, self.up = nn.ConvTranspose1d(5, 4, 4, 2), nn.ConvTranspose1d(4, 1, 4, 2)

    def forward(self, x):
        a = F.relu(self.down(F.pad(x, (2, 0))))
        b = F.relu(self.down_2(F.pad(a, (2, 0))))
        y = self.gru(b.transpose(1, 2))[0].transpose(1, 2) + b
        return self.up(F.relu(self.up_2(y)[..., :-2]) + a)[..., :-2]


@case(
    "spectrum_decoder",
    "overlaps",
    states=["past", "gru.h", "up.past"],
    inputs={"x": "float32[batch, 1, time, 9]"},
)
class SpectrumDecoder(nn.Module):
    """Convolutions over time and bands, down and up again around a GRU (Tan and Wang 2018)."""

    def __init__(self):
        super().__init__()
        self.down, self.norm = nn.Conv2d(1, 3, (2, 3), (1, 2)), nn.BatchNorm2d(3)
        self.gru = nn.GRU(12, 12, batch_first=True)
        self.up = nn.ConvTranspose2d(6, 1, (2, 3), (1, 2))

    def forward(self, x):
        down = F.elu(self.norm(self.down(F.pad(x, (0, 0, 1, 0)))))
        rows = down.transpose(1, 2)
        y = self.gru(rows.flatten(2))[0].reshape(rows.shape).transpose(1, 2)
        return torch.sigmoid(self.up(torch.cat([down, y], 1))[:, :, :-1]) * x


@case("overlap_add", "overlaps", states=["past"], route="direct", inputs=X)
class OverlapAdd(nn.Module):
    """Frames of 8 samples, one every 3."""

    def __init__(self):
        super().__init__()
        self.frame = nn.Linear(6, 8)

    def forward(self, x):
        frames = self.frame(x).transpose(1, 2)
        steps = frames.shape[-1]
        y = F.fold(frames, (1, 3 * steps + 5), (1, 8), stride=(1, 3))
        return y.flatten(1)[:, : 3 * steps]


@case("overlap_add_of_a_loop", "overlaps", states=["cell.h", "past"], route="scan", inputs=X)
class OverlapAddOfALoop(nn.Module):
    """A loop draws the frames; the samples stand in a column."""

    def __init__(self):
        super().__init__()
        self.cell, self.window = nn.GRUCell(6, 4), nn.Parameter(torch.hann_window(4), requires_grad=False)

    def forward(self, x):
        h, frames = x.new_zeros(x.shape[0], 4), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            frames.append(h * self.window)
        steps = len(frames)
        y = nn.Fold((2 * steps + 2, 1), (4, 1), stride=(2, 1))(torch.stack(frames, -1))
        return y[:, 0, :-2, 0]
