"""Everything about a module that an export must leave as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn


def module_print(module: nn.Module) -> dict[str, Any]:
    """Return values and identities of all that hangs on a module: weights, attributes, hooks, modes."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        found[f"{path}: class"] = type(part)
        for name, value in vars(part).items():
            found[f"{path}: {name}"] = _print(value)
    return found


def world_print() -> dict[str, Any]:
    """Return PyTorch's settings that a library must not leave changed behind it."""
    return {
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),
    }


def _print(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        data = (
            value.detach().contiguous().view(torch.uint8).numpy().tobytes()
            if value.numel() and value.ndim
            else (value.detach().tolist())
        )
        return id(value), value.dtype, tuple(value.shape), value.requires_grad, value.grad, data
    if isinstance(value, dict):
        return [(key, _print(part)) for key, part in value.items()]
    if isinstance(value, list | tuple | set):
        return type(value), [_print(part) for part in value]
    return value if isinstance(value, int | float | str | bool | None) else id(value)
