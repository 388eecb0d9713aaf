"""Nested arguments and results as flat lists of tensors with named places.

A structure is a tensor, a plain value, or a tuple, list, deque, dict, NamedTuple or dataclass of structures,
or an object of the user's own that holds nothing but tensors and plain values.
Other classes take part once an adapter is registered for them with `register_structure`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch

Path = tuple[str, ...]


class Leaf:
    """Base of dataclasses that are values themselves, not structures of values."""


@dataclasses.dataclass(frozen=True)
class _Adapter:
    take_apart: Callable[[Any], Mapping[str, Any]]
    put_together: Callable[[dict[str, Any]], Any]


_ADAPTERS: dict[type, _Adapter] = {}
_NOT_THE_USERS = {"builtins", "torch", "numpy", "rnnx_export", *sys.stdlib_module_names} - {"__main__"}


def register_structure(
    cls: type,
    take_apart: Callable[[Any], Mapping[str, Any]],
    put_together: Callable[[dict[str, Any]], Any],
) -> None:
    """Teach the exporter a class that carries tensors, such as a cache object.

    Args:
        cls: the class.
        take_apart: gives the object's parts by name; a part may be a structure again.
        put_together: makes an object from such parts.

    Example:
        `register_structure(Cache, lambda c: {"k": c.k, "v": c.v}, lambda p: Cache(p["k"], p["v"]))`
    """
    _ADAPTERS[cls] = _Adapter(take_apart, put_together)


def children(value: Any) -> list[tuple[str, Any]] | None:
    """Return the named parts of a structure, or None for a leaf."""
    adapter = _ADAPTERS.get(type(value))
    if adapter is not None:
        return [(str(name), part) for name, part in adapter.take_apart(value).items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list | deque):
        return [(str(index), part) for index, part in enumerate(value)]
    if isinstance(value, dict):
        return [(str(key), part) for key, part in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Leaf):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if _is_record(value):
        return list(vars(value).items())
    return None


def _is_record(value: Any) -> bool:
    """Whether a value is an object of the user's own that does nothing but hold tensors and plain values."""
    cls = type(value)
    if cls.__module__.partition(".")[0] in _NOT_THE_USERS or callable(value) or isinstance(value, Leaf):
        return False
    held = list(getattr(value, "__dict__", {}).values())
    flat = [part for each in held for part in (each if isinstance(each, tuple | list) else [each])]
    return any(isinstance(part, torch.Tensor) for part in flat) and all(
        part is None or isinstance(part, torch.Tensor | int | float | str) for part in flat
    )


def rebuild(value: Any, parts: list[Any]) -> Any:
    """Return a structure like `value` made of other `parts`, in the order `children` gives them."""
    adapter = _ADAPTERS.get(type(value))
    if adapter is not None:
        return adapter.put_together(dict(zip(adapter.take_apart(value), parts, strict=True)))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*parts)
    if isinstance(value, dict):
        return type(value)(zip(value, parts, strict=True))
    if isinstance(value, deque):
        return type(value)(parts, value.maxlen)
    if isinstance(value, tuple | list):
        return type(value)(parts)
    copy = object.__new__(type(value))
    for name, attribute in getattr(value, "__dict__", {}).items():  # set in __post_init__, say
        object.__setattr__(copy, name, attribute)
    for (name, _), part in zip(children(value) or (), parts, strict=True):
        object.__setattr__(copy, name, part)
    return copy


def flatten(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Return (path, leaf) for each leaf of `value` in order."""
    parts = children(value)
    if parts is None:
        return [(path, value)]
    return [leaf for name, part in parts for leaf in flatten(part, (*path, name))]


def every_part(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Return (path, part) for `value` itself and each part of it, whole structures before what is in them."""
    parts = children(value) or []
    return [(path, value), *(part for name, child in parts for part in every_part(child, (*path, name)))]


def replace(value: Any, leaves: Mapping[Path, Any], path: Path = ()) -> Any:
    """Return `value` with the leaves at the given paths replaced."""
    parts = children(value)
    if parts is None:
        return leaves.get(path, value)
    return rebuild(value, [replace(part, leaves, (*path, name)) for name, part in parts])


def part_at(value: Any, path: Path) -> Any:
    """Return the part of `value` at `path`, which has to be there."""
    for name in path:
        value = dict(children(value) or ())[name]
    return value


def copied(value: Any) -> Any:
    """Return `value` with copies of its tensors."""
    return replace(value, {path: leaf.clone() for path, leaf in tensors(value)})


def matched_leaves(value: Any, other: Any) -> dict[Path, Path] | None:
    """Return which leaf of `other` stands for which of `value`; None if the two are built differently.

    Parts with names are matched by name whatever their order, parts of tuples and lists by position.
    """
    mine, theirs = children(value), children(other)
    if mine is None or theirs is None:
        return {(): ()} if mine is None and theirs is None else None
    if len(mine) != len(theirs) or _is_named(value) != _is_named(other):
        return None
    if _is_named(value) and {name for name, _ in mine} != {name for name, _ in theirs}:
        return None
    by_name = dict(theirs)
    pairs: dict[Path, Path] = {}
    for index, (name, part) in enumerate(mine):
        found = (name, by_name[name]) if _is_named(value) else theirs[index]
        inside = matched_leaves(part, found[1])
        if inside is None:
            return None
        pairs |= {(name, *own): (found[0], *their) for own, their in inside.items()}
    return pairs


def _is_named(value: Any) -> bool:
    return not isinstance(value, tuple | list | deque) or hasattr(value, "_fields")


def tensors(value: Any) -> list[tuple[Path, torch.Tensor]]:
    """Return (path, tensor) for each tensor in `value`."""
    return [(path, leaf) for path, leaf in flatten(value) if isinstance(leaf, torch.Tensor)]
