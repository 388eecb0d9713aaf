"""The modules inside a module: those that PyTorch knows, and those that plain lists and dicts hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from torch import nn

_BARE = frozenset(vars(nn.Module()))


def parts(module: nn.Module) -> dict[str, nn.Module]:
    """Return each module inside `module` by its path, itself first.

    `self.cells = [Cell(), Cell()]` registers none of them with PyTorch, and forward calls them all the same:
    they are `cells.0` and `cells.1`. What is registered comes first, with its path there.
    """
    found: dict[str, nn.Module] = {}
    known = set[int]()
    for path, part in module.named_modules():
        if _identity(part) not in known:
            known.add(_identity(part))
            found[path] = part
    left = deque(found.items())
    while left:
        path, part = left.popleft()
        for held, inner in _held(part):
            for name, each in inner.named_modules(prefix=f"{path}.{held}" if path else held):
                if _identity(each) not in known:
                    known.add(_identity(each))
                    found[name] = each
                    left.append((name, each))
    return found


def _identity(part: nn.Module) -> int:
    """Return what a module is known by: while torch traces, each of its names has an object of its own."""
    return id(vars(part))


def submodule(module: nn.Module, path: str) -> nn.Module:
    """Return the module that `parts` has at `path`."""
    value: Any = module
    for name in path.split(".") if path else ():
        value = getattr(value, name) if isinstance(value, nn.Module) else _entries(value)[name]
    assert isinstance(value, nn.Module)
    return value


def unregistered(module: nn.Module) -> list[nn.Module]:
    """Return the modules inside `module` that PyTorch does not know to be there."""
    known = {_identity(part) for part in module.modules()}
    return [part for part in parts(module).values() if _identity(part) not in known]


def _held(part: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules that lists, tuples and dicts among a module's attributes hold, with their paths."""
    found, seen = [], set[int]()
    left = deque((name, value) for name, value in vars(part).items() if name not in _BARE)
    while left:
        path, value = left.popleft()
        if isinstance(value, nn.Module):
            found.append((path, value))
        elif isinstance(value, (dict, list, tuple, deque)) and id(value) not in seen:
            seen.add(id(value))
            left += ((f"{path}.{name}", entry) for name, entry in _entries(value).items())
    return found


def _entries(value: Any) -> dict[str, Any]:
    """Return what a container holds that can lead to modules, by names that have no dot."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    kinds = (nn.Module, dict, list, tuple, deque)
    return {str(name): entry for name, entry in items if isinstance(entry, kinds) and "." not in str(name)}
