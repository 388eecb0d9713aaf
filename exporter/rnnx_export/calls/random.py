"""Calls that draw random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rnnx_export.calls.types import Call, Tracer


def draws(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """A call that draws random numbers: recorded, to say where."""
    tracer.record("random", like=torch.empty(0), axes={})
    return func(*args, **kwargs)
