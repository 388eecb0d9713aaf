"""Calls that ONNX, or torch's converter to it, has no form for, as calls that have one.

A rule has the signature that the call has in PyTorch, a handler takes (tracer, function, args, kwargs) as
other handlers do. What neither can express goes through as it is, and is refused later, with its name
and place.
"""

# ruff: noqa: N803 -- parameters have the names that they have in PyTorch

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_export.calls.helpers import named
from rnnx_export.calls.random import draws
from rnnx_export.calls.types import Call, Handler, Tracer

_LARGEST = 32  # rows of a matrix whose elimination is decomposed
_MOST_SLICES = 64


def _decomposed(rule: Callable[..., Any]) -> Handler:
    """Return a handler that computes `rule`; what it does not take, or gives None for, goes through."""
    signature = inspect.signature(rule)

    def handle(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            return NotImplemented
        result = rule(*args, **kwargs)
        return NotImplemented if result is None else result

    return handle


def _unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...] | None:
    """Its slices one by one: what is written through one view of many freezes all sizes when captured."""
    size = input.shape[dim]
    if not isinstance(size, int) or size > _MOST_SLICES:
        return None
    return tuple(input.select(dim, index) for index in range(size))


def _hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(x^2 + y^2), which overflows only where its result does."""
    x, y = input.abs(), other.abs()
    large, small = torch.maximum(x, y), torch.minimum(x, y)
    divisible = (large != 0) & (large != float("inf"))
    ratio = small / torch.where(divisible, large, torch.ones_like(large))
    return large * torch.sqrt(1 + ratio * ratio)


def _copysign(input: Tensor, other: Any) -> Tensor | None:
    if not isinstance(other, Tensor):
        return None
    negative = (other < 0) | ((other == 0) & (torch.reciprocal(other) < 0))
    return torch.where(negative, -input.abs(), input.abs())


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    """[.., P, M] and [.., R, M] -> [.., P, R]."""
    distances: Tensor = torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)
    return distances


def _smallest(x: Tensor, k: int, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Return the k-th smallest value along an axis, and where it is."""
    values, places = (part.narrow(dim, k - 1, 1) for part in torch.topk(x, k, dim, largest=False))
    return (values, places) if keepdim else (values.squeeze(dim), places.squeeze(dim))


def _kthvalue(input: Tensor, k: Any, dim: int = -1, keepdim: bool = False) -> Any:
    if not isinstance(k, int) or input.dim() == 0:
        return None
    return torch.return_types.kthvalue(_smallest(input, k, dim, keepdim))


