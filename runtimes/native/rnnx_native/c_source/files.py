"""The files of a compiled model: C for people to read, weights, a test and an example."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rnnx.foreign_text import in_source
from rnnx.formats.snapshot import Snapshot, encode_snapshot
from rnnx.version import __version__
from rnnx_native.c_source import kernels, step_functions
from rnnx_native.c_source.function import float_words, function, numbers, packed
from rnnx_native.c_source.struct_sizes import struct_sizes
from rnnx_native.c_source.templates import fill
from rnnx_native.lowering.compiled_model import Unit, padded_size, parameter_lines, program_lines
from rnnx_native.program.memory_plan import WIDTHS
from rnnx_native.program.ports import Port
from rnnx_native.program.values import Array

_NONE = "/* None are needed. */"
_CODES = {"float": "F", "int": "I", "uint": "U"}


def header(unit: Unit, source: str) -> str:
    """Return the header."""
    sig = unit.signature
    keys = [key for key in unit.programs if key[0] == unit.batch]
    many = [
        "",
        "/* Room for a batch of streams. */",
        f"typedef struct {unit.name}_many {{",
        *step_functions.many_members(unit),
        f"}} {unit.name}_many;",
        "",
        "/* Step an array of streams, each with its own state, as one batch: states[count], inputs[count],",
        " * outputs[count]. One room serves any number of calls, one at a time. */",
        f"void {unit.name}_step_many({unit.name}_state *states, const {unit.name}_input *inputs,",
        f"    {unit.name}_output *outputs, size_t count, {unit.name}_many *room);",
    ]
    held = [port.c_name for port in sig.inputs if step_functions.held(port, unit)]
    loose = [port.c_name for port in sig.outputs if sig.has_time and not port.has_time]
    remarks = f"\n * {', '.join(held)}: one value for the whole chunk, that of inputs[0]." if held else ""
    if loose:
        remarks += f"\n * {', '.join(loose)}: given for the last step only, in outputs[n_steps - 1]."
    return fill(
        "model.h",
        unit,
        source,
        batch=unit.batch,
        chunk=unit.chunk,
        snapshot_bytes=len(_snapshot(unit)) + 32,
        version=__version__,
        **struct_sizes(unit)._asdict(),
        parameter_count=f"{sum(array.size for array in unit.weights.values()):,}",
        parameters=parameter_lines(unit),
        inputs=[_member(port) for port in sig.inputs] or ["  char none; /* this network takes nothing */"],
        outputs=[_member(port) for port in sig.outputs] or ["  char none; /* this network gives nothing */"],
        states=[
            f"  {port.ctype} {port.c_name}[2][{port.size}]; /* {_remark(port)} */" for port in sig.states
        ],
        work=[
            *(
                step_functions.area_members(unit.areas(keys)) + step_functions.chunk_members(unit)
                or ["  char none;"]
            )
        ],
        kernels_member=[f"  const struct {unit.name}_kernels *kernels; /* for this processor */"]
        if kernels.used(program_lines(unit))
        else [],
        held=remarks,
        defaults_declaration=[
            "/* Fill in what may be left out of an input: defaults, and lengths of one step. */",
            f"void {unit.name}_defaults({unit.name}_input *input);",
        ]
        if has_defaults(unit)
        else [],
        many_declaration=many if sig.has_free_rows else [],
    )


def _member(port: Port) -> str:
    return f"  {port.ctype} {port.c_name}[{port.size}]; /* {_remark(port)} */"


def _remark(port: Port) -> str:
    name = "" if port.name == port.c_name else f"{in_source(port.name)} "
    half = "; float16, as its bits" if port.dtype == "float16" else ""
    return f"{name}{in_source(port.shown)}{in_source(port.remark)}{half}"


def has_defaults(unit: Unit) -> bool:
    """Whether a step may leave out some of its input."""
    return any(port.start is not None for port in unit.signature.inputs)


def source_text(unit: Unit, source: str) -> str:
    """Return the network itself."""
    statements = program_lines(unit)
    dispatched = kernels.used(statements)
    programs: list[str] = []
    for key, built in unit.programs.items():
        programs.append(f"/* {key[0]} row{'s' * (key[0] > 1)}, {key[1]} step{'s' * (key[1] > 1)}. */")
        programs += [*function(built, unit.plans[key], model=unit.name, dispatched=dispatched), ""]
    states = unit.signature.states
    return fill(
        "model.c",
        unit,
        source,
        kernels=kernels.includes(statements) or [_NONE],
        table=kernels.table(unit.name, dispatched),
        programs=programs,
        kernels_choice=[f"  s->kernels = {unit.name}_choose(RNNX_LEVEL);"] if dispatched else [],
        reset=[line for port in states for line in _reset(port)],
        defaults=_defaults(unit),
        steps=step_functions.step_functions(unit, dispatched),
        architecture=packed([str(byte) for byte in unit.architecture]),
        header_begin=f"{_c_string(_header_parts(unit)[0])};",
        header_end=f"{_c_string(_header_parts(unit)[1])};",
        state_bytes=sum(_bytes(port) for port in states),
        save=[line for port in _ordered(states) for line in _save(port)],
        load_declarations=[f"  const unsigned char *{_from(port)};" for port in states],
        load=_load(states, unit.name.upper()),
    )


def _reset(port: Port) -> list[str]:
    """Return lines that put a state to its start."""
    target = f"s->{port.c_name}[0]"
    if port.varies:
        return [f"  memcpy({target}, s->weights->parameters->{port.start_name}, sizeof {target});"]
    return _fill(target, port)


def _fill(target: str, port: Port) -> list[str]:
    """Return lines that fill an array with one number, or with those that a start has."""
    assert port.start is not None
    start = port.start.view(np.uint16) if port.dtype == "float16" else port.start
    if not start.any() and not np.signbit(start.astype(np.float64)).any():
        return [f"  memset({target}, 0, sizeof {target});"]
    word = numbers(start.reshape(-1)[:1])[0].strip().rstrip(",")
    if (start == start.flat[0]).all() or (start != start).all():
        return [
            "  {",
            "    size_t i;",
            f"    for (i = 0; i < {port.size}; i++) {target}[i] = {word};",
            "  }",
        ]
    return [
        "  {",
        f"    static const {port.ctype} start[{port.size}] = {{",
        *("    " + line for line in numbers(start)),
        "    };",
        f"    memcpy({target}, start, sizeof start);",
        "  }",
    ]


def _defaults(unit: Unit) -> list[str]:
    if not has_defaults(unit):
        return []
    lines = [f"void {unit.name}_defaults({unit.name}_input *input) {{"]
    for port in unit.signature.inputs:
        if port.start is not None:
            lines += _fill(f"input->{port.c_name}", port)
    return [*lines, "}", ""]


def _ordered(ports: Iterable[Port]) -> list[Port]:
    """Return ports in the order in which a snapshot holds them: the largest elements first."""
    return sorted(ports, key=lambda port: -WIDTHS[port.ctype])


def _bytes(port: Port) -> int:
    return port.size * WIDTHS[port.ctype]


def _snapshot(unit: Unit) -> bytes:
    """Return a snapshot of a state at its start, as Python writes it."""
    states = {port.name: port.start for port in unit.signature.states if port.start is not None}
    return encode_snapshot(Snapshot(unit.id, 0, states))


def _header_parts(unit: Unit) -> tuple[str, str]:
    """Return the header of a snapshot before the model's id, and behind the position."""
    data = _snapshot(unit)
    text = data[8 : 8 + int.from_bytes(data[:8], "little")].decode().rstrip(" ")
    begin, middle, end = text.partition(f'{unit.id}","position":"0')
    assert middle, text
    return begin, end


