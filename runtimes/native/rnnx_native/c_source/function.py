"""A program as the text of one C function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rnnx_native.lowering.lower_model import Built
from rnnx_native.program.c_names import distinct
from rnnx_native.program.memory_plan import Plan
from rnnx_native.program.program import ODD_STEP, Program
from rnnx_native.program.values import C_TYPES, Array, Buffer, literal, shown

_TOKEN = re.compile("⟦([0-9]+)⟧")
_COLUMNS = 110


def function(built: Built, plan: Plan, *, model: str, dispatched: Iterable[str]) -> list[str]:
    """Return the lines of a program's function, its tables before it.

    Args:
        built: the program.
        plan: where its scratch memory lies.
        model: prefix of the model's types.
        dispatched: kernels that are called through the table of the instruction set in use.
    """
    program = built.program
    names = _names(program, built)
    used = _used(program)
    lines = []
    for label, array in program.tables.items():
        if any(buffer.label == label for buffer in used.values()):
            lines += [*_table(names_of_table(built, label), array), ""]
    head = f"static void {model}_{program.name}("
    parameters = [
        f"const {model}_kernels *kernels" if _calls(program, dispatched) else "",
        f"const {model}_parameters *w" if any(b.kind == "weight" for b in used.values()) else "",
        *_parameters(program, built, names),
        *(f"{ctype} *{ctype}_area" for ctype in _areas(used, plan)),
        f"int {ODD_STEP}" if _takes_odd_step(program) else "",
    ]
    lines += _wrapped(head, [text for text in parameters if text])
    lines += ["  " + line for line in _locals(program, plan, names, used)]
    if not all(number in used for number in built.parameters.values()):
        for number in built.parameters.values():
            if number not in used:
                lines.append(f"  (void){names[number]};")
    calls = re.compile(rf"\brnnx_({'|'.join(map(re.escape, dispatched))})\(") if dispatched else None
    for statement in program.statements:
        for line in statement.lines:
            text = line
            if not statement.is_comment:
                text = _TOKEN.sub(lambda match: names[int(match[1])], text)
                text = calls.sub(r"kernels->\1(", text) if calls else text
            lines.append("  " * (statement.depth + 1) + text)
    return [*lines, "}"]


def parameter_list(built: Built, plan: Plan, *, dispatched: Iterable[str]) -> list[str]:
    """Return what a function takes in order: `kernels`, `weights`, the ports, `area.TYPE`, `odd_step`."""
    used = _used(built.program)
    found = ["kernels"] if _calls(built.program, dispatched) else []
    found += ["weights"] if any(buffer.kind == "weight" for buffer in used.values()) else []
    found += list(built.parameters)
    found += [f"area.{ctype}" for ctype in _areas(used, plan)]
    return [*found, ODD_STEP] if _takes_odd_step(built.program) else found


def names_of_table(built: Built, label: str) -> str:
    """Return the C name of a table; each program has its own."""
    return f"{built.program.name}_{label}"


def _areas(used: Mapping[int, Buffer], plan: Plan) -> list[str]:
    """Return the C types of scratch memory that is used."""
    return sorted({buffer.ctype for buffer in used.values() if buffer.number in plan.offsets})


def _calls(program: Program, dispatched: Iterable[str]) -> bool:
    text = "\n".join(line for each in program.statements if not each.is_comment for line in each.lines)
    return any(f"rnnx_{kernel}(" in text for kernel in dispatched)


def _takes_odd_step(program: Program) -> bool:
    """Whether a kernel is told the parity of the step."""
    calls = (line for each in program.statements if not each.is_comment for line in each.lines)
    return any(re.search(rf", {ODD_STEP}[,)]", line) for line in calls)


def _used(program: Program) -> dict[int, Buffer]:
    """Return the buffers that the statements name, and those that they lie in."""
    by_number = {buffer.number: buffer for buffer in program.buffers}
    found = {}
    for statement in program.statements:
        for line in () if statement.is_comment else statement.lines:
            for match in _TOKEN.finditer(line):
                buffer = by_number[int(match[1])]
                found[buffer.number] = buffer
                found[buffer.root.number] = buffer.root
    return found


def _names(program: Program, built: Built) -> dict[int, str]:
    """Return a C expression for each buffer: the name of a parameter, local pointer, weight or table."""
    local = [buffer for buffer in program.buffers if buffer.kind not in ("weight", "table")]
    names = dict(zip((buffer.number for buffer in local), distinct(_label(b) for b in local), strict=True))
    for buffer in program.buffers:
        if buffer.kind == "weight":
            names[buffer.number] = f"w->{buffer.label}"
        elif buffer.kind == "table":
            names[buffer.number] = names_of_table(built, buffer.label)
    return names


def _label(buffer: Buffer) -> str:
    """Return what a buffer is called: no function, type or variable of ours or of C is called so."""
    # Those of the caller are `input.NAME`, `state.NAME`, `output.NAME` and `next.NAME`.
    return buffer.label if buffer.kind in ("input", "output") else f"v.{buffer.label}"


def _parameters(program: Program, built: Built, names: Mapping[int, str]) -> list[str]:
    by_number = {buffer.number: buffer for buffer in program.buffers}
    found = []
    for number in built.parameters.values():
        buffer = by_number[number]
        const = "const " if buffer.kind == "input" else ""
        found.append(f"{const}{buffer.ctype} *{names[number]} /* {shown(buffer.shape)} */")
    return found


def _locals(program: Program, plan: Plan, names: Mapping[int, str], used: Mapping[int, Buffer]) -> list[str]:
    """Return declarations of pointers to scratch memory, wholes before their parts."""
    lines = []
    ordered = sorted(used.values(), key=lambda buffer: (_depth(buffer), buffer.number))
    for buffer in ordered:
        if buffer.number in plan.offsets:
            place = f"{buffer.ctype}_area + {plan.offsets[buffer.number]}"
        elif buffer.parent is not None:
            root = names[buffer.root.number]
            place = f"{root} + {buffer.root_offset}" if buffer.root_offset else root
        else:
            continue
        declared = f"{buffer.ctype} *const {names[buffer.number]} = {place};"
        lines.append(f"{declared} /* {shown(buffer.shape)} */")
    return lines


def _depth(buffer: Buffer) -> int:
    return 0 if buffer.parent is None else 1 + _depth(buffer.parent)


def _table(name: str, array: Array) -> list[str]:
    ctype = C_TYPES[array.dtype.name]
    head = f"static const {ctype} {name}[{max(array.size, 1)}] = {{ /* {shown(array.shape)} */"
    return [head, *numbers(array), "};"]


def numbers(array: Array) -> list[str]:
    """Return the elements of an array, separated by commas, in lines of moderate length."""
    flat = array.reshape(-1)
    words = [literal(element, array.dtype) for element in flat] if array.size else ["0"]
    return packed(words)


def packed(words: Sequence[str]) -> list[str]:
    """Return words separated by commas, in lines of moderate length."""
    lines, line = [], " "
    for word in words:
        if len(line) + len(word) + 2 > _COLUMNS:
            lines.append(line)
            line = " "
        line += f" {word},"
    return [*lines, line]


def _wrapped(head: str, parts: Sequence[str]) -> list[str]:
    """Return a function's head, one parameter a line: shapes stand beside them."""
    if not parts:
        return [f"{head}void) {{"]
    lines = [head]
    for index, part in enumerate(parts):
        code, remark, shape = part.partition(" /*")
        end = ") {" if index == len(parts) - 1 else ","
        lines.append(f"    {code}{end}{remark}{shape}")
    return lines


def float_words(array: Array) -> list[str]:
    """Return float32 numbers as C writes them, fast: weights are many."""
    flat = array.astype(np.float32).reshape(-1)
    words = [f"{element:.9g}" for element in flat.tolist()]
    return [f"{word}f" if "." in word or "e" in word or "n" in word else f"{word}.0f" for word in words]
