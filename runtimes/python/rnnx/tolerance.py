"""The one table of tolerances. A tolerance is never widened to make a test pass.

A value agrees with its reference if |got - expected| <= absolute + relative * |expected|. With both equal,
the error is measured relative to 1 + |expected|. `docs/tolerances.md` is rendered from this table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from rnnx.model.shapes import Array


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
        rounding: how many times PyTorch's own error against the network in float64 a window of steps may be
            off, where that network is known; None where other weights than the network's are computed with.
    """

    name: str
    step: Bound
    drift: Bound
    reason: str
    rounding: float | None = None


# Good runtimes stay below this: docs/decisions/0012-verdict-in-units-of-rounding.md has what was measured.
_ROUNDING = 5.0


def _level(name: str, step: float, drift: float, reason: str, rounding: float | None = _ROUNDING) -> Level:
    return Level(name, Bound(step, step), Bound(drift, drift), reason, rounding)


_EXACT = _level("exact", 0.0, 0.0, "Whole numbers and booleans have no rounding.", None)
_ASSUMED = "Assumed, not measured yet: as on the CPU."
_COMPILED = (
    "As on the CPU: every case that compiles stays within it over 1,000 steps, on the portable path, with "
    "AVX2 and with AVX-512. exp and tanh are within 2 ulp of exact, sigmoid within 2.5."
)
_STORED = "As on the CPU: what weights stored in bytes may cost before 'rnnx compile' asks for --accept."
_CPU = {
    "float16": _level(
        "float16",
        5e-3,
        5e-2,
        "Rounding to 11 bits is 5e-4 for each operation; engines differ in where they round to float16 "
        "inside a cell, and a layer adds up a few such roundings.",
    ),
    "bfloat16": _level(
        "bfloat16",
        5e-2,
        2e-1,
        "Rounding to 8 bits is 4e-3 for each operation, a dozen of which follow each other in a cell. Only "
        "for a network that computes in bfloat16 itself: exported models have its weights exactly, compute "
        "in float32, and are held to float32 against the network in float32.",
    ),
    "float32": _level(
        "float32",
        2e-5,
        2e-4,
        "Sums of hundreds of products in another order differ by a few 1e-7 times their largest partial sum, "
        "sigmoid and tanh by 1e-6 between libraries; two layers and 200 steps stay below this.",
    ),
    "float64": _level(
        "float64",
        1e-11,
        1e-10,
        "As float32, with 2^-53 in place of 2^-24 and room for exp of other libraries.",
    ),
}
_CUDA_FLOAT32 = _level(
    "float32-cuda",
    5e-5,
    5e-4,
    "Assumed, not measured yet: sums are split over many threads, in yet another order. TF32, which "
    "rounds factors to 11 bits, is switched off.",
)
_INT8 = _level(
    "int8",
    2e-2,
    1e-1,
    "Weights of 8 bits are off by up to 1/254 of the largest of their row or layer; onnxruntime's dynamic "
    "quantisation of an LSTM was measured at 8e-3 of a hidden state. It changes the network, so this bounds "
    "what the change costs; it does not say that two programs compute the same.",
    None,
)
_ROWS = (
    "A row of a batch goes through the same sums as a batch of one. Where a kernel for one row adds in "
    "another order than one for many, they differ by rounding; sigmoid and tanh are the same code. With "
    "onnxruntime on x86 no difference at all was measured (LSTM, GRU, MatMul; 300 steps)."
)
_POOLED = {
    "float16": _level("float16-pooled", 2e-3, 2e-2, _ROWS),
    "float32": _level("float32-pooled", 2e-6, 2e-5, _ROWS),
    "float64": _level("float64-pooled", 1e-12, 1e-11, _ROWS),
}
PROVIDERS = ("cpu", "cuda", "native")
DTYPES = ("float16", "float32", "float64")
QUANTISED = ("int8",)
_OPERATORS = (
    "DynamicQuantize",
    "QuantizeLinear",
    "MatMulInteger",
    "QLinear",
    "DequantizeLinear",
    "ConvInteger",
)


