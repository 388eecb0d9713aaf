"""`int(x.shape[1])` and `len(x)` in a captured graph: a size stays free, where Python makes it a number."""

from __future__ import annotations

import builtins
import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from rnnx_export.module.parts import parts


class _KeepsSizes(type):
    """Makes a class that is `int` in all but this: called with a free size, it gives that size.

    So it does with a tensor whose item is one.
    """

    def __call__(cls, value: Any = 0, *more: Any, **named: Any) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.item()
        if isinstance(value, (torch.SymInt, torch.SymFloat)):
            return torch.sym_int(value)
        return builtins.int(value, *more, **named)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.int)

    def __subclasscheck__(cls, other: Any) -> bool:
        return issubclass(other, builtins.int)

    def __eq__(cls, other: Any) -> bool:
        return other is builtins.int or other is cls

    def __hash__(cls) -> builtins.int:
        return hash(builtins.int)


class _Int(builtins.int, metaclass=_KeepsSizes):
    pass


def _len(value: Any) -> Any:
    return value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else builtins.len(value)


_KEEPING: dict[str, Any] = {"int": _Int, "len": _len}


@contextlib.contextmanager
def free_sizes(module: nn.Module) -> Iterator[None]:
    """Let `int` and `len` keep free sizes while the block runs, in the files of the module's packages."""
    packages = {
        cls.__module__.partition(".")[0] for part in parts(module).values() for cls in type(part).__mro__
    } - {"torch", "builtins", "rnnx_export"}
    changed = [
        (vars(source), name, function)
        for path, source in list(sys.modules.items())
        if path.partition(".")[0] in packages and isinstance(source, types.ModuleType)
        for name, function in _KEEPING.items()
        if name not in vars(source)
    ]
    try:
        for space, name, function in changed:
            space[name] = function
        yield
    finally:
        for space, name, _ in changed:
            space.pop(name, None)
