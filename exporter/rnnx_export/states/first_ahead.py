"""The call in a module at which it begins to look ahead, found by running it with another later step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rnnx_export.diagnostics import caller
from rnnx_export.module.structure import flatten


class _Seen(NamedTuple):
    """A tensor that a call of torch gave: the call's name, the line it stands in, and the values."""

    name: str
    line: str
    value: Tensor


class _Recorder(TorchFunctionMode):
    """Keeps what each call of torch gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[_Seen] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        line = caller()
        for _, part in flatten(result) if line else ():
            if isinstance(part, Tensor) and part.dim():
                self.seen.append(_Seen(getattr(func, "__name__", "a call"), line, part.detach().clone()))
        return result


def first_call_ahead(call: Callable[[bool], object], step: int, steps: int) -> str | None:
    """Return the first call that gives other values before `step` when the inputs change from it on.

    Args:
        call: runs the module: on its inputs, and with True on those changed at `step`.
        step: the first that changes.
        steps: how many there are.

    Returns:
        "conv1d (net.py:12)", or None where no call shows it, such as if the module is not Python.
    """
    runs = []
    for changed in (False, True):
        recorder = _Recorder()
        with recorder:
            call(changed)
        runs.append(recorder.seen)
    for old, new in zip(*runs, strict=False):
        if (old.name, old.line, old.value.shape) != (new.name, new.line, new.value.shape):
            return None  # the two runs took different ways
        if _looks_ahead(old.value, new.value, step, steps):
            return f"{old.name.strip('_')} ({old.line})"
    return None


def _looks_ahead(old: Tensor, new: Tensor, step: int, steps: int) -> bool:
    """Whether values before a step differ, along each axis that may be time."""
    different = old != new
    if old.is_floating_point() or old.is_complex():
        different &= ~(torch.isnan(old) & torch.isnan(new))
    axes = [axis for axis, size in enumerate(old.shape) if size and size % steps == 0]
    if not axes or not different.any():
        return False
    places = different.nonzero()
    return all(int(places[:, axis].min()) // (old.shape[axis] // steps) < step for axis in axes)
