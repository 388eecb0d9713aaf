"""Values as they stand in a contract: numbers, texts for those that JSON has not, nested lists, ranges."""

from __future__ import annotations

from typing import Any

import numpy as np

Initial = bool | int | float | str | list[Any]
Number = int | float

_EXACT = 2**53  # whole numbers below are exact in float64


def value_array(value: Initial, dtype: str) -> np.ndarray[Any, Any]:
    """Return a value as it is read: each number as float64, then rounded to the nearest of its dtype."""
    numbers = np.asarray(read_numbers(value), np.float64)
    whole = np.dtype(dtype).kind in "iu"
    with np.errstate(over="ignore"):  # beyond float16 lies infinity
        return (np.rint(numbers) if whole else numbers).astype(dtype)


def encode_initial(value: np.ndarray[Any, Any]) -> Initial:
    """Return an array as it stands in the contract: one number if all are equal, else nested lists.

    Non-finite values become the strings "inf", "-inf" and "nan", which every JSON parser accepts.
    """
    if value.size and (value == value.flat[0]).all():
        return _text(value.flat[0].item())
    if value.size and np.isnan(value.astype(np.float64)).all():
        return "nan"
    return _nested(value.tolist())


def _nested(value: Any) -> Initial:
    return [_nested(entry) for entry in value] if isinstance(value, list) else _text(value)


def _text(value: Any) -> Initial:
    if isinstance(value, float) and not np.isfinite(value):
        return "nan" if value != value else ("inf" if value > 0 else "-inf")
    return int(value) if isinstance(value, bool) else value


def read_numbers(value: Initial) -> Any:
    """Return a value with its texts as numbers. Raises ValueError for what is no number."""
    if isinstance(value, list):
        return [read_numbers(entry) for entry in value]
    if isinstance(value, str):
        if value not in ("inf", "-inf", "nan"):
            raise ValueError(f"{value!r} is no number")
        return float(value)
    if value is None:  # numpy would take it for NaN
        raise ValueError("null is no number")
    return value


def is_range(dtype: str, bounds: tuple[Number, Number]) -> bool:
    """Whether two numbers are a range of a dtype: finite, the least first; of integers whole, and exact."""
    try:
        least, largest = numbers = np.array(bounds, np.float64)
    except OverflowError:
        return False
    if np.dtype(dtype).kind == "f":
        return bool(np.isfinite(numbers).all() and least <= largest)
    exact = np.abs(numbers) < _EXACT  # so that values compared with it as float64 fall to the right side
    whole = (numbers == np.rint(numbers)).all()
    return bool(exact.all() and whole and least <= largest and holds(np.dtype(dtype), numbers))


def holds(dtype: np.dtype[Any], numbers: np.ndarray[Any, Any]) -> bool:
    """Whether all numbers (float64) have a counterpart in a dtype: integers once rounded, bool 0 and 1."""
    if dtype.kind == "f":
        return True
    if dtype.kind == "b":
        return bool(np.isin(numbers, (0, 1)).all())
    limits, whole = np.iinfo(dtype), np.rint(numbers)
    return bool(((whole >= limits.min) & (whole < float(limits.max) + 1)).all())


def number_text(number: Number) -> str:
    """Return a number as specs and messages have it: a whole one without a point."""
    return str(int(number)) if float(number).is_integer() else str(number)
