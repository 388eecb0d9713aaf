"""The longest row, such as `int(lengths.max())`: a chunk is as long as that, so that its size is time's.

A tensor is counted where it is the lengths of the rows, or whole numbers computed from them row by row; it
goes with the size that it has in a row as long as the chunk. The largest of it is then that size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor

from rnnx_export.calls.types import Call, Counted, Tracer

_SAME = (
    "to",
    "type",
    "long",
    "int",
    "cpu",
    "cuda",
    "detach",
    "clone",
    "contiguous",
    "view",
    "reshape",
    "flatten",
)
_COMPUTED: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "__add__": operator.add,
    "__radd__": operator.add,
    "sub": operator.sub,
    "__sub__": operator.sub,
    "mul": operator.mul,
    "__mul__": operator.mul,
    "__rmul__": operator.mul,
    "floor_divide": operator.floordiv,
    "__floordiv__": operator.floordiv,
    "div": operator.floordiv,
}
ROWS, LARGEST, VALUES = (*_SAME, *_COMPUTED), ("max", "amax"), ("item", "__int__", "__index__")


def _counted(tracer: Tracer, args: Call, *, largest: bool = False) -> Counted | None:
    """Return what is known of the tensor that a call is made on, if it is one that is counted."""
    found = tracer.counted.get(id(args[0])) if args else None
    return found if found is not None and (found.is_largest or not largest) else None


def rows(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """Lengths in another dtype or form, or with a number added, multiplied, divided: counted too."""
    known = _counted(tracer, args)
    if known is None:
        return NotImplemented
    size = known.size
    compute = _COMPUTED.get(func.__name__)
    if compute is not None:
        if len(args) != 2 or not isinstance(args[1], int) or kwargs.get("rounding_mode", "floor") != "floor":
            return NotImplemented
        if func.__name__ == "div" and "rounding_mode" not in kwargs:
            return NotImplemented
        size = compute(size, args[1])
    result = func(*args, **kwargs)
    if isinstance(result, Tensor) and not result.is_floating_point():
        tracer.counted[id(result)] = Counted(result, size, known.is_largest)
    return result


def largest(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """lengths.max(): the length of a row that is as long as the chunk."""
    axes = (*args[1:], *kwargs.values())
    known = _counted(tracer, args)
    if known is None or known.tensor.dim() > 1 or axes not in ((), (0,), (-1,)):
        return NotImplemented
    result = func(*args, **kwargs)
    found = result if isinstance(result, Tensor) else result[0]
    tracer.counted[id(found)] = Counted(found, known.size, True)
    return result


def value(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """lengths.max().item(): time's size."""
    known = _counted(tracer, args, largest=True)
    if known is None or (func.__name__ != "item" and not isinstance(known.size, int)):
        return NotImplemented  # Python takes nothing but a number from `__int__`
    return known.size


def sized(tracer: Tracer, argument: Any) -> Any:
    """Return time's size for the largest length, and any other argument as it is."""
    known = _counted(tracer, (argument,), largest=True)
    return argument if known is None else known.size
