"""Tensors that become others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnnx_export.calls.types import Call, Tracer


def set_data(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """`tensor.data = value`: capture does not see it, but a copy into the tensor."""
    tensor, value = args
    alike = func == Tensor.data.__set__ and (tensor.shape, tensor.dtype) == (value.shape, value.dtype)  # type: ignore[attr-defined]
    if not alike:
        return func(*args, **kwargs)
    with torch.no_grad():
        tensor.copy_(value)
    return None
