"""States and arithmetic of complex numbers, which ONNX does not have."""

from __future__ import annotations

import torch
from torch import nn

from cases.registry import case

STEP = {"x": "float32[batch, 6]"}
X = {"x": "float32[batch, time, 6]"}


@case("complex_buffer", "cells", states=["z"], inputs=STEP)
class Rotating(nn.Module):
    def __init__(self):
        super().__init__()
        self.angle = nn.Parameter(torch.rand(6))
        self.register_buffer("z", torch.zeros(1, 6, dtype=torch.complex64))

    def forward(self, x):
        self.z = self.z * torch.polar(torch.full_like(self.angle, 0.9), self.angle) + x
        return torch.cat([self.z.abs(), self.z.angle().cos()], -1)


@case("complex_in_loop", "loops", states=["h", "h_2"], route="scan", inputs=X)
class LinearRecurrent(nn.Module):
    """A diagonal linear recurrence, its eigenvalues inside the unit circle (Orvieto et al. 2023)."""

    def __init__(self):
        super().__init__()
        self.nu, self.theta = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))
        self.b = nn.Parameter(torch.randn(8, 6, dtype=torch.complex64) / 4)
        self.c = nn.Parameter(torch.randn(6, 8, dtype=torch.complex64) / 4)

    def forward(self, x):
        eigenvalues = torch.exp(torch.complex(-torch.exp(self.nu), self.theta))
        h = torch.zeros(x.shape[0], 8, dtype=torch.complex64)
        ys = []
        for t in range(x.shape[1]):
            h = eigenvalues * h + x[:, t].to(torch.complex64) @ self.b.T
            ys.append((h @ self.c.T).real)
        return torch.stack(ys, 1)


@case("complex_as_pairs", "cells", states=["s"], inputs=STEP, state={"s": "float32[batch, 6, 4, 2]"})
class DiagonalStateSpace(nn.Module):
    """A diagonal state-space model, discretised in each step (Gu et al. 2022)."""

    def __init__(self):
        super().__init__()
        self.log_step, self.decay = nn.Parameter(torch.rand(6) - 3), nn.Parameter(torch.rand(6, 4))
        self.frequency, self.c = nn.Parameter(torch.rand(6, 4)), nn.Parameter(torch.randn(6, 4, 2))

    def forward(self, x, s):
        a = -torch.exp(self.decay) + 1j * self.frequency
        grown = torch.exp(a * torch.exp(self.log_step)[:, None])
        s = grown * torch.view_as_complex(s) + (grown - 1.0) / a * x[:, :, None]
        y = 2 * torch.einsum("hn,bhn->bh", torch.view_as_complex(self.c), s).real
        return y, torch.view_as_real(s)


@case(
    "refused_complex", "refused", refused="not-exported", mentions="aten.sin of complex numbers", inputs=STEP
)
class Sine(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("z", torch.zeros(1, 6, dtype=torch.complex64))

    def forward(self, x):
        self.z = torch.sin(0.5j * self.z) + x
        return self.z.real


@case("refused_complex_output", "refused", refused="complex-output", mentions="view_as_real", inputs=STEP)
class Output(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("z", torch.zeros(1, 6, dtype=torch.complex64))

    def forward(self, x):
        self.z = 0.9j * self.z + x
        return self.z