def _median(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    size = input.shape[dim] if isinstance(dim, int) and input.dim() else None
    if not isinstance(size, int):
        return None
    return torch.return_types.median(_smallest(input, (size + 1) // 2, dim, keepdim))


def _searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Tensor | None:
    """How many elements stand before the place of each value."""
    if sorter is not None or not isinstance(input, Tensor) or input.dim() == 0:
        return None
    values = input.unsqueeze(-1)
    line = sorted_sequence if sorted_sequence.dim() == 1 else sorted_sequence.unsqueeze(-2)
    before = line <= values if right or side == "right" else line < values
    return before.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _isin(
    elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False
) -> Tensor | None:
    if not isinstance(elements, Tensor) or not isinstance(test_elements, Tensor):
        return None
    found = (elements.unsqueeze(-1) == test_elements.reshape(-1)).any(-1)
    return ~found if invert else found


def _take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor | None:
    """The two broadcast along other axes: said here, as a size of 1 would be mistaken for the example's."""
    if dim is None or input.dim() != indices.dim():
        return None
    sizes, wider = list(indices.shape), False
    for axis, (ours, theirs) in enumerate(zip(input.shape, indices.shape, strict=True)):
        if axis == dim % input.dim() or _is_one(ours) == _is_one(theirs):
            continue
        if _is_one(ours):
            return None
        sizes[axis], wider = ours, True
    return torch.gather(input, dim, indices.expand(sizes) if wider else indices)


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: Any = None,
) -> Tensor | None:
    """Bags of one size: rows of `input`."""
    if input.dim() != 2 or offsets is not None or max_norm is not None or padding_idx is not None:
        return None
    rows = F.embedding(input, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if mode == "max":
        return rows.amax(-2)
    return rows.sum(-2) if mode == "sum" else rows.mean(-2)


def _fftfreq(n: int, d: float = 1.0) -> Tensor:
    """0, 1, .., then the negative ones."""
    counts = torch.cat([torch.arange(0, (n + 1) // 2), torch.arange(-(n // 2), 0)])
    return torch.div(counts, n * d)


def _fake_quantize(input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Tensor:
    """Round to what integers of that scale can say."""
    counts = torch.round(input * (1.0 / scale)) + zero_point
    rounded: Tensor = (torch.clamp(counts, quant_min, quant_max) - zero_point) * scale
    return rounded


def _fake_quantize_channels(
    input: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    shape = [-1 if place == axis % input.dim() else 1 for place in range(input.dim())]
    return _fake_quantize(input, scale.reshape(shape), zero_point.reshape(shape), quant_min, quant_max)


def _rrelu(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """In eval mode the slope is the middle one; only in training it is drawn."""
    names = ("input", "lower", "upper", "training", "inplace")
    x, lower, upper, training, _ = named(args, kwargs, names, (None, 1 / 8, 1 / 3, False, False))
    return draws(tracer, func, args, kwargs) if training else F.leaky_relu(x, (lower + upper) / 2)


def _fits(a: Tensor) -> bool:
    """Whether these are square matrices of a size that is fixed and small."""
    return a.dim() >= 2 and isinstance(a.shape[-1], int) and a.shape[-1] == a.shape[-2] <= _LARGEST


def _eliminate(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a^-1 b and det(a) by Gauss and Jordan, each step with the largest pivot of its column.

    Args:
        a: [.., n, n].
        b: [.., n, k].

    Returns:
        [.., n, k] and [..].
    """
    size, determinant = a.shape[-1], torch.ones_like(a[..., 0, 0])
    rows = torch.arange(size).unsqueeze(-1)  # [n, 1]
    joined = torch.cat([a, b.expand(*a.shape[:-2], *b.shape[-2:])], -1)  # [.., n, n + k]
    for step in range(size):
        place = joined[..., step:, step].abs().argmax(-1) + step
        determinant = torch.where(place == step, determinant, -determinant)
        place = place[..., None, None]
        pivot = joined.gather(-2, place.expand(*place.shape[:-1], joined.shape[-1]))  # [.., 1, n + k]
        head = pivot[..., step : step + 1]
        determinant = determinant * head[..., 0, 0]
        pivot = pivot / torch.where(head == 0, torch.ones_like(head), head)
        swapped = torch.where(rows == place, joined[..., step : step + 1, :], joined)
        joined = torch.where(rows == step, pivot, swapped - swapped[..., step : step + 1] * pivot)
    return joined[..., size:], determinant


def _solve(A: Tensor, B: Tensor, left: bool = True) -> Tensor | None:
    if not _fits(A):
        return None
    if B.dim() == 1 or (B.dim() == A.dim() - 1 and B.shape[:-1] == A.shape[:-2]):
        return _eliminate(A, B.unsqueeze(-1))[0].squeeze(-1) if left else None
    return _eliminate(A, B)[0] if left else _eliminate(A.mT, B.mT)[0].mT


def _inverse(A: Tensor) -> Tensor | None:
    return _eliminate(A, torch.eye(A.shape[-1], dtype=A.dtype))[0] if _fits(A) else None


def _determinant(A: Tensor) -> Tensor | None:
    return _eliminate(A, A[..., :0])[1] if _fits(A) else None


def _slogdet(A: Tensor) -> Any:
    value = _determinant(A)
    if value is None:
        return None
    return torch.return_types.slogdet((torch.sign(value), torch.log(value.abs())))


def _logdet(A: Tensor) -> Tensor | None:
    value = _determinant(A)
    return None if value is None else torch.log(value)


def _cholesky(A: Tensor, upper: bool = False) -> Tensor | None:
    """Column by column: each is what the ones before it leave, over the root of its head."""
    if not _fits(A):
        return None
    columns: list[Tensor] = []  # each [.., n]
    for step in range(A.shape[-1]):
        left = A[..., step:, step]
        for column in columns:
            left = left - column[..., step:] * column[..., step : step + 1]
        columns.append(F.pad(left / torch.sqrt(left[..., :1]), (step, 0)))
    return torch.stack(columns, -2 if upper else -1)


def _triangle(a: Tensor, upper: bool) -> Tensor:
    return torch.triu(a) if upper else torch.tril(a)


def _solve_triangular(
    A: Tensor, B: Tensor, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor | None:
    return None if unitriangular else _solve(_triangle(A, upper), B, left)


def _cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor | None:
    """Solve with the matrix that `L` is the root of."""
    if not _fits(L):
        return None
    half = _triangle(L, upper)
    lower = half.mT if upper else half
    return _eliminate(lower.mT, _eliminate(lower, B)[0])[0]


_RULES: dict[str, Callable[..., Any]] = {
    "hypot": _hypot,
    "copysign": _copysign,
    "cdist": _cdist,
    "kthvalue": _kthvalue,
    "median": _median,
    "searchsorted": _searchsorted,
    "isin": _isin,
    "take_along_dim": _take_along_dim,
    "embedding_bag": _embedding_bag,
    "fft_fftfreq": _fftfreq,
    "fake_quantize_per_tensor_affine": _fake_quantize,
    "fake_quantize_per_channel_affine": _fake_quantize_channels,
    "linalg_solve": _solve,
    "cholesky_solve": _cholesky_solve,
    "linalg_solve_triangular": _solve_triangular,
    "logdet": _logdet,
    **dict.fromkeys(("linalg_inv", "inverse"), _inverse),
    **dict.fromkeys(("linalg_det", "det"), _determinant),
    **dict.fromkeys(("linalg_slogdet", "slogdet"), _slogdet),
    "unbind": _unbind,
    **dict.fromkeys(("linalg_cholesky", "cholesky"), _cholesky),
}
HANDLERS: dict[str, Handler] = {
    "rrelu": _rrelu,
    **{name: _decomposed(rule) for name, rule in _RULES.items()},
}
