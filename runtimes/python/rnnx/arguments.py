"""Arguments of public functions: what makes no sense is told by its name, with what was wanted and what came.

A wrong kind of object is a TypeError, as everywhere in Python; a value that makes no sense is an RnnxError.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, TypeVar

from rnnx.errors import RnnxError, UsageError

Kind = TypeVar("Kind")


def number(
    value: Any,
    wanted: str,
    *,
    code: str,
    least: int = 0,
    most: int | None = None,
    fix: str = "change it",
    error: type[RnnxError] = UsageError,
) -> int:
    """Return a whole number: an int, or what NumPy and PyTorch call one; no float and no boolean.

    Args:
        value: what was given.
        wanted: what it should be: "batch as a number of 1 or more".
        code: of the error.
        least, most: what it may be.
        fix: what the user can do.
        error: the kind of error.

    Raises:
        RnnxError: of that kind and code, for anything else.
    """
    is_boolean = str(getattr(value, "dtype", type(value).__name__)).endswith("bool")
    try:
        found = None if is_boolean else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least or (most is not None and found > most):
        raise error(code, expected=wanted, found=shown(value), fix=fix)
    return found


def mapping(name: str, value: Any, what: str) -> dict[Any, Any]:
    """Return a mapping as a dict, None as an empty one. Raises TypeError for anything else.

    Args:
        name: of the argument.
        value: what was given.
        what: what it should be: "sizes by dimension, as in {'memory': 37}".
    """
    if value is None:
        return {}
    return dict(instance(name, value, Mapping, f"a dict of {what}"))


def instance(name: str, value: Any, kind: type[Kind] | tuple[type[Kind], ...], what: str) -> Kind:
    """Return `value` if it is of that kind. Raises TypeError, naming argument and what was wanted."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Return what a value is, in few words: itself if it is a plain one, else its type."""
    plain = value is None or isinstance(value, (bool, int, float, str, bytes))
    text, kind = repr(value), type(value).__name__
    return text if plain and len(text) <= 60 else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
