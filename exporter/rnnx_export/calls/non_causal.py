"""Reductions and attention, which over time need all steps at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rnnx_export.calls.types import Call, Tracer


def whole(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """A reduction or attention: over time it needs all steps at once."""
    name = func.__name__
    x = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("input")
    if not isinstance(x, Tensor):
        return func(*args, **kwargs)
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if name == "scaled_dot_product_attention" or (name.endswith("_pool1d") and name.startswith("adaptive")):
        dims: Any = (-2,) if name.startswith("scaled") else (-1,)
    elif isinstance(dim, int) and not isinstance(dim, bool):
        dims = (dim,)
    else:
        dims = dim if isinstance(dim, tuple | list) else range(x.dim())
    if all(isinstance(entry, int) for entry in dims):
        tracer.record(name, like=x, axes={entry % x.dim(): 0 for entry in dims} if x.dim() else {})
    if name == "scaled_dot_product_attention" and x.dim() == 3:
        # torch's converter knows attention with heads only.
        heads = [value.unsqueeze(1) for value in args[:3]]
        mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
        if len(args) <= 3 and (mask is None or mask.dim() == 2):
            return func(*heads, **kwargs).squeeze(1)
    return func(*args, **kwargs)
