"""The kernels that a model calls: which files of `kernels/` it includes, and a table for each set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "kernels"
# Kernels that a program calls through the table of the set in use.
_LAYERS = ("project", "dense", "rnn", "gru", "lstm")
DISPATCHED = (
    "exp_f32",
    "sigmoid_f32",
    "tanh_f32",
    "quantize_i8",
    *(f"{layer}_{kind}" for kind in ("f32", "h16", "i8") for layer in _LAYERS),
)
# Instruction sets by the macro that says whether the compiler has them, each with its level, the best last.
_SETS = {"RNNX_X86": (("avx2", 1), ("avx512", 2), ("vnni", 3)), "RNNX_ARM64": (("neon", 1),)}
_PLAIN = ("activations.h", "activations_f64.h", "half.h", "row.h")  # included once, for no kind and no set
_CALL = re.compile(r"\brnnx_(\w+)\(")
_INCLUDED = re.compile(r'"(\w+\.h)"')


def used(lines: Iterable[str]) -> list[str]:
    """Return the kernels that lines of C call and that vector instructions make faster, in a fixed order."""
    return _dispatched(_called(lines))


def _dispatched(named: set[str]) -> list[str]:
    return [kernel for kernel in DISPATCHED if kernel in named]


def _called(lines: Iterable[str]) -> set[str]:
    return {name for line in lines for name in _CALL.findall(line)}


def includes(lines: Iterable[str]) -> list[str]:
    """Return the lines that include all kernels that `lines` call, portable ones first."""
    named = _called(lines)
    dispatched = _dispatched(named)
    plain = [name for name in _PLAIN if named & set(_CALL.findall((FOLDER / name).read_text()))]
    if dispatched and "activations.h" not in plain:
        plain.insert(0, "activations.h")
    made = [_include(name) for name in (*(["instructions.h"] if dispatched else []), *plain)]
    portable = _kinds(named, ("f32", "f64", "h16", "i8"))
    if portable:
        made += ["", *map(_include, ("portable.h", *portable))]
    for guard, sets in _sets(dispatched):
        made += ["", f"#if defined({guard})"]
        for name, _ in sets:
            made += map(_include, (f"{name}.h", *_kinds(dispatched, ("f32", "h16", "i8"))))
        made.append("#endif")
    return [*made, "", _include("end.h")] if portable or dispatched else made


def _include(name: str) -> str:
    return f'#include "kernels/{name}"'


def _kinds(named: Iterable[str], kinds: Iterable[str]) -> list[str]:
    """Return the files of kinds of weights, each before those of its layers."""
    found = []
    for kind in kinds:
        layers = [f"{layer}.h" for layer in _LAYERS if f"{layer}_{kind}" in named]
        if layers or f"quantize_{kind}" in named:
            found += [f"{kind}.h", *layers]
    return found


def files(text: str) -> dict[str, str]:
    """Return the files of kernels that a C file includes, and all that these include, by path."""
    found: dict[str, str] = {}
    queue = re.findall(r'^#include "kernels/(\w+\.h)"$', text, re.M)
    while queue:
        name = queue.pop()
        if f"kernels/{name}" not in found:
            found[f"kernels/{name}"] = (FOLDER / name).read_text()
            queue += _INCLUDED.findall(found[f"kernels/{name}"])
    return dict(sorted(found.items()))


def _sets(dispatched: Sequence[str]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return the instruction sets that some of these kernels gain by, VNNI only with weights of 8 bits."""
    if not dispatched:
        return []
    most = 3 if any(kernel.endswith("_i8") for kernel in dispatched) else 2
    return [(guard, [each for each in sets if each[1] <= most]) for guard, sets in _SETS.items()]


def table(name: str, dispatched: Sequence[str]) -> list[str]:
    """Return the type of the table, a table for each instruction set, and the function that chooses."""
    if not dispatched:
        return []
    lines = [f"struct {name}_kernels {{"]
    for kernel in dispatched:
        what, kind = kernel.rsplit("_", 1)
        lines.append(f"  rnnx_{what}_kernel_{kind} *{kernel};")
    lines += ["};", f"typedef struct {name}_kernels {name}_kernels;", ""]
    lines.append(_table(name, "portable", [f"rnnx_{kernel}" for kernel in dispatched]))
    choices = []
    for guard, sets in _sets(dispatched):
        tables = [_table(name, each, [f"rnnx_{kernel}_{each}" for kernel in dispatched]) for each, _ in sets]
        lines += [f"#if defined({guard})", *tables, "#endif"]
        choices += [f"#if defined({guard})", "  const int level = rnnx_level();"]
        for each, least in reversed(sets):
            choices.append(f"  if (level >= {least} && most >= {least}) return &{name}_{each};")
        choices.append("#endif")
    return [
        "",
        *lines,
        "",
        "/* The fastest kernels that this processor runs, of a level up to `most` (0: portable). */",
        f"static const {name}_kernels *{name}_choose(int most) {{",
        *choices,
        "  (void)most;",
        f"  return &{name}_portable;",
        "}",
        "",
    ]


def _table(name: str, kind: str, entries: Sequence[str]) -> str:
    return f"static const {name}_kernels {name}_{kind} = {{{', '.join(entries)}}};"