def _table() -> dict[tuple[str, str, str | None], Level]:
    """Return every level by dtype, provider and quantisation."""
    table: dict[tuple[str, str, str | None], Level] = {}
    for provider in PROVIDERS:
        for dtype, level in (*_CPU.items(), ("float32", _INT8)):
            kind = "int8" if level is _INT8 else None
            name = level.name if provider == "cpu" else f"{level.name}-{provider}"
            elsewhere = dataclasses.replace(level, name=name, reason=_ASSUMED)
            table[dtype, provider, kind] = level if provider == "cpu" else elsewhere
    table["float32", "cuda", None] = _CUDA_FLOAT32
    for key in (("float16", None), ("float32", None), ("float64", None), ("float32", "int8")):
        reason = _STORED if key[1] else _COMPILED
        table[key[0], "native", key[1]] = dataclasses.replace(table[key[0], "native", key[1]], reason=reason)
    return table


_LEVELS = _table()


def level_of(dtype: str | np.dtype[Any], provider: str = "cpu", quantisation: str | None = None) -> Level:
    """Return the level for values of `dtype` computed by `provider`.

    Args:
        dtype: of the values; `"bfloat16"`, which NumPy does not know, by its name.
        provider: what computed them.
        quantisation: `"int8"` for a model whose weights were quantised, None for others.

    Raises:
        KeyError: there is no such provider or quantisation in the table.
    """
    name = "bfloat16" if str(dtype) == "bfloat16" else np.dtype(dtype).name
    if name not in (*DTYPES, "bfloat16"):
        return _EXACT
    return _LEVELS.get((name, provider, quantisation)) or _LEVELS[name, provider, None]


def coarser(dtype: str, proved: str) -> str:
    """Return the dtype that tells how exact values can be: their own, or a coarser one on the way to them.

    Args:
        dtype: of the values.
        proved: the level that a proof names, which is that of the coarsest floating dtype on the way. Those
            of one provider, such as "float16-native", say nothing of others and count for nothing.
    """
    if dtype not in DTYPES:
        return dtype
    return min([dtype, *(name for name in proved.split(", ") if name in DTYPES)], key=DTYPES.index)


def pooled_level_of(
    dtype: str | np.dtype[Any], provider: str = "cpu", quantisation: str | None = None
) -> Level:
    """Return the level for a stream in a pool against the same stream alone, on the same provider.

    Args:
        dtype: of the values.
        provider: what computed both.
        quantisation: as for `level_of`. Activations quantised as a batch depend on its other rows.

    Raises:
        KeyError: as `level_of`.
    """
    own = _POOLED.get(np.dtype(dtype).name) if provider == "cpu" and quantisation is None else None
    return own or level_of(dtype, provider, quantisation)


def quantisation_of(operators: Iterable[str]) -> str | None:
    """Return the quantisation that a model's operators show: "int8" or None."""
    return "int8" if any(name.startswith(_OPERATORS) for name in operators) else None


def error_beyond(bound: Bound, expected: Array, got: Array) -> Array:
    """Return, for each value, how far its error exceeds the bound: above 0 where it disagrees.

    The same infinity, or NaN on both sides, is agreement; an infinity or NaN on one side exceeds by infinity.
    """
    if expected.dtype.kind != "f":
        return np.where(expected == got, -1.0, np.inf)
    wanted, have = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        beyond = np.abs(have - wanted) - (bound.absolute + bound.relative * np.abs(wanted))
    if np.isfinite(beyond).all():
        return np.asarray(beyond)
    same = (wanted == have) | (np.isnan(wanted) & np.isnan(have))
    odd = ~np.isfinite(wanted) | ~np.isfinite(have)
    return np.where(same, -1.0, np.where(odd, np.inf, beyond))


