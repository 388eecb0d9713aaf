"""The C that the engine builds: a model's own file, and the entry point for any batch and number of steps."""

from __future__ import annotations

import math

from rnnx.model.contract import Axis, axis_index
from rnnx_native.c_source import kernels, step_functions
from rnnx_native.c_source.files import header, source_text
from rnnx_native.c_source.templates import fill
from rnnx_native.lowering.compiled_model import Unit, program_lines
from rnnx_native.program.memory_plan import WIDTHS
from rnnx_native.program.ports import Port
from rnnx_native.program.program import ODD_STEP


def engine_files(unit: Unit) -> dict[str, str]:
    """Return the files from which the engine's library is built, by path; `engine.c` includes the others."""
    source = source_text(unit, "a model file")
    return {
        f"{unit.name}.h": header(unit, "a model file"),
        f"{unit.name}.c": source,
        "engine.c": engine_text(unit),
        **kernels.files(source),
    }


def engine_text(unit: Unit) -> str:
    """Return the entry point."""
    sig, name = unit.signature, unit.name
    dispatched = kernels.used(program_lines(unit))
    states = [("a", port) for port in sig.states] + [("b", port) for port in sig.states]
    kinds = [("in", port) for port in sig.inputs] + [("out", port) for port in sig.outputs] + states
    blocks = [
        f"  {port.ctype} {direction}_{port.c_name}[{_block_size(port, unit)}];" for direction, port in kinds
    ]
    return fill(
        "engine.c",
        unit,
        "",
        n_inputs=len(sig.inputs),
        n_outputs=len(sig.outputs),
        n_states=len(sig.states),
        n_programs=len(unit.programs),
        input_ports=[_port(port) for port in sig.inputs],
        output_ports=[_port(port) for port in sig.outputs],
        state_ports=[_port(port) for port in sig.states],
        kernels_member=[f"  const {name}_kernels *kernels;"] if dispatched else [],
        kernels_choice=[f"  c->kernels = {name}_choose(level);"] if dispatched else [],
        blocks=blocks,
        areas=step_functions.area_members(unit.areas(list(unit.programs))),
        wrappers=[line for key in unit.programs for line in _wrapper(unit, key, dispatched)],
        program_table=[f"    {{{rows}, {steps}, engine_{rows}_{steps}}}," for rows, steps in unit.programs],
        input_blocks="".join(f"c->in_{port.c_name}, " for port in sig.inputs),
        output_blocks="".join(f"c->out_{port.c_name}, " for port in sig.outputs),
        state_blocks_0="".join(f"c->a_{port.c_name}, " for port in sig.states),
        state_blocks_1="".join(f"c->b_{port.c_name}, " for port in sig.states),
    )


def _block_size(port: Port, unit: Unit) -> int:
    """Return the elements of the largest block of a port."""
    sizes = []
    for rows, steps in unit.programs:
        size = port.size * (steps if port.has_time else 1)
        sizes.append(size * rows // unit.batch if port.has_batch else size)
    return max(sizes)


def _port(port: Port) -> str:
    """Return how a port lies in memory."""
    batch, time = axis_index(port.axes, "batch"), axis_index(port.axes, "time")
    sizes: list[int] = []
    step = iter(port.step)
    for axis in port.axes:
        size = 1 if axis == "time" else next(step)
        sizes.append(1 if Axis.parse(axis).name == "batch" else size)
    marks = sorted(index for index in (batch, time) if index is not None)
    first, last = (marks[0], marks[-1]) if marks else (0, 0)
    factor = sizes[time] if time is not None else 1
    before = math.prod(sizes[:first]) if marks else 1
    middle = math.prod(sizes[first + 1 : last]) if len(marks) == 2 else 1
    after = math.prod(sizes[last + 1 :]) if marks else math.prod(sizes)
    batch_first = time is None or batch is None or batch < time
    if time is not None and time == last:
        after *= factor
    elif time is not None:
        middle *= factor
    width = WIDTHS[port.ctype]
    flags = [batch is not None, time is not None, batch_first, port.is_length]
    entries = [*(int(flag) for flag in flags), before, middle, after * width, width]
    return f"    {{{', '.join(map(str, entries))}}},"


def _wrapper(unit: Unit, key: tuple[int, int], dispatched: list[str]) -> list[str]:
    """Return a function that calls a program with pointers from tables."""
    sig = unit.signature
    tables: dict[str, tuple[str, tuple[Port, ...]]] = {
        "input": ("in", sig.inputs),
        "state": ("state", sig.states),
        "output": ("out", sig.outputs),
        "next": ("next", sig.states),
    }

    def place(name: str) -> str:
        plain = {"kernels": "c->kernels", "weights": "c->weights.parameters", ODD_STEP: "c->odd_step"}
        if name in plain:
            return plain[name]
        kind, _, rest = name.partition(".")
        if kind == "area":
            return f"c->{rest}_area"
        table, ports = tables[kind]
        index = next(i for i, port in enumerate(ports) if port.name == rest)
        const = "const " if kind in ("input", "state") else ""
        return f"({const}{ports[index].ctype} *){table}[{index}]"

    return [
        f"static void engine_{key[0]}_{key[1]}(engine_call *c, void *const *in, void *const *state,",
        "    void *const *out, void *const *next) {",
        "  (void)c, (void)in, (void)state, (void)out, (void)next;",
        *("  " + line for line in step_functions.call_lines(unit, key, dispatched, place)),
        "}",
        "",
    ]
