"""Values of tensors: as arrays, moved, and told to be the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

_ROUNDING = 64  # roundings by which rows of a batch that get the same may differ


def alike(row: Tensor, value: Tensor) -> bool:
    """Whether all rows of `value` are `row`, but for the rounding of products of batches."""
    row, value = torch.nan_to_num(row.expand_as(value)), torch.nan_to_num(value)
    if not value.dtype.is_floating_point:
        return torch.equal(row, value)
    room = _ROUNDING * torch.finfo(value.dtype).eps
    return torch.allclose(row.double(), value.double(), rtol=room, atol=room)


def to_numpy(value: Tensor) -> np.ndarray[Any, Any]:
    """Return a copy of a tensor as an array; bfloat16 as float32."""
    value = value.detach()
    return np.array((value.float() if value.dtype == torch.bfloat16 else value).numpy())


def nearly_same(left: Tensor, right: Any) -> bool:
    """Whether two values are the same but for rounding."""
    if not isinstance(right, Tensor) or left.shape != right.shape:
        return False
    return torch.allclose(left.double(), right.double(), rtol=1e-4, atol=1e-5, equal_nan=True)


def disturbed(value: Tensor) -> Tensor:
    """Return other values of the same dtype."""
    if not value.is_floating_point():
        return (value == 0).to(value.dtype)
    return torch.where(value.isfinite(), value * 0.5 + 0.25, 0.25).to(value.dtype)


def same_values(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors hold the same; NaN is NaN."""
    return left.shape == right.shape and torch.equal(torch.nan_to_num(left), torch.nan_to_num(right))