def relative_error(expected: Array, got: Array) -> float:
    """Return the largest |got - expected| / (1 + |expected|); infinite where an infinity or NaN differs."""
    wanted, have = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(have - wanted) / (1 + np.abs(wanted))
    largest = float(error.max(initial=0.0))
    if math.isfinite(largest):
        return largest
    same = (wanted == have) | (np.isnan(wanted) & np.isnan(have))
    return float(np.where(same, 0.0, np.where(np.isnan(error), np.inf, error)).max(initial=0.0))


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
        "**Rounding** is the sharper bound, for networks that run in float64 too: how many times PyTorch's",
        "own error against the network in float64 a runtime's may be. Both are root mean squares of an",
        "element over 64 steps and the rows of the batch, from the same states as PyTorch and with states",
        "running free. [How it was chosen](decisions/0012-verdict-in-units-of-rounding.md). It has no say",
        "where a run is shorter than 32 steps, and where weights of fewer bits make it another network.",
        "",
        "**The file in float64** is held to the network in float64, at export and by `rnnx parity`, where",
        "the onnx package's reference evaluator knows the graph's operators. Both begin each step from the",
        "same states. A good file departs only by the constants that were computed for it (a product of two",
        "weights), and by no more than twice what moving these by up to 64 roundings does. So a weight that",
        "is off by a ten-thousandth shows, which an engine's own rounding would hide.",
        "",
        "**Step** and **drift** are the outer bounds of single values, and the only ones where there is no",
        "float64 network. Step bounds one step that both compute from the same states, drift every step of a",
        "run in which the states run free, however long: networks that forget also forget rounding errors,",
        "and one whose error grows fails here. Unless it is chaotic: where the network in float64 is known",
        "and PyTorch's own float32 drifts from it, a single value may be off by 30 times PyTorch's largest",
        "error, and trajectories are compared only until PyTorch itself has left the tolerance. Inputs a",
        "thousand times larger than usual may be off by 30 times PyTorch's own error.",
        "A value is held to the coarsest floating dtype on the way to it: a float64 sum of float32 values",
        "has the rounding of those.",
        "",
        "| level | dtype | provider | quantised | rounding | step: absolute, relative "
        "| drift: absolute, relative | why it is this and not less |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (dtype, provider, kind), level in _LEVELS.items():
        rounding = "" if level.rounding is None else f"{level.rounding:g}"
        lines.append(
            f"| `{level.name}` | {dtype} | {provider} | {kind or 'no'} | {rounding} | {_bounds(level)} "
            f"| {level.reason} |"
        )
    lines.append(f"| `{_EXACT.name}` | integers, bool | all | | | 0, 0 | 0, 0 | {_EXACT.reason} |")
    lines += [
        "",
        "A stream in a pool is held to the same stream alone, on the same provider, by these. On other",
        "providers by those above; so are quantised models, whose activations the whole batch scales.",
        "",
        "| level | dtype | provider | step: absolute, relative | drift: absolute, relative "
        "| why it is this and not less |",
        "|---|---|---|---|---|---|",
    ]
    for dtype, level in _POOLED.items():
        lines.append(f"| `{level.name}` | {dtype} | cpu | {_bounds(level)} | {level.reason} |")
    lines += [
        "",
        "These bound what is compared with PyTorch. To tell what a network does, the exporter also",
        "compares the network with itself, run in two ways. How near these have to be, relative to",
        "1 + |value|, stands beside each comparison:",
        "",
        "| two ways | float64 | float32 | float16 | where |",
        "|---|---|---|---|---|",
        "| whole and in steps, to know if it can be stepped | 1e-6 | 1e-3 | 2e-2 | `states/causality.py` |",
        "| by its states and as its author calls it | 1e-7 | 2e-3 | 2e-3 | `proof/driven_reference.py` |",
        "| two chunks and the whole, to pair states | | 1e-4 | | `states/pairing.py` |",
        "| with a decision forced and as it is | | 1e-4 | | `states/branches.py` |",
        "| the same inputs twice, to know chance | | 1e-5 + 1e-4 | | `module/tensors.py` |",
        "| None and a state in its place | | 1e-7 + 1e-6 | | `states/initial_values.py` |",
        "| rows that get the same | 64 epsilon | 64 epsilon | 64 epsilon | `module/tensors.py` |",
        "",
        "A tolerance is never widened to make a test pass: find the cause, or write down here why it has",
        "to be.",
    ]
    return "\n".join(lines) + "\n"


def _bounds(level: Level) -> str:
    return " | ".join(f"{bound.absolute:.0e}, {bound.relative:.0e}" for bound in (level.step, level.drift))


if __name__ == "__main__":
    print(render(), end="")
