"""How many bytes a compiled model's structures take: a program can plan for them before it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rnnx_native.c_source import kernels, step_functions
from rnnx_native.lowering.compiled_model import Unit, program_lines
from rnnx_native.program.memory_plan import WIDTHS

_POINTER = 8  # of a processor of 64 bits; a smaller one needs less


class Sizes(NamedTuple):
    """Bytes of a stream's state, its room for intermediate results among them, and of that room alone."""

    state: int
    scratch: int


def struct_sizes(unit: Unit) -> Sizes:
    """Return what `sizeof` gives of model_state and model_work on a processor of 64 bits."""
    own = [key for key in unit.programs if key[0] == unit.batch]
    counts = [
        *unit.areas(own).items(),
        *((ctype, count) for _, ctype, count in step_functions.chunk_arrays(unit)),
    ]
    scratch, aligned = _struct(
        [(WIDTHS[ctype], WIDTHS[ctype] * count) for ctype, count in counts] or [(1, 1)]
    )
    pointers = 2 if kernels.used(program_lines(unit)) else 1  # of the weights, and of the kernels
    state, _ = _struct(
        [
            *[(_POINTER, _POINTER)] * pointers,
            (8, 8),  # the position
            (4, 4),  # which buffer is the current one
            *((WIDTHS[port.ctype], 2 * port.size * WIDTHS[port.ctype]) for port in unit.signature.states),
            (aligned, scratch),
        ]
    )
    return Sizes(state, scratch)


def _struct(members: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return size and alignment of a structure, of (alignment, size) of its members in order."""
    end = 0
    for aligned, size in members:
        end += -end % aligned + size
    widest = max(aligned for aligned, _ in members)
    return end + -end % widest, widest
