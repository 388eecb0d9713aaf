"""Memory in matrices, codebooks and sorted values: calls that ONNX has no form of their own for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

STEP = {"x": "float32[batch, 3]"}


@case("kalman_filter", "matrices", states=["mean", "spread"], inputs=STEP)
class KalmanFilter(nn.Module):
    """Position and speed in 3 dimensions, seen through noise (Kalman 1960)."""

    def __init__(self):
        super().__init__()
        motion = torch.eye(6)
        motion[:3, 3:] = 0.1 * torch.eye(3)
        self.register_buffer("motion", motion)
        self.register_buffer("view", torch.eye(3, 6))
        self.noise = nn.Parameter(0.1 * torch.rand(6))
        self.register_buffer("mean", torch.zeros(1, 6, 1))
        self.register_buffer("spread", torch.eye(6)[None])

    def forward(self, x):
        mean = self.motion @ self.mean
        spread = self.motion @ self.spread @ self.motion.T + torch.diag(self.noise)
        seen = self.view @ spread @ self.view.T + 0.2 * torch.eye(3)
        gain = spread @ self.view.T @ torch.linalg.inv(seen)
        self.mean = mean + gain @ (x[..., None] - self.view @ mean)
        self.spread = (torch.eye(6) - gain @ self.view) @ spread
        return self.mean[:, :3, 0]


@case("least_squares", "matrices", states=["gram", "cross"], inputs=STEP)
class RunningLeastSquares(nn.Module):
    """Weights that predict the first entry from the others, solved anew at each step."""

    def __init__(self):
        super().__init__()
        self.register_buffer("gram", 0.5 * torch.eye(3)[None])
        self.register_buffer("cross", torch.zeros(1, 3))

    def forward(self, x):
        seen = torch.stack([x[:, 1], x[:, 2], torch.ones_like(x[:, 0])], -1)
        self.gram = 0.9 * self.gram + seen[:, :, None] * seen[:, None] + 0.05 * torch.eye(3)
        self.cross = 0.9 * self.cross + seen * x[:, :1]
        root = torch.linalg.cholesky(self.gram)
        weights = torch.cholesky_solve(self.cross[..., None], root)[..., 0]
        other = torch.linalg.solve(self.gram, self.cross)
        half = torch.linalg.solve_triangular(root, seen[..., None], upper=False)
        return weights + other, half.square().sum((1, 2)), torch.linalg.slogdet(self.gram).logabsdet


@case("codebook", "matrices", states=["past"], inputs={"x": "float32[batch, 5, time]"})
class Codebook(nn.Module):
    """The nearest entry of a table to what a causal convolution gives (van den Oord et al. 2017)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(5, 4, 3)
        self.codes = nn.Parameter(torch.randn(9, 4))

    def forward(self, x):
        z = self.conv(F.pad(x, (2, 0))).transpose(1, 2)
        distances = torch.cdist(z, self.codes.expand(z.shape[0], -1, -1))
        return self.codes[distances.argmin(-1)].transpose(1, 2)


@case("median_filter", "matrices", states=["past"], inputs={"x": "float32[batch, time, 3]"})
class MedianFilter(nn.Module):
    """The median of the last five frames, the second smallest, and where the largest so far was."""

    def forward(self, x):
        frames = F.pad(x, (0, 0, 4, 0)).unfold(1, 5, 1)
        second = frames.kthvalue(2, -1, keepdim=True)[0][..., 0]
        return frames.median(-1).values, second, frames.cummax(-1).indices.sum(-1)


@case("levels", "matrices", states=["h"], inputs=STEP)
class Levels(nn.Module):
    """Values told by the levels they lie between, a bag of embeddings, and a state in 8 bits."""

    def __init__(self):
        super().__init__()
        self.register_buffer("edges", torch.linspace(-1, 1, 6))
        self.bag = nn.EmbeddingBag(7, 4, mode="mean")
        self.register_buffer("h", torch.zeros(1, 4))

    def forward(self, x):
        levels = torch.searchsorted(self.edges, x, right=True)
        extreme = torch.isin(levels, torch.tensor([0, 6])).any(-1, keepdim=True)
        h = F.rrelu(self.bag(levels) + 0.5 * self.h) + torch.copysign(extreme * 0.1, x[:, :1])
        self.h = torch.fake_quantize_per_tensor_affine(h, 0.03, 0, -128, 127)
        return self.h * torch.hypot(x[:, :1], x[:, 1:2]), torch.take_along_dim(
            x, levels.argmax(-1, keepdim=True), 1
        )
