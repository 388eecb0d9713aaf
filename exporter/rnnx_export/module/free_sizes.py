"""`int(x.shape[1])` in a captured graph: the size stays free, where Python would make it a number."""

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


@contextlib.contextmanager
def free_sizes(module: nn.Module) -> Iterator[None]:
    """Let `int` keep free sizes while the block runs, in the Python files of the module's packages."""
    packages = {
        cls.__module__.partition(".")[0] for part in parts(module).values() for cls in type(part).__mro__
    } - {"torch", "builtins", "rnnx_export"}
    spaces = [
        vars(source)
        for name, source in list(sys.modules.items())
        if name.partition(".")[0] in packages
        and isinstance(source, types.ModuleType)
        and "int" not in vars(source)
    ]
    try:
        for space in spaces:
            space["int"] = _Int
        yield
    finally:
        for space in spaces:
            space.pop("int", None)
