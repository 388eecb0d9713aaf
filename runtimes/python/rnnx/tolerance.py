"""The one table of tolerances. A tolerance is never widened to make a test pass.

A value agrees with its reference if |got - expected| <= absolute + relative * |expected|. With both equal,
the error is measured relative to 1 + |expected|. `docs/tolerances.md` is rendered from this table.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rnnx.shapes import Array


@dataclasses.dataclass(frozen=True)
class Bound:
    """How far a value may be from its reference: `absolute + relative * |expected|`."""

    absolute: float
    relative: float


@dataclasses.dataclass(frozen=True)
class Level:
    """One named tolerance.

    Attributes:
        name: what contracts and reports call it.
        step: bound on one step computed from the same states.
        drift: bound on every step of a run of any length whose states run free.
        reason: why it is this and not less.
    """

    name: str
    step: Bound
    drift: Bound
    reason: str


def _level(name: str, step: float, drift: float, reason: str) -> Level:
    return Level(name, Bound(step, step), Bound(drift, drift), reason)


_EXACT = _level("exact", 0.0, 0.0, "Whole numbers and truth values have no rounding.")
_FLOATS = {
    ("float16", "cpu"): _level(
        "float16",
        5e-3,
        5e-2,
        "Rounding to 11 bits is 5e-4 for each operation; engines differ in where they round to float16 "
        "inside a cell, and a layer adds up a few such roundings.",
    ),
    ("float32", "cpu"): _level(
        "float32",
        2e-5,
        2e-4,
        "Sums of hundreds of products in another order differ by a few 1e-7 times their largest partial sum, "
        "sigmoid and tanh by 1e-6 between libraries; two layers and 200 steps stay below this.",
    ),
    ("float64", "cpu"): _level(
        "float64",
        1e-11,
        1e-10,
        "As float32, with 2^-53 in place of 2^-24 and room for exp of other libraries.",
    ),
    ("float16", "cuda"): _level(
        "float16-cuda", 5e-3, 5e-2, "Assumed, not measured yet: as float16 on the CPU."
    ),
    ("float32", "cuda"): _level(
        "float32-cuda",
        5e-5,
        5e-4,
        "Assumed, not measured yet: sums are split over many threads, in yet another order. TF32, which "
        "rounds factors to 11 bits, is switched off.",
    ),
    ("float64", "cuda"): _level(
        "float64-cuda", 1e-11, 1e-10, "Assumed, not measured yet: as float64 on the CPU."
    ),
    ("float16", "native"): _level(
        "float16-native", 5e-3, 5e-2, "Assumed, not measured yet: as float16 on the CPU."
    ),
    ("float32", "native"): _level(
        "float32-native", 2e-5, 2e-4, "Assumed, not measured yet: as float32 on the CPU."
    ),
    ("float64", "native"): _level(
        "float64-native", 1e-11, 1e-10, "Assumed, not measured yet: as float64 on the CPU."
    ),
}
PROVIDERS = ("cpu", "cuda", "native")
DTYPES = ("float16", "float32", "float64")


def level_of(dtype: str | np.dtype[Any], provider: str = "cpu") -> Level:
    """Return the level for values of `dtype` computed by `provider`.

    Raises:
        KeyError: there is no such provider in the table.
    """
    name = np.dtype(dtype).name
    if name not in DTYPES:
        return _EXACT
    return _FLOATS[name, provider]


def error_beyond(bound: Bound, expected: Array, got: Array) -> Array:
    """Return, for each value, how far its error exceeds the bound: above 0 where it disagrees.

    The same infinity, or NaN on both sides, is agreement; an infinity or NaN on one side exceeds by infinity.
    """
    if expected.dtype.kind != "f":
        return np.where(expected == got, -1.0, np.inf)
    wanted, have = expected.astype(np.float64), got.astype(np.float64)
    same = (wanted == have) | (np.isnan(wanted) & np.isnan(have))
    with np.errstate(invalid="ignore", over="ignore"):
        beyond = np.abs(have - wanted) - (bound.absolute + bound.relative * np.abs(wanted))
    odd = ~np.isfinite(wanted) | ~np.isfinite(have)
    return np.where(same, -1.0, np.where(odd, np.inf, beyond))


def relative_error(expected: Array, got: Array) -> float:
    """Return the largest |got - expected| / (1 + |expected|); infinite where an infinity or NaN differs."""
    wanted, have = expected.astype(np.float64), got.astype(np.float64)
    same = (wanted == have) | (np.isnan(wanted) & np.isnan(have))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.where(same, 0.0, np.abs(have - wanted) / (1 + np.abs(wanted)))
    return float(np.where(np.isnan(error), np.inf, error).max(initial=0.0))


def render() -> str:
    """Return docs/tolerances.md."""
    lines = [
        "# Tolerances",
        "",
        "<!-- Rendered from runtimes/python/rnnx/tolerance.py by `python -m rnnx.tolerance`. -->",
        "",
        "Two implementations of one network agree on a value if",
        "`|got - expected| <= absolute + relative * |expected|`. Absolute and relative bound are equal",
        "throughout, so that an error is measured relative to `1 + |expected|`.",
        "",
        "**Step** bounds one step that both compute from the same states. **Drift** bounds every step of a",
        "run in which the states run free, however long: networks that forget also forget rounding errors,",
        "and one whose error grows fails here.",
        "",
        "| level | dtype | provider | step | drift | why it is this and not less |",
        "|---|---|---|---|---|---|",
    ]
    for (dtype, provider), level in _FLOATS.items():
        bounds = f"{level.step.absolute:.0e} | {level.drift.absolute:.0e}"
        lines.append(f"| `{level.name}` | {dtype} | {provider} | {bounds} | {level.reason} |")
    lines.append(f"| `{_EXACT.name}` | integers, bool | all | 0 | 0 | {_EXACT.reason} |")
    lines += [
        "",
        "A tolerance is never widened to make a test pass: find the cause, or write down here why it has",
        "to be.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
