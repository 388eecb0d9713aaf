"""A module as a copy: the user's own stays as it is, and the copy is the module, whatever its class does."""

from __future__ import annotations

import collections
import copy
import types
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rnnx.errors import RefusedError
from rnnx_export.diagnostics import user_error
from rnnx_export.module.attributes import snapshot


def copy_module(module: nn.Module, shared: Mapping[int, nn.Parameter] | None = None) -> nn.Module:
    """Return a deep copy; tensors that carry gradients' history are copied without it.

    A class may copy itself as it likes: made anew from its arguments it lacks what was changed afterwards.
    Such a copy is not taken, nor one that fails: then all that the module holds is copied.

    Args:
        module: what to copy.
        shared: by the id of a parameter, what stands for it in the copy.

    Raises:
        RefusedError: `not-exported`, of a module that cannot be copied.
    """
    memo: dict[int, Any] = {id(leaf): leaf.detach().clone() for leaf in _with_history(module)}
    memo |= dict(shared or {})
    own = [part for part in module.modules() if hasattr(type(part), "__deepcopy__")]
    try:
        made: nn.Module = copy.deepcopy(module, dict(memo))
        if not own or _is_same(made, module):
            return made
        problem: Exception | None = None
    except Exception as error:  # a class copies itself as it likes
        problem = error
    try:
        if own:
            return _content_copied(module, own, memo)
    except Exception as error:
        problem = problem or error
    assert problem is not None
    raise RefusedError(
        "not-exported",
        expected=f"{type(module).__name__} to be copied by copy.deepcopy, so that it stays as it is",
        found=user_error(problem, f"{type(problem).__name__}: "),
        fix="take out of it what cannot be copied, such as a lock, an open file or a generator",
    ) from problem


def _content_copied(module: nn.Module, own: list[nn.Module], memo: dict[int, Any]) -> nn.Module:
    """Return a copy in which parts that copy themselves have a copy of all that they hold instead."""
    made = {id(part): type(part).__new__(type(part)) for part in own}
    memo = memo | made
    for part in own:
        made[id(part)].__dict__.update(copy.deepcopy(part.__dict__, memo))
    return copy.deepcopy(module, memo)


def _is_same(made: nn.Module, module: nn.Module) -> bool:
    """Whether a copy holds the tensors, plain values and hooks that the module holds."""
    hooks = [
        [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in each.modules()]
        for each in (module, made)
    ]
    if hooks[0] != hooks[1]:
        return False
    before, after = (snapshot(each) | dict(each.named_parameters()) for each in (module, made))
    return before.keys() == after.keys() and all(
        _is_equal(value, after[place]) for place, value in before.items()
    )


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = (one.shape, one.dtype) == (other.shape, other.dtype)
        return same and bool(((one == other) | ((one != one) & (other != other))).all())
    return type(one) is type(other) and (one == other or one != one)


def _with_history(module: nn.Module) -> list[Tensor]:
    """Return the tensors with gradients' history, in any object that the module holds."""
    found, seen, left = [], set[int](), [module]
    while left:
        value: Any = left.pop()
        if id(value) in seen or isinstance(value, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_leaf:
                found.append(value)
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            left += value
        left += getattr(value, "__dict__", {}).values()
    return found