def _c_string(text: str) -> str:
    """Return text as C string literals, a line each, of moderate length."""
    parts = [text[index : index + 80] for index in range(0, len(text), 80)] or [""]
    return "\n".join(f"    {c_literal(part)}" for part in parts)


def c_literal(text: str) -> str:
    """Return a C string literal of the UTF-8 bytes of `text`."""
    letters = []
    for byte in text.encode():
        letter = chr(byte)
        if letter in '"\\?':
            letters.append("\\" + letter)
        else:
            letters.append(letter if 32 <= byte < 127 else f"\\{byte:03o}")
    return '"' + "".join(letters) + '"'


def _save(port: Port) -> list[str]:
    width = WIDTHS[port.ctype]
    return [
        f"  rnnx_copy(at + place, s->{port.c_name}[s->buffer_index], {_bytes(port)}, {width});",
        f"  place += {_bytes(port)};",
    ]


def _from(port: Port) -> str:
    return f"from_{port.c_name}"


def code(port: Port) -> str:
    """Return the dtype as safetensors spells it, with its quotes."""
    kind = port.dtype.rstrip("0123456789")
    return '"BOOL"' if kind == "bool" else f'"{_CODES[kind]}{port.dtype[len(kind) :]}"'


def _load(states: Iterable[Port], upper: str) -> list[str]:
    """Return lines that find all states, then copy them to the buffer that is not current."""
    lines, copies = [], []
    for port in states:
        width, shape = WIDTHS[port.ctype], f"[{','.join(map(str, port.step))}]"
        key = c_literal(json_text(f"state.{port.name}"))
        wanted = f'{key}, {c_literal(code(port))}, "{shape}", {_bytes(port)}'
        found = f"rnnx_tensor(header, at + data, size - data, {wanted})"
        lines += [
            f"  {_from(port)} =",
            f"      {found};",
            f"  if (!{_from(port)}) return {upper}_WRONG_MODEL;",
        ]
        copies.append(
            f"  rnnx_copy(s->{port.c_name}[1 - s->buffer_index], {_from(port)}, {_bytes(port)}, {width});"
        )
    return [*lines, *copies]


