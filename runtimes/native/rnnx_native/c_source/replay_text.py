"""The test of a compiled model: a C program that replays a trace."""

from __future__ import annotations

from rnnx_native.c_source.files import c_literal, code, has_defaults, json_text
from rnnx_native.c_source.templates import fill
from rnnx_native.lowering.compiled_model import Unit, step_axes
from rnnx_native.program.memory_plan import WIDTHS
from rnnx_native.program.ports import Port


def replay_text(unit: Unit, source: str) -> str:
    """Return a program that replays a trace."""
    sig = unit.signature
    counted = [port for port in sig.inputs if port.is_length]
    lengths = []
    for port in counted:
        lengths = [
            "      for (r = 0; r < BATCH; r++) {",
            "        const int64_t left = lengths[r] - (int64_t)t;",
            "        const int64_t valid = left < 0 ? 0 : left > (int64_t)n ? (int64_t)n : left;",
            f"        inputs[j].{port.c_name}[r] = counted ? valid : (int64_t)n;",
            "      }",
        ]
    return fill(
        "test.c",
        unit,
        source,
        trace_name=f"{unit.name}.trace.safetensors",
        ports=[line for port in sig.ports for line in _test_port(port, unit)],
        fill_defaults=[f"      {unit.name}_defaults(&inputs[j]);"] if has_defaults(unit) else [],
        fill_lengths=lengths,
    )


def _test_port(port: Port, unit: Unit) -> list[str]:
    """Return a port as an entry of the test's table."""
    name = c_literal(json_text(f"{port.kind}.{port.name}"))
    tolerance = c_literal(json_text(f'"{json_text(f"{port.kind}.{port.name}")}"'))
    axes = step_axes(port)
    batch = axes.index("batch") if "batch" in axes else -1
    before, _, after = port.lies("batch") if batch >= 0 else (1, 1, port.size)
    has_time = port.has_time or not unit.signature.has_time
    rows = port.kind != "input" or (has_time and not port.is_length)
    at_end = port.kind == "output" and not has_time
    optional = port.kind == "input" and port.start is not None
    shape = ", ".join(map(str, port.step)) or "0"
    flags = ", ".join(str(int(flag)) for flag in (rows, at_end, port.is_length, optional))
    return [
        f"    {{{name}, {tolerance}, {c_literal(code(port))}, '{port.kind[0]}', {flags}, {batch},",
        f"     offsetof({unit.name}_{port.kind}, {port.c_name}), {WIDTHS[port.ctype]}, {before}, {after}, "
        f"{port.size}, {len(port.step)}, {{{shape}}}, NULL, 0, 0, 0, 0}},",
    ]
