"""Calls that ONNX, or torch's converter to it, has no form for, as calls that have one.

A handler takes (watch, function, args, kwargs) as those in `site_kinds` do. A call that it cannot express
goes through as it is, and is refused later, with its name and place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_export.site_kinds import Call, draws, named

if TYPE_CHECKING:
    from rnnx_export.sites import Watch

Handler = Callable[..., Any]
_LARGEST = 32  # rows of a matrix whose elimination is spelt out


def _spelt(names: Sequence[str], defaults: Sequence[Any], rule: Callable[..., Any]) -> Handler:
    """Return a handler that hands the call's arguments to `rule`, which may return None to let it through."""

    def handle(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
        if set(kwargs) - set(names) or len(args) > len(names):
            return func(*args, **kwargs)
        result = rule(*named(args, kwargs, tuple(names), tuple(defaults)))
        return func(*args, **kwargs) if result is None else result

    return handle


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """sqrt(x^2 + y^2), which overflows only where its result does."""
    large, small = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    ratio = small / torch.where(large == 0, torch.ones_like(large), large)
    return large * torch.sqrt(1 + ratio * ratio)


def _copysign(x: Tensor, y: Any) -> Tensor | None:
    if not isinstance(y, Tensor):
        return None
    negative = (y < 0) | ((y == 0) & (torch.reciprocal(y) < 0))
    return torch.where(negative, -x.abs(), x.abs())


def _cdist(x: Tensor, y: Tensor, p: float, compute_mode: Any) -> Tensor:
    """[.., P, M] and [.., R, M] -> [.., P, R]."""
    distances: Tensor = torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1)
    return distances


def _kth(x: Tensor, k: Any, dim: int, keepdim: bool, kind: Any) -> Any:
    """Return the k-th smallest value along an axis, and where it is."""
    if not isinstance(k, int) or x.dim() == 0:
        return None
    parts = [part.narrow(dim, k - 1, 1) for part in torch.topk(x, k, dim, largest=False)]
    return kind(parts if keepdim else [part.squeeze(dim) for part in parts])