def json_text(text: str) -> str:
    """Return text as it stands inside a JSON string."""
    import json

    return json.dumps(text, ensure_ascii=False)[1:-1]


def weights_text(unit: Unit, source: str) -> str:
    """Return the weights as a constant array."""
    lines = [
        f"/* Weights of {in_source(source)}, in the layout of docs/native.md. Written by `rnnx compile`. */",
        f'#include "{unit.name}.h"',
        "",
        "#include <math.h>",
        "",
        "#if defined(__GNUC__)",
        "__attribute__((aligned(64)))",
        "#elif defined(_MSC_VER)",
        "__declspec(align(64))",
        "#endif",
        f"static const {unit.name}_parameters numbers = {{",
    ]
    for name, array in unit.weights.items():
        lines += [f"  {{ /* {name} */", *packed(_words(array)), "  },"]
    if not unit.weights:
        lines.append("  {0},")
    lines += [
        "};",
        "",
        f"const {unit.name}_weights {unit.name}_default_weights = {{&numbers, {c_literal(unit.id)}}};",
        "",
    ]
    return "\n".join(lines)


def _words(array: Array) -> list[str]:
    """Return the elements of an array and what fills it up to a cache line."""
    if array.dtype in (np.uint16, np.int8):
        words = [str(element) for element in array.reshape(-1).tolist()]
    elif array.dtype == np.float32 and array.size and np.isfinite(array).all():
        words = float_words(array)
    else:
        words = [word for line in numbers(array) for word in line.strip().rstrip(",").split(", ")]
    return words if len(words) == padded_size(array) else [*words, "0"]


def example_text(unit: Unit, source: str) -> str:
    """Return a small program that uses the model."""
    outputs = unit.signature.outputs
    return fill(
        "example.c",
        unit,
        source,
        defaults_call=[f"  {unit.name}_defaults(&input);"] if has_defaults(unit) else [],
        input_list=", ".join(f"input.{port.c_name}[{port.size}]" for port in unit.signature.inputs)
        or "nothing",
        first_output=outputs[0].c_name if outputs else "none",
    )


def cmake_text(unit: Unit, has_trace: bool) -> str:
    """Return a CMake project of library, example and test."""
    name = unit.name
    path = f"${{CMAKE_CURRENT_SOURCE_DIR}}/{name}.trace.safetensors"
    test = f"add_test(NAME {name}_replays_its_trace COMMAND {name}_test {path})"
    return fill("CMakeLists.txt", unit, "", add_test=[test] if has_trace else [])
