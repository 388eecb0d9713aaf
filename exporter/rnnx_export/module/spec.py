"""Specs: what a tensor looks like, `dtype[dim, dim, ...]`, with ` in low..high` where values matter."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rnnx.errors import UsageError
from rnnx.model.contract import Axis, Dimension, describe
from rnnx.model.contract_values import Number, is_range, number_text
from rnnx_export.diagnostics import Because, Reason
from rnnx_export.module.structure import Leaf, Path

DTYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}

_SPEC = re.compile(r"\s*(\w+)\s*\[([^\]]*)\]\s*(?:in\s+(\S+?)\s*\.\.\s*(\S+))?\s*")
Bound = Number | str


@dataclasses.dataclass(frozen=True)
class TensorSpec(Leaf):
    """One tensor: dtype, shape, and the range its values come from.

    Attributes:
        dtype: its torch dtype.
        shape: numbers, names, or `N*time`.
        low, high: inclusive range of the values; a name stands for that dimension's size. None is the
            ordinary range: normal numbers for floats, 0 and 1 for integers.
        is_example: whether low and high are only those of an example, so that others may well be met.
        descending: whether values stand in order, the largest first: lengths that the module wants sorted.
        full: whether a value is the largest there may be: lengths of which the module makes a chunk's size.
    """

    dtype: torch.dtype
    shape: tuple[Dimension, ...]
    low: Bound | None = None
    high: Bound | None = None
    is_example: bool = False
    descending: bool = False
    full: bool = False

    @property
    def range(self) -> tuple[Number, Number] | None:
        """The range as a contract holds it: that which was meant, in numbers."""
        is_meant = not self.is_example and self.dtype != torch.bool
        return _numbers(self.low, self.high) if is_meant else None

    @property
    def text(self) -> str:
        """The spec as it is written."""
        span = "" if self.low is None else f" in {_short(self.low)}..{_short(self.high)}"
        return describe(NAMES[self.dtype], self.shape) + span

    def axes(self) -> list[Axis]:
        """Return the parsed dimensions but those of size 0."""
        return [Axis.parse(dimension) for dimension in self.shape if dimension != 0]

    def sizes(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape in numbers."""
        return tuple(
            axis.factor * (dims[axis.name] if axis.name else 1) if axis else 0
            for axis in (dimension and Axis.parse(dimension) for dimension in self.shape)
        )

    def has(self, name: str) -> bool:
        """Whether an axis is called `name`."""
        return any(axis.name == name for axis in self.axes())

    @property
    def is_length(self) -> bool:
        """Whether values count valid steps: an integer per row that time bounds."""
        return self.high == "time" and self.dtype == torch.int64 and self.shape in ((), ("batch",))

    def random(self, dims: Mapping[str, int], generator: torch.Generator) -> torch.Tensor:
        """Return a tensor of this spec with values from its range."""
        sizes = self.sizes(dims)
        low, high = (_bound(bound, dims) for bound in (self.low, self.high))
        if self.dtype.is_floating_point:
            if low is None or high is None:
                return torch.randn(sizes, generator=generator, dtype=torch.float64).to(self.dtype)
            unit = torch.rand(sizes, generator=generator, dtype=torch.float64)
            return (low + (high - low) * unit).to(self.dtype)
        first, last = (0, 1) if low is None or high is None else (int(low), int(high))
        drawn = torch.randint(first, last + 1, sizes, generator=generator).to(self.dtype)
        return self._as_lengths(drawn, last)

    def _as_lengths(self, value: torch.Tensor, last: float) -> torch.Tensor:
        if self.full:
            value = value.where(value != value.max(), last)
        return value.sort(descending=True).values if self.descending and value.dim() else value

    def odd(self, dims: Mapping[str, int], generator: torch.Generator) -> torch.Tensor:
        """Return a tensor such as decisions are made on: all alike, all but one row, 0 and 1, large, tiny."""
        value = self.random(dims, generator)
        kind = int(torch.randint(9, (), generator=generator))
        low, high = (_bound(bound, dims) for bound in (self.low, self.high))
        first, last = (0 if low is None else low), (1 if high is None else high)
        chosen = torch.randint(2, tuple(value.shape), generator=generator).bool()
        ends = torch.where(chosen, torch.full_like(value, last), torch.full_like(value, first))
        if kind < 2:
            return self._as_lengths(torch.full_like(value, (first, last)[kind]), last)
        if kind == 2 or self.descending or self.full:
            return self._as_lengths(ends, last)
        if kind == 3 and value.dim():  # all alike but for one row
            alike = torch.full_like(value, first)
            alike[-1:] = ends[-1:]
            return alike
        if kind < 6 and value.is_floating_point() and low is None and high is None:
            return value * (100.0 if kind == 4 else 1e-3)
        return value


