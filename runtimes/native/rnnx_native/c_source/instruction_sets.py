"""Kernels for vector instructions: leaves written once for all sets, the rest the portable text over them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from rnnx_native.c_source.kernel_text import FOLDER, functions, split

# Kernels that mostly see a single row, and gain by not having to ask.
LAYERS = ("dense", "rnn", "gru", "lstm")
# Kernels that a program calls through the table of the set in use.
DISPATCHED = (
    "exp_f32",
    "sigmoid_f32",
    "tanh_f32",
    "quantize_i8",
    *(f"{layer}_{kind}" for kind in ("f32", "h16", "i8") for layer in ("project", *LAYERS)),
)


@dataclasses.dataclass(frozen=True)
class InstructionSet:
    """Vector instructions of one kind.

    Attributes:
        name: suffix of the kernels.
        guard: macro that says whether the compiler has them.
        target: macro before each function.
        lanes: floats in a register.
        words: what stands for the operations of vector.c.
        half: what widens half floats to a register.
        bytes: the file of its sums of products of bytes.
        apart: columns to sum apart with one row, by the number of gates.
        part: registers of a column to sum at once with four rows, by the number of gates.
    """

    name: str
    guard: str
    target: str
    lanes: int
    words: Mapping[str, str]
    half: str
    bytes: str
    apart: Mapping[int, int]
    part: Mapping[int, int]


_X86 = {"LOAD": "loadu_ps", "STORE": "storeu_ps", "SET": "set1_ps", "FMA": "fmadd_ps", "ADD": "add_ps"}
_X86 |= {"SUB": "sub_ps", "MUL": "mul_ps", "DIV": "div_ps", "MIN": "min_ps", "MAX": "max_ps"}

AVX512 = InstructionSet(
    "avx512",
    "RNNX_X86",
    "RNNX_AVX512",
    16,
    {"V": "__m512", **{word: f"_mm512_{name}" for word, name in _X86.items()}},
    "rnnx_half_avx512",
    "byte_avx2.c",
    {1: 8, 3: 4, 4: 4},
    {1: 1, 3: 3, 4: 4},
)
AVX2 = InstructionSet(
    "avx2",
    "RNNX_X86",
    "RNNX_AVX2",
    8,
    {"V": "__m256", **{word: f"_mm256_{name}" for word, name in _X86.items()}},
    "rnnx_half_avx2",
    "byte_avx2.c",
    {1: 4, 3: 2, 4: 1},
    {1: 2, 3: 2, 4: 2},
)
NEON = InstructionSet(
    "neon",
    "RNNX_ARM64",
    "RNNX_NEON",
    4,
    {
        "V": "float32x4_t",
        "LOAD": "vld1q_f32",
        "STORE": "vst1q_f32",
        "SET": "vdupq_n_f32",
        "FMA": "rnnx_fma_neon",
        "ADD": "vaddq_f32",
        "SUB": "vsubq_f32",
        "MUL": "vmulq_f32",
        "DIV": "vdivq_f32",
        "MIN": "vminq_f32",
        "MAX": "vmaxq_f32",
    },
    "rnnx_half_neon",
    "byte_neon.c",
    {1: 4, 3: 1, 4: 1},
    {1: 4, 3: 4, 4: 4},
)
# AVX-512 with dot products of bytes: only for weights of 8 bits.
VNNI = dataclasses.replace(
    AVX512, name="vnni", target="RNNX_VNNI", half="rnnx_half_vnni", bytes="byte_vnni.c"
)
SETS = (AVX2, AVX512, VNNI, NEON)


def kernels(isa: InstructionSet) -> dict[str, str]:
    """Return the text of each kernel of an instruction set by name, callees first."""
    own = (FOLDER / f"{'avx512' if isa is VNNI else isa.name}.c").read_text()
    found = split(own.replace("RNNX_AVX512", isa.target).replace("_avx512(", f"_{isa.name}("))
    columns, accumulate, copies, activations = _sections()
    for kind, weight in (("f32", "float"), ("h16", "uint16_t")):
        for gates in (1, 3, 4):
            for rows in (1, 4):
                name = f"rnnx_columns_{gates}x{rows}_{kind}_{isa.name}"
                used = _narrow(isa) if kind == "h16" and rows == 1 and isa.lanes == 16 else isa
                words = {"W": weight, "WEIGHT": used.half if kind == "h16" else used.words["LOAD"]}
                found[name] = _filled(columns, used, {**words, "NAME": name, **_sizes(used, gates, rows)})
        found |= split(_filled(accumulate.replace("KIND", kind), isa, {"W": weight}))
    found |= split(_filled(copies, isa, {})) | split(_filled(activations, isa, {}))
    found |= _sums_of_bytes(isa)
    for name, text in functions().items():
        kernel = name.removeprefix("rnnx_")
        if kernel in DISPATCHED and f"{name}_{isa.name}" not in found:
            made = _retargeted(text, isa)
            found |= split(_with_one_row_apart(made, isa) if kernel.startswith(LAYERS) else made)
    return found


def _narrow(isa: InstructionSet) -> InstructionSet:
    """Return a set with registers of 8 lanes instead of 16: some processors widen 16 halves much slower."""
    half = f"rnnx_half8_{isa.name}"
    return dataclasses.replace(isa, lanes=8, words=AVX2.words, half=half, apart={1: 4, 3: 2, 4: 2})


def _sums_of_bytes(isa: InstructionSet) -> dict[str, str]:
    """Return the sums of products of bytes, for several rows at once where the file knows ROWS."""
    parts = re.split(r"/\* (?:columns|accumulate|end) \*/\n", (FOLDER / isa.bytes).read_text())
    found = {}
    for gates in (1, 3, 4):
        for rows in (1, 4) if "ROWS" in parts[1] else (1,):
            name = f"rnnx_dots_{gates}x{rows}_{isa.name}"
            sizes = {
                "NAME": name,
                "ALONE": _alone(isa, rows),
                "GATES": str(gates),
                "ROWS": str(rows),
                "APART": str(isa.apart[gates] if rows == 1 else 1),
            }
            found[name] = _filled(parts[1], isa, sizes)
    caller = parts[2] or (FOLDER / "byte_rows.c").read_text()
    return found | split(_filled(caller, isa, {}))


def _sizes(isa: InstructionSet, gates: int, rows: int) -> dict[str, str]:
    """Return the numbers of vector.c's sums over columns."""
    vectors = 16 * gates // isa.lanes
    part, apart = (vectors, isa.apart[gates]) if rows == 1 else (isa.part[gates], 1)
    sizes = {"ROWS": str(rows), "VECTORS": str(vectors), "PART": str(part), "APART": str(apart)}
    return {**sizes, "ALONE": _alone(isa, rows)}


