"""Memory of a program: what is never used is dropped, what is never alive together shares its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rnnx_native.program.program import Program, Statement
from rnnx_native.program.values import Buffer

CACHE_LINE = 64
WIDTHS = {
    "float": 4,
    "double": 8,
    "int8_t": 1,
    "int16_t": 2,
    "int32_t": 4,
    "int64_t": 8,
    "uint8_t": 1,
    "uint16_t": 2,
    "uint32_t": 4,
    "uint64_t": 8,
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where the scratch buffers of a program lie.

    Each C type has an area of its own: memory that is read as one type and written as another would let a
    compiler reorder the two.

    Attributes:
        offsets: first element by number of the buffer, in the area of its type.
        areas: elements of each area, by C type.
    """

    offsets: Mapping[int, int]
    areas: Mapping[str, int]


def prune(program: Program) -> None:
    """Drop statements that nothing depends on, and comments and loops left empty."""
    needed = {buffer.number for buffer in program.buffers if buffer.kind == "output"}
    kept: set[int] = set()
    grown = True
    while grown:
        grown = False
        for index, statement in enumerate(program.statements):
            if index in kept or not any(buffer.root.number in needed for buffer in statement.writes):
                continue
            kept.add(index)
            needed.update(buffer.root.number for buffer in statement.reads)
            grown = True
    marks = [
        statement
        for index, statement in enumerate(program.statements)
        if index in kept or not statement.writes
    ]
    program.statements = _without_empty(marks)


def _without_empty(statements: list[Statement]) -> list[Statement]:
    """Leave out comments that nothing follows, and loops around nothing."""
    kept: list[Statement] = []  # from the end
    for statement in reversed(statements):
        after = kept[-1] if kept else None
        if statement.is_comment and (after is None or after.is_comment or after.loop == "close"):
            continue
        if statement.loop == "open" and after is not None and after.loop == "close":
            kept.pop()
            continue
        kept.append(statement)
    return kept[::-1]


def plan(program: Program) -> Plan:
    """Return a place for each scratch buffer, first fit in the order of first use."""
    lives = _lives(program)
    roots = {
        buffer.number: buffer for buffer in program.buffers if buffer.kind == "scratch" and not buffer.parent
    }
    offsets: dict[int, int] = {}
    areas: dict[str, int] = {}
    for number in sorted(lives, key=lambda number: lives[number]):
        if number not in roots:
            continue
        buffer = roots[number]
        size = _rounded(buffer)
        others = sorted(
            (offsets[other], offsets[other] + _rounded(roots[other]))
            for other in offsets
            if roots[other].ctype == buffer.ctype and _together(lives[other], lives[number])
        )
        place = 0
        for begin, end in others:
            if place + size <= begin:
                break
            place = max(place, end)
        offsets[number] = place
        areas[buffer.ctype] = max(areas.get(buffer.ctype, 0), place + size)
    return Plan(offsets, areas)


def _rounded(buffer: Buffer) -> int:
    """Return a number of elements that ends at a cache line."""
    step = CACHE_LINE // WIDTHS[buffer.ctype]
    return -(-max(buffer.size, 1) // step) * step


def _together(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _lives(program: Program) -> dict[int, tuple[int, int]]:
    """Return the first and last statement that uses each root buffer.

    What is used both inside and outside a loop lives through all of its iterations, and so does what a loop
    fills part by part.
    """
    uses: dict[int, list[int]] = {}
    whole = {buffer.root.number for buffer in program.buffers if buffer.outside}
    loops, open_loops = [], []
    for index, statement in enumerate(program.statements):
        for buffer in (*statement.reads, *statement.writes):
            uses.setdefault(buffer.root.number, []).append(index)
        if statement.loop == "open":
            open_loops.append(index)
        elif statement.loop == "close":
            loops.append((open_loops.pop(), index))
    lives = {}
    for number, places in uses.items():
        first, last = places[0], places[-1]
        grown = True
        while grown:
            grown = False
            for begin, end in loops:
                inside = any(begin < place < end for place in places)
                crosses = first < begin or last > end or number in whole
                if inside and crosses and not (first <= begin and last >= end):
                    first, last, grown = min(first, begin), max(last, end), True
        lives[number] = (first, last)
    return lives
