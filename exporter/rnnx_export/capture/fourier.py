"""Fourier transforms as products with a constant matrix.

ONNX Runtime's DFT is exact where the length is a power of two. At others it is off by 1e-3 (320) to 1e-2
(960), and its inverse from half a spectrum is refused before 1.25 and wrong in 1.25 and 1.26. A product is
exact to rounding in every engine, and costs length x length / 2 multiply-adds for each part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten
_LONGEST = 4096  # a matrix for more would take over 64 MiB
Parts = tuple[Tensor, Tensor]


def product_for(target: Any, args: Any, kwargs: Any) -> Callable[[], Any] | None:
    """Return what computes a transform as a product, None where the operator itself is exact.

    Args:
        target: the operator.
        args, kwargs: its arguments; complex ones as pairs (re, im).

    Returns:
        What gives a pair (re, im), or a tensor where the result is real.
    """
    rule = _RULES.get(target)
    return None if rule is None else rule(*args, **kwargs)


def _rfft(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    return _r2c(_resized(x, dim, n), [dim], _scale_kind(norm, forward=True), True)


def _irfft(x: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    re, im = _pair_of(x)
    length = 2 * (re.shape[dim] - 1) if n is None else n
    kept = length // 2 + 1
    return _c2r(
        (_resized(re, dim, kept), _resized(im, dim, kept)), [dim], _scale_kind(norm, forward=False), length
    )


def _fft(x: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    return _c2c(tuple(_resized(v, dim, n) for v in _pair_of(x)), [dim], _scale_kind(norm, forward=True), True)


def _ifft(x: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    return _c2c(
        tuple(_resized(v, dim, n) for v in _pair_of(x)), [dim], _scale_kind(norm, forward=False), False
    )


def _r2c(x: Tensor, dims: list[int], normalization: int, onesided: bool) -> Callable[[], Parts] | None:
    length = x.shape[dims[0]]
    if len(dims) != 1 or not _by_product(length):
        return None
    kept = length // 2 + 1 if onesided else length
    cos, sin = _matrices(length, kept, normalization, x.dtype)
    return lambda: (_along(x, dims[0], cos), _along(x, dims[0], -sin))


def _c2c(x: Any, dims: list[int], normalization: int, forward: bool) -> Callable[[], Parts] | None:
    re, im = _pair_of(x)
    length = re.shape[dims[0]]
    if len(dims) != 1 or not _by_product(length):
        return None
    cos, sin = _matrices(length, length, normalization, re.dtype)
    sin = -sin if forward else sin
    dim = dims[0]
    return lambda: (
        _along(re, dim, cos) - _along(im, dim, sin),
        _along(re, dim, sin) + _along(im, dim, cos),
    )


def _c2r(x: Any, dims: list[int], normalization: int, length: int) -> Callable[[], Tensor] | None:
    re, im = _pair_of(x)
    if len(dims) != 1 or not isinstance(length, int) or length > _LONGEST:
        return None
    cos, sin = _matrices(length, length // 2 + 1, normalization, re.dtype)
    # Each entry but the first, and the middle one of an even length, stands for its mirror image too.
    weights = torch.full((length // 2 + 1,), 2.0, dtype=re.dtype)
    weights[0] = 1.0
    if length % 2 == 0:
        weights[-1] = 1.0
    return lambda: _along(re, dims[0], (cos * weights).T) - _along(im, dims[0], (sin * weights).T)


def _stft(
    x: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Callable[[], Parts] | None:
    if not _by_product(n_fft) or not return_complex or align_to_window:
        return None
    kept = n_fft // 2 + 1 if onesided in (None, True) else n_fft
    cos, sin = _matrices(n_fft, kept, 1 if normalized else 0, x.dtype)
    size = n_fft if win_length is None else win_length

    def compute() -> Parts:
        frames = x.unfold(-1, n_fft, hop_length or n_fft // 4)
        if window is not None or size < n_fft:
            shape = torch.ones(size, dtype=x.dtype) if window is None else window
            left = (n_fft - size) // 2
            frames = frames * F.pad(shape, (left, n_fft - size - left))
        return (frames @ cos).transpose(-1, -2), (frames @ -sin).transpose(-1, -2)

    return compute


_RULES: dict[Any, Callable[..., Any]] = {
    aten.fft_rfft.default: _rfft,
    aten.fft_irfft.default: _irfft,
    aten.fft_fft.default: _fft,
    aten.fft_ifft.default: _ifft,
    aten._fft_r2c.default: _r2c,
    aten._fft_c2c.default: _c2c,
    aten._fft_c2r.default: _c2r,
    aten.stft.default: _stft,
}


def _by_product(length: Any) -> bool:
    return isinstance(length, int) and length <= _LONGEST and length & (length - 1) != 0


def _pair_of(x: Any) -> Parts:
    return (x, torch.zeros_like(x)) if isinstance(x, Tensor) else (x[0], x[1])


def _resized(x: Tensor, dim: int, size: int | None) -> Tensor:
    """Return a tensor cut to a size, or filled up with zeros."""
    if size is None or size == x.shape[dim]:
        return x
    if size < x.shape[dim]:
        return x.narrow(dim, 0, size)
    behind = x.dim() - 1 - dim % x.dim()
    return F.pad(x, (0, 0) * behind + (0, size - x.shape[dim]))


def _scale_kind(norm: str | None, *, forward: bool) -> int:
    """Return what the operators behind `torch.fft` take for a norm: 0, 1 by the root, 2 by the length."""
    if norm == "ortho":
        return 1
    return 2 if (norm == "forward") == forward else 0


def _matrices(length: int, kept: int, normalization: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cos and sin of 2 pi t k / length, [length, kept], scaled; exact to the last bit of `dtype`."""
    turns = np.outer(np.arange(length), np.arange(kept)) % length
    angles = 2 * math.pi / length * turns
    scale = (1.0, 1 / math.sqrt(length), 1 / length)[normalization]
    cos, sin = (torch.from_numpy(scale * part).to(dtype) for part in (np.cos(angles), np.sin(angles)))
    return cos, sin


def _along(x: Tensor, dim: int, matrix: Tensor) -> Tensor:
    """Return the product of one axis of a tensor with a matrix."""
    return (x.movedim(dim, -1) @ matrix).movedim(-1, dim)
