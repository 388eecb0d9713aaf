"""Operators that keep the precision they are called for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import rnnx


class Decay(nn.Module):
    """expm1 of tiny numbers, scaled up: exp(x) - 1 would be off in the second digit."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.h = 0.5 * self.h + torch.expm1(x * 1e-6) * 1e6
        return self.h


class Compress(nn.Module):
    """log1p of tiny numbers, scaled up."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(1, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.h = 0.5 * self.h + torch.log1p(x.abs() * 1e-6) * 1e6
        return self.h


def test_log1p_is_exact_near_zero_and_far_from_it(tmp_path: Path) -> None:
    made = rnnx.export(Compress(), tmp_path / "compress.onnx", inputs={"x": "float32[batch, 6]"})
    stream = rnnx.load(made.path).stream(initial={"h": np.zeros((1, 6), np.float32)})
    x = np.array([[1e-3, -2.0, 3e4, 1e6, 3e11, 0.0]], np.float32)
    expected = np.log1p(np.abs(x).astype(np.float64) * 1e-6) * 1e6
    np.testing.assert_allclose(stream.step(x)["y"], expected, rtol=1e-6)


def test_expm1_is_exact_near_zero_and_far_from_it(tmp_path: Path) -> None:
    made = rnnx.export(Decay(), tmp_path / "decay.onnx", inputs={"x": "float32[batch, 4]"})
    stream = rnnx.load(made.path).stream()
    x = np.array([[1e-3, -2.0, 3e6, -2e7]], np.float32)
    expected = np.expm1(x * 1e-6) * 1e6
    np.testing.assert_allclose(stream.step(x)["y"], expected, rtol=1e-6)
