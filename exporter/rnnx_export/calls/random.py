"""Calls that draw random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rnnx_export.calls.types import Call


def draws(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """A call that draws random numbers: recorded, to say where."""
    watch.visit("random", like=torch.empty(0), axes={})
    return func(*args, **kwargs)