def _median(x: Tensor, dim: Any, keepdim: bool) -> Any:
    size = x.shape[dim] if isinstance(dim, int) and x.dim() else None
    return (
        _kth(x, (size + 1) // 2, dim, keepdim, torch.return_types.median) if isinstance(size, int) else None
    )


def _searchsorted(
    sequence: Tensor, x: Any, out_int32: bool, right: bool, side: str | None, sorter: Any
) -> Tensor | None:
    """How many entries stand before the place of each value."""
    if sorter is not None or not isinstance(x, Tensor) or x.dim() == 0:
        return None
    values = x.unsqueeze(-1)
    line = sequence if sequence.dim() == 1 else sequence.unsqueeze(-2)
    before = line <= values if right or side == "right" else line < values
    return before.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _isin(x: Any, among: Any, assume_unique: bool, invert: bool) -> Tensor | None:
    if not isinstance(x, Tensor) or not isinstance(among, Tensor):
        return None
    found = (x.unsqueeze(-1) == among.reshape(-1)).any(-1)
    return ~found if invert else found


def _take_along(x: Tensor, index: Tensor, dim: int | None) -> Tensor | None:
    """The two broadcast along other axes: said here, since a size of 1 would be taken for the example's."""
    if dim is None or x.dim() != index.dim():
        return None
    axes = [axis for axis in range(x.dim()) if axis != dim % x.dim()]
    wide = [_is_one(index.shape[axis]) and not _is_one(x.shape[axis]) for axis in axes]
    if any(_is_one(x.shape[axis]) and not _is_one(index.shape[axis]) for axis in axes):
        return None
    sizes = list(index.shape)
    for axis, widen in zip(axes, wide, strict=True):
        sizes[axis] = x.shape[axis] if widen else sizes[axis]
    return torch.gather(x, dim, index.expand(sizes) if any(wide) else index)


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _embedding_bag(x: Tensor, weight: Tensor, *rest: Any) -> Tensor | None:
    """Bags of one size: rows of `x`."""
    offsets, max_norm, _, _, mode, _, factors, _, padding = rest
    if x.dim() != 2 or offsets is not None or max_norm is not None or padding is not None:
        return None
    rows = F.embedding(x, weight)
    if factors is not None:
        rows = rows * factors.unsqueeze(-1)
    if mode == "max":
        return rows.amax(-2)
    return rows.sum(-2) if mode == "sum" else rows.mean(-2)


def _frequencies(n: int, d: float, **choices: Any) -> Tensor:
    """fftfreq: 0, 1, .., then the negative ones."""
    counts = torch.cat([torch.arange(0, (n + 1) // 2), torch.arange(-(n // 2), 0)])
    return torch.div(counts, n * d)


def _fake_quantize(x: Tensor, scale: Any, zero: Any, least: int, largest: int) -> Tensor:
    """Round to what integers of that scale can say."""
    counts = torch.round(x * (1.0 / scale)) + zero
    rounded: Tensor = (torch.clamp(counts, least, largest) - zero) * scale
    return rounded


def _fake_quantize_channels(
    x: Tensor, scale: Tensor, zero: Tensor, axis: int, least: int, largest: int
) -> Tensor:
    shape = [-1 if place == axis % x.dim() else 1 for place in range(x.dim())]
    return _fake_quantize(x, scale.reshape(shape), zero.reshape(shape), least, largest)


def _rrelu(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """In eval mode the slope is the middle one; only in training it is drawn."""
    names = ("input", "lower", "upper", "training", "inplace")
    x, lower, upper, training, _ = named(args, kwargs, names, (None, 1 / 8, 1 / 3, False, False))
    return draws(watch, func, args, kwargs) if training else F.leaky_relu(x, (lower + upper) / 2)


def _fits(*matrices: Tensor) -> bool:
    return all(
        m.dim() >= 2 and isinstance(m.shape[-1], int) and m.shape[-1] == m.shape[-2] <= _LARGEST
        for m in matrices
    )


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


def _solve(a: Tensor, b: Tensor, left: bool) -> Tensor | None:
    if not _fits(a):
        return None
    if b.dim() == 1 or (b.dim() == a.dim() - 1 and b.shape[:-1] == a.shape[:-2]):
        return _eliminate(a, b.unsqueeze(-1))[0].squeeze(-1) if left else None
    return _eliminate(a, b)[0] if left else _eliminate(a.mT, b.mT)[0].mT


def _inverse(a: Tensor) -> Tensor | None:
    return _eliminate(a, torch.eye(a.shape[-1], dtype=a.dtype))[0] if _fits(a) else None


def _determinant(a: Tensor) -> Tensor | None:
    return _eliminate(a, a[..., :0])[1] if _fits(a) else None


def _cholesky(a: Tensor, upper: bool) -> Tensor | None:
    """Column by column: each is what the ones before it leave, over the root of its head."""
    if not _fits(a):
        return None
    size, columns = a.shape[-1], list[Tensor]()  # each [.., n]
    for step in range(size):
        left = a[..., step:, step]
        for column in columns:
            left = left - column[..., step:] * column[..., step : step + 1]
        columns.append(F.pad(left / torch.sqrt(left[..., :1]), (step, 0)))
    return torch.stack(columns, -2 if upper else -1)


def _triangle(a: Tensor, upper: bool) -> Tensor:
    return torch.triu(a) if upper else torch.tril(a)


def _solve_triangular(a: Tensor, b: Tensor, upper: bool, left: bool, unitriangular: bool) -> Tensor | None:
    if not _fits(a) or unitriangular:
        return None
    return _solve(_triangle(a, upper), b, left)


def _cholesky_solve(b: Tensor, factor: Tensor, upper: bool) -> Tensor | None:
    """Solve with the matrix that `factor` is the root of."""
    if not _fits(factor):
        return None
    lower = torch.triu(factor).mT if upper else torch.tril(factor)
    return _eliminate(lower.mT, _eliminate(lower, b)[0])[0]


def _slogdet(a: Tensor) -> Any:
    value = _determinant(a)
    if value is None:
        return None
    return torch.return_types.slogdet((torch.sign(value), torch.log(value.abs())))


def _logdet(a: Tensor) -> Tensor | None:
    value = _determinant(a)
    return None if value is None else torch.log(value)


_INVERSE = _spelt(("A",), (None,), _inverse)
_FLOOR = ("input", "other")
HANDLERS: dict[str, Handler] = {
    "hypot": _spelt(_FLOOR, (None, None), _hypot),
    "copysign": _spelt(_FLOOR, (None, None), _copysign),
    "cdist": _spelt(("x1", "x2", "p", "compute_mode"), (None, None, 2.0, None), _cdist),
    "median": _spelt(("input", "dim", "keepdim"), (None, None, False), _median),
    "kthvalue": _spelt(
        ("input", "k", "dim", "keepdim"),
        (None, None, -1, False),
        lambda x, k, dim, keepdim: _kth(x, k, dim, keepdim, torch.return_types.kthvalue),
    ),
    "searchsorted": _spelt(
        ("sorted_sequence", "input", "out_int32", "right", "side", "sorter"),
        (None, None, False, False, None, None),
        _searchsorted,
    ),
    "isin": _spelt(
        ("elements", "test_elements", "assume_unique", "invert"), (None, None, False, False), _isin
    ),
    "take_along_dim": _spelt(("input", "indices", "dim"), (None, None, None), _take_along),
    "embedding_bag": _spelt(
        ("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse",
         "per_sample_weights", "include_last_offset", "padding_idx"),
        (None, None, None, None, 2.0, False, "mean", False, None, False, None),
        _embedding_bag,
    ),
    "fft_fftfreq": _spelt(("n", "d"), (None, 1.0), _frequencies),
    "fake_quantize_per_tensor_affine": _spelt(
        ("input", "scale", "zero_point", "quant_min", "quant_max"), (None,) * 5, _fake_quantize
    ),
    "fake_quantize_per_channel_affine": _spelt(
        ("input", "scale", "zero_point", "axis", "quant_min", "quant_max"),
        (None,) * 6,
        _fake_quantize_channels,
    ),
    "rrelu": _rrelu,
    **dict.fromkeys(("linalg_inv", "inverse"), _INVERSE),
    "linalg_solve": _spelt(("A", "B", "left"), (None, None, True), _solve),
    **dict.fromkeys(("linalg_cholesky", "cholesky"), _spelt(("A", "upper"), (None, False), _cholesky)),
    "linalg_solve_triangular": _spelt(
        ("A", "B", "upper", "left", "unitriangular"), (None, None, None, True, False), _solve_triangular
    ),
    "cholesky_solve": _spelt(("B", "L", "upper"), (None, None, False), _cholesky_solve),
    **dict.fromkeys(("linalg_det", "det"), _spelt(("A",), (None,), _determinant)),
    **dict.fromkeys(("linalg_slogdet", "slogdet"), _spelt(("A",), (None,), _slogdet)),
    "logdet": _spelt(("A",), (None,), _logdet),
}  # fmt: skip
