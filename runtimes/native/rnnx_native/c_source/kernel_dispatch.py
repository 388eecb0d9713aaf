"""The table of kernels that a model calls, one for each instruction set, and the choice between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rnnx_native.c_source import instruction_sets, kernel_text
from rnnx_native.c_source.kernel_text import FOLDER

_HEAD = re.compile(r"^static void rnnx_(\w+)\(([^)]*)\)", re.M)


def used(lines: Iterable[str]) -> list[str]:
    """Return the kernels that lines of C call and that vector instructions make faster, in a fixed order."""
    named = kernel_text.calls(lines)
    return [kernel for kernel in instruction_sets.DISPATCHED if f"rnnx_{kernel}" in named]


def prelude(dispatched: Sequence[str]) -> list[str]:
    """Return what stands before all kernels."""
    return [(FOLDER / "instructions.h").read_text()] if dispatched else []


def kernels(lines: Sequence[str], dispatched: Sequence[str]) -> list[str]:
    """Return the text of all kernels that `lines` need: portable ones, then those of each instruction set."""
    portable = kernel_text.functions()
    wanted = kernel_text.calls(lines) | {f"rnnx_{kernel}" for kernel in dispatched}
    made: dict[str, list[str]] = {}
    for isa in _sets(dispatched):
        text = kernel_text.needed(
            [f"rnnx_{kernel}_{isa.name}" for kernel in dispatched], instruction_sets.kernels(isa)
        )
        made[isa.name] = [f"#if defined({isa.guard})", *(f"{part}\n" for part in text), "#endif", ""]
        wanted |= kernel_text.calls(text)
    parts = [f"{part}\n" for part in kernel_text.needed(wanted, portable)]
    return [*parts, *(line for section in made.values() for line in section)]


def _sets(dispatched: Sequence[str]) -> list[instruction_sets.InstructionSet]:
    """Return the instruction sets that some of these kernels gain by."""
    if not dispatched:
        return []
    bytes_too = any(kernel.endswith("_i8") for kernel in dispatched)
    return [isa for isa in instruction_sets.SETS if bytes_too or isa is not instruction_sets.VNNI]


def table(name: str, dispatched: Sequence[str]) -> list[str]:
    """Return the type of the table, a table for each instruction set, and the function that chooses."""
    if not dispatched:
        return []
    known = kernel_text.functions()
    lines = [f"struct {name}_kernels {{"]
    for kernel in dispatched:
        match = _HEAD.search(known[f"rnnx_{kernel}"])
        assert match is not None, kernel
        lines.append(f"  void (*{kernel})({' '.join(match[2].split())});")
    lines += ["};", f"typedef struct {name}_kernels {name}_kernels;", ""]
    lines.append(_table(name, "portable", [f"rnnx_{kernel}" for kernel in dispatched]))
    for isa in _sets(dispatched):
        entries = [f"rnnx_{kernel}_{isa.name}" for kernel in dispatched]
        lines += [f"#if defined({isa.guard})", _table(name, isa.name, entries), "#endif"]
    dispatch = (FOLDER / "dispatch.c").read_text()
    return [
        *lines,
        "",
        "#if defined(RNNX_X86)",
        dispatch.rstrip("\n"),
        "#endif",
        "",
        "/* The fastest kernels that this processor runs, of a level up to `most` (0: portable). */",
        f"static const {name}_kernels *{name}_choose(int most) {{",
        "#if defined(RNNX_X86)",
        "  const int level = most > 0 ? rnnx_x86_level() : 0;",
        *(
            [f"  if (level > 2 && most > 2) return &{name}_vnni;"]
            if instruction_sets.VNNI in _sets(dispatched)
            else []
        ),
        f"  if (level > 1 && most > 1) return &{name}_avx512;",
        f"  if (level > 0) return &{name}_avx2;",
        "#elif defined(RNNX_ARM64)",
        f"  if (most > 0) return &{name}_neon;",
        "#endif",
        "  (void)most;",
        f"  return &{name}_portable;",
        "}",
        "",
    ]


def _table(name: str, kind: str, entries: Sequence[str]) -> str:
    return f"static const {name}_kernels {name}_{kind} = {{{', '.join(entries)}}};"