def parse(value: Any, where: str) -> TensorSpec:
    """Return the spec that `value` writes, or describes by example (every axis fixed to its size).

    Raises:
        UsageError: `bad-spec`.
    """
    if isinstance(value, TensorSpec):
        return value
    if isinstance(value, np.ndarray | np.generic):
        value = torch.from_numpy(np.asarray(value))
    if isinstance(value, torch.Tensor):
        low: Bound | None = None
        high: Bound | None = None
        if not value.dtype.is_floating_point and value.numel():
            low, high = value.min().item(), value.max().item()
        return TensorSpec(value.dtype, tuple(value.shape), low, high, is_example=True)
    if not isinstance(value, str):
        raise _bad(where, f"a {type(value).__name__}")
    match = _SPEC.fullmatch(value)
    if match is None or match[1] not in DTYPES:
        raise _bad(where, repr(value))
    try:
        shape = tuple(_dimension(part.strip()) for part in match[2].split(",") if part.strip())
        for dimension in shape:
            if dimension != 0:  # what a state holds nothing in
                Axis.parse(dimension)
        low, high = (_parse_bound(bound) for bound in (match[3], match[4]))
    except ValueError as error:
        raise _bad(where, f"{value!r} ({error})") from error
    spec = TensorSpec(DTYPES[match[1]], shape, low, high)
    bounds = _numbers(low, high)
    if bounds is not None and not is_range(boundary_dtype(spec.dtype), bounds):
        raise _bad(where, f"{value!r}, whose range is not the least and the largest of {match[1]}")
    for reserved in ("batch", "time"):
        if sum(axis.name == reserved for axis in spec.axes()) > 1:
            raise _bad(where, f"{value!r} with two {reserved} axes")
    return spec


def parse_leaves(leaves: Mapping[Path, Any], where: str) -> dict[Path, TensorSpec | None]:
    """Return the specs of a structure's leaves by path; None where it says None (measure the start)."""
    return {
        path: None if leaf is None else parse(leaf, ".".join((where, *path))) for path, leaf in leaves.items()
    }


def _dimension(text: str) -> Dimension:
    return int(text) if text.lstrip("-").isdigit() else re.sub(r"\s*\*\s*", "*", text)


def _parse_bound(text: str | None) -> Bound | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def _numbers(low: Bound | None, high: Bound | None) -> tuple[Number, Number] | None:
    return (low, high) if isinstance(low, (int, float)) and isinstance(high, (int, float)) else None


def _bound(bound: Bound | None, dims: Mapping[str, int]) -> float | None:
    if isinstance(bound, str):
        if bound not in dims:
            raise UsageError(
                "bad-spec",
                expected=f"a bound that is a number or one of {', '.join(dims)}",
                found=repr(bound),
                fix="write a range as 0..95 or 1..time",
            )
        return dims[bound]
    return bound


def _short(bound: Bound | None) -> str:
    return number_text(bound) if isinstance(bound, (int, float)) else str(bound)


def _bad(where: str, found: str) -> UsageError:
    return UsageError(
        "bad-spec",
        expected=f"a spec such as 'float32[batch, time, 257]' for {where}",
        found=found,
        fix=f"write dtype[dim, ...], dtype one of {', '.join(DTYPES)}, dims numbers or names",
    )


def boundary_dtype(dtype: torch.dtype) -> str:
    """Return the dtype a tensor has outside the model: bfloat16 values are handed over as float32."""
    return "float32" if dtype == torch.bfloat16 else NAMES[dtype]


def time_axis(shape: Sequence[Dimension]) -> int | None:
    """Return the axis that a step does not have: the one called exactly `time`."""
    return list(shape).index("time") if "time" in shape else None


def infer_shape(
    base: Sequence[int],
    variants: Mapping[str, Sequence[int]],
    sizes: Mapping[str, int],
    varied: Mapping[str, int],
) -> tuple[Dimension, ...] | str:
    """Return a tensor's shape in dimension names, from its sizes in several runs.

    Args:
        base: its shape when the dimensions have `sizes`.
        variants: by dimension name, its shape when that one alone has the size in `varied`.

    Returns:
        The shape, or a sentence part saying why there is none.
    """
    shape: list[Dimension] = []
    for axis, size in enumerate(base):
        moved = {name: other[axis] - size for name, other in variants.items() if other[axis] != size}
        if not moved:
            shape.append(size)
            continue
        if len(moved) > 1:
            return f"axis {axis} grows with {' and '.join(moved)} together"
        name, growth = next(iter(moved.items()))
        factor, rest = divmod(growth, varied[name] - sizes[name])
        if rest or factor < 1 or size != factor * sizes[name]:
            said = f"axis {axis} has {size} elements where {name} is {sizes[name]}"
            return Because(said, None if name in ("batch", "time") else Reason.SIZE_FOLLOWS)
        dimension = name if factor == 1 else f"{factor}*{name}"
        try:
            Axis.parse(dimension)
        except ValueError:
            return f"axis {axis} has {factor} elements for each of {name}"
        shape.append(dimension)
    return tuple(shape)


def step_shape(shape: Sequence[Dimension]) -> list[Dimension]:
    """Return the shape of one step: no `time`, N entries where a chunk has `N*time`."""
    axes = [(dimension, Axis.parse(dimension)) for dimension in shape if dimension != "time"]
    return [axis.factor if axis.name == "time" else dimension for dimension, axis in axes]
