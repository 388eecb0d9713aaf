"""Nested C loops over tensors that broadcast, or are read along strides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from rnnx_native.program.program import Program
from rnnx_native.program.values import Shape, Value, contiguous, literal, shifted


def broadcast_strides(shape: Shape, target: Shape) -> list[int]:
    """Return strides that read a tensor of `shape` as if it had the shape `target`."""
    own = contiguous(shape)
    lead = len(target) - len(shape)
    return [0] * lead + [
        0 if shape[axis] == 1 and target[lead + axis] != 1 else own[axis] for axis in range(len(shape))
    ]


def merged(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring axes that all operands walk as one; leave out axes of one element."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, extent in enumerate(shape):
        if extent == 1:
            continue
        one = [stride[axis] for stride in strides]
        if sizes and all(kept[-1] == new * extent for kept, new in zip(steps, one, strict=True)):
            sizes[-1] *= extent
            for kept, new in zip(steps, one, strict=True):
                kept[-1] = new
            continue
        sizes.append(extent)
        for kept, new in zip(steps, one, strict=True):
            kept.append(new)
    return sizes, steps


def index_of(variables: Sequence[str], strides: Sequence[int]) -> str:
    """Return a C index: the sum of variables times strides."""
    terms = [
        name if stride == 1 else f"{name} * {stride}"
        for name, stride in zip(variables, strides, strict=True)
        if stride
    ]
    return " + ".join(terms) or "0"


def nest(sizes: Sequence[int], body: Callable[[list[str]], Sequence[str]], prefix: str = "i") -> list[str]:
    """Return loops over `sizes` around the lines that `body` makes from the loop variables."""
    names = [f"{prefix}{axis}" for axis in range(len(sizes))]
    lines = [
        "  " * depth + f"for (int {name} = 0; {name} < {size}; {name}++) {{"
        for depth, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    lines += ["  " * len(sizes) + line for line in body(names)]
    lines += ["  " * depth + "}" for depth in reversed(range(len(sizes)))]
    return lines


def elementwise(program: Program, out: Value, operands: Sequence[Value], expression: str) -> None:
    """Emit `out = expression`, in which {0}, {1}, ... are elements of the operands, which broadcast."""
    moving = [operand for operand in operands if not is_inline(operand)]
    strides = [contiguous(out.shape)]
    strides += [broadcast_strides(operand.shape, out.shape) for operand in moving]
    sizes, steps = merged(out.shape, strides)

    def body(names: list[str]) -> list[str]:
        elements = iter(steps[1:])
        parts = [
            inline(operand) if is_inline(operand) else program.at(operand, index_of(names, next(elements)))
            for operand in operands
        ]
        return [f"{program.at(out, index_of(names, steps[0]))} = {expression.format(*parts)};"]

    program.emit(nest(sizes, body), moving, [out])


def is_inline(value: Value) -> bool:
    """Whether a constant is written into the code as a number."""
    return value.const is not None and value.size == 1 and not (value.learned and value.dtype.kind == "f")


def inline(value: Value) -> str:
    """Return a constant of one element as C writes it."""
    assert value.const is not None
    return literal(value.const.reshape(-1)[0], value.dtype)


def view(value: Value, shape: Sequence[int], *, offset: str | int = 0, name: str | None = None) -> Value:
    """Return the same memory with another shape, from `offset` elements on."""
    const = None if value.const is None else value.const.reshape(tuple(shape))
    place = shifted(value.offset, offset)
    token_ids: Value | None = None
    parts: tuple[Value, ...] = ()
    # What is known of the last axis holds as long as that axis stays as it is, and all elements are there.
    if value.size == math.prod(shape) and shape and value.shape and shape[-1] == value.shape[-1]:
        token_ids = None if value.token_ids is None else view(value.token_ids, shape[:-1])
        parts = tuple(view(part, (*shape[:-1], part.shape[-1])) for part in value.parts)
    return dataclasses.replace(
        value,
        shape=tuple(shape),
        const=const,
        offset=place,
        name=name or value.name,
        token_ids=token_ids,
        parts=parts,
    )


def permuted(program: Program, value: Value, order: Sequence[int], name: str) -> Value:
    """Return `value` with its axes in another order, and the tokens that it is the code of."""
    own = contiguous(value.shape)
    out = strided(
        program, value, [value.shape[axis] for axis in order], [own[axis] for axis in order], 0, name
    )
    token_ids = None
    if value.token_ids is not None and order[-1] == len(order) - 1:
        token_ids = permuted(program, value.token_ids, order[:-1], value.token_ids.name)
    return dataclasses.replace(out, token_ids=token_ids, parts=())


def joined(program: Program, parts: Sequence[Value], axis: int, name: str) -> Value:
    """Return parts side by side along an axis; computed in their place where nothing lies before it."""
    axis %= len(parts[0].shape)
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    if len(parts) == 1:
        return view(parts[0], shape, name=name)
    out = program.new(name, parts[0].dtype, shape)
    strides, begin = contiguous(tuple(shape)), 0
    for part in parts:
        offset = begin * strides[axis]
        if not (math.prod(shape[:axis]) == 1 and program.adopt(out, part, offset)):
            own = contiguous(part.shape)
            copy_strided(program, out, part, part.shape, own, 0, to=strides, to_offset=offset)
        begin += part.shape[axis]
    return dataclasses.replace(out, parts=tuple(parts) if axis == len(shape) - 1 else ())


def strided(
    program: Program, value: Value, shape: Sequence[int], strides: Sequence[int], offset: int, name: str
) -> Value:
    """Return elements of `value` along strides: in place if they are contiguous there, else a copy."""
    shape = tuple(shape)
    straight = contiguous(shape)
    if all(extent == 1 or a == b for extent, a, b in zip(shape, strides, straight, strict=True)):
        return view(program.placed(value), shape, offset=offset, name=name)
    out = program.new(name, value.dtype, shape)
    copy_strided(program, out, value, shape, strides, offset)
    return out


def copy_strided(
    program: Program,
    out: Value,
    value: Value,
    shape: Sequence[int],
    strides: Sequence[int],
    offset: int,
    *,
    to: Sequence[int] | None = None,
    to_offset: int = 0,
) -> None:
    """Emit a copy of `shape` elements, read along `strides` and written along `to` (default: contiguous)."""
    target = list(to) if to is not None else contiguous(tuple(shape))
    sizes, steps = merged(shape, [target, list(strides)])

    def body(names: list[str]) -> list[str]:
        left = program.at(out, shifted(index_of(names, steps[0]), to_offset))
        right = program.at(value, shifted(index_of(names, steps[1]), offset))
        return [f"{left} = {right};"]

    program.emit(nest(sizes, body), [value], [out])
