"""What flows through a program: values, the buffers they lie in, and how C writes both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    "bool": "uint8_t",
}


@dataclasses.dataclass(eq=False)
class Buffer:
    """A place in memory.

    Attributes:
        number: tells buffers apart; stands in unfinished code between two marks.
        kind: `scratch`, `input` or `output` (the caller's memory), `weight` or `table`.
        ctype: C type of an element.
        size: number of elements.
        label: what the generated code calls it, and the shape it shows beside it.
        parent, offset: a buffer that this one is a part of, and from which element on.
        fixed: must stay a buffer of its own.
        outside: filled part by part in a loop, so it lives as long as the whole loop.
    """

    number: int
    kind: str
    ctype: str
    size: int
    label: str
    shape: Shape
    parent: Buffer | None = None
    offset: int = 0
    fixed: bool = False
    outside: bool = False

    @property
    def root(self) -> Buffer:
        """The buffer that this one lies in: itself, if it is no part."""
        return self if self.parent is None else self.parent.root

    @property
    def root_offset(self) -> int:
        """Where in `root` this buffer begins."""
        return 0 if self.parent is None else self.offset + self.parent.root_offset

    @property
    def token(self) -> str:
        """What stands for this buffer in unfinished code."""
        return f"⟦{self.number}⟧"


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A tensor, contiguous, row-major: known while compiling (`const`) or in a buffer.

    Attributes:
        dtype: float16 never occurs: such models compute in float32.
        learned: whether a constant stems from the network's parameters: those are weights, others are code.
        offset: elements from the buffer's start, a C expression where a loop moves it.
        token_ids: ids of the shape of all but the last axis, where this is a code of theirs; else None.
        codes: the code of each token [tokens, elements]; None for the one-hot code.
        parts: what this is the concatenation of along its last axis; () where it is none.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    const: Array | None = None
    learned: bool = False
    buffer: Buffer | None = None
    offset: str = "0"
    token_ids: Value | None = None
    codes: Array | None = None
    parts: tuple[Value, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ctype(self) -> str:
        """C type of an element."""
        return C_TYPES[self.dtype.name]

    @property
    def real(self) -> str:
        """Suffix of the kernels for this type."""
        return "f64" if self.dtype.name == "float64" else "f32"


def contiguous(shape: Shape) -> list[int]:
    """Return row-major strides, in elements."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return strides[::-1]


def shifted(offset: str, more: str | int) -> str:
    """Return the sum of two C index expressions, numbers added up."""
    more = str(more)
    if more == "0":
        return offset
    if offset == "0":
        return more
    if offset.isdigit() and more.isdigit():
        return str(int(offset) + int(more))
    return f"{offset} + {more}"


def literal(value: Any, dtype: np.dtype[Any]) -> str:
    """Return a number as C writes it."""
    if dtype.kind == "b":
        return str(int(value))
    if dtype.kind in "iu":
        if dtype.name == "int64":
            return "INT64_MIN" if int(value) == -(2**63) else f"INT64_C({int(value)})"
        return f"UINT64_C({int(value)})" if dtype.name == "uint64" else str(int(value))
    number = float(value)
    if math.isnan(number):
        return "NAN" if dtype.name == "float32" else "(double)NAN"
    if math.isinf(number):
        word = "INFINITY" if dtype.name == "float32" else "(double)INFINITY"
        return word if number > 0 else f"(-{word})"
    text = np.format_float_scientific(dtype.type(value), unique=True, trim="0")
    short = repr(float(text)) if abs(number) < 1e5 and (abs(number) >= 1e-4 or not number) else text
    if float(dtype.type(float(short))) != number:
        short = text
    body = short + ("f" if dtype.name == "float32" else "")
    return f"({body})" if body.startswith("-") else body


def shown(shape: Sequence[int]) -> str:
    """Return a shape as comments show it."""
    return f"[{', '.join(map(str, shape))}]"