def _alone(isa: InstructionSet, rows: int) -> str:
    """Return the macro before sums over columns: those of several rows stand apart from what calls them."""
    return f"{isa.target}_ALONE" if rows > 1 else isa.target


def _sections() -> tuple[str, str, str, str]:
    names = "columns|accumulate|copies|activations|end"
    parts = re.split(rf"/\* (?:{names}) \*/\n", (FOLDER / "vector.c").read_text())
    return parts[1], parts[2], parts[3], parts[4]


def _filled(text: str, isa: InstructionSet, sizes: Mapping[str, str]) -> str:
    words = {**isa.words, **sizes, "LANES": str(isa.lanes), "TARGET": isa.target}
    words |= {word: f"rnnx_{word.lower()}_{isa.name}" for word in ("SCALE", "POWER", "MINUS", "SIGN")}
    text = re.sub(r"\b(" + "|".join(words) + r")\b", lambda match: words[match[1]], text)
    return text.replace("_ISA", f"_{isa.name}")


def _retargeted(text: str, isa: InstructionSet) -> str:
    """Return a portable kernel that calls the leaves of an instruction set."""
    text = re.sub(r"^ */\*.*?\*/\n", "", text, flags=re.S | re.M)
    text = re.sub(r"\b(rnnx_\w+_(?:f32|h16|i8))\b", rf"\1_{isa.name}", text)
    return text.replace("static void", f"static {isa.target} void", 1)


def _with_one_row_apart(text: str, isa: InstructionSet) -> str:
    """Return a kernel as a body that becomes part of two calls, one of them for exactly one row.

    There the compiler drops the loops over rows, and the processor gets far enough ahead to read the next
    block's weights while a cell's long chain of operations waits for itself.
    """
    match = re.match(r"(static \w+) void (\w+)\(([^)]*)\)", text)
    assert match is not None, text
    head, name, parameters = match.groups()
    names = [re.findall(r"\w+", part)[-1] for part in parameters.split(",")]
    body = f"static {isa.target}_INTO void {name}_rows({parameters}){text[match.end() :]}"
    calls = [
        f"{name}_rows({', '.join(rows if each == 'rows' else each for each in names)});"
        for rows in ("1", "rows")
    ]
    choice = f"  if (rows == 1) {calls[0]}\n  else {calls[1]}"
    return f"{body}\n\n{head} void {name}({parameters}) {{\n{choice}\n}}"
