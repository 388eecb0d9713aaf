"""The functions around the programs: a step, a chunk, many streams at once; in C."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rnnx_native.c_source.function import parameter_list
from rnnx_native.lowering.compiled_model import Unit
from rnnx_native.program.ports import Port
from rnnx_native.program.program import ODD_STEP


def call_lines(
    unit: Unit, key: tuple[int, int], dispatched: Iterable[str], place: Callable[[str], str]
) -> list[str]:
    """Return a call of a program.

    Args:
        unit: the model.
        key: rows and steps of the program.
        dispatched: kernels that are called through the table.
        place: C expression for each parameter: `weights`, `area.TYPE`, `odd_step`, `input.NAME`, ...
    """
    model = unit.name
    built = unit.programs[key]
    arguments = [place(name) for name in parameter_list(built, unit.plans[key], dispatched=dispatched)]
    lines = [f"{model}_{built.program.name}("]
    for index, argument in enumerate(arguments):
        end = ", " if index < len(arguments) - 1 else ");"
        if len(lines[-1]) + len(argument) > 100:
            lines[-1] = lines[-1].rstrip()
            lines.append("    ")
        lines[-1] += argument + end
    return lines


def step_functions(unit: Unit, dispatched: Iterable[str]) -> list[str]:
    """Return model_step and model_run, and what they share; nothing for a model of whole sequences."""
    model, steps = unit.name, unit.chunk
    if (unit.batch, 1) not in unit.programs:
        return []
    lines = [*_one_step(unit, dispatched), ""]
    if unit.chunk > 1:
        lines += [*_one_chunk(unit, dispatched), ""]
    lines += [
        f"void {model}_step({model}_state *s, const {model}_input *input, {model}_output *output) {{",
        f"  {model}_one_step(s, input, 0, output);",
        "}",
        "",
        f"void {model}_run({model}_state *s, const {model}_input *inputs, {model}_output *outputs,",
        "    size_t n_steps) {",
        "  size_t t = 0;",
    ]
    if unit.chunk > 1:
        lines.append(
            f"  for (; n_steps - t >= {steps}; t += {steps}) {model}_one_chunk(s, inputs, t, outputs);"
        )
    lines += [f"  for (; t < n_steps; t++) {model}_one_step(s, inputs, t, outputs + t);", "}", ""]
    if unit.signature.has_free_rows:
        lines += _many(unit, dispatched)
    return lines


def held(port: Port, unit: Unit) -> bool:
    """Whether an input is read once for a whole chunk."""
    return port.is_length or (unit.signature.has_time and not port.has_time)


def _one_step(unit: Unit, dispatched: Iterable[str]) -> list[str]:
    """Return the function that runs step t of a chunk."""
    model = unit.name
    lines = [
        f"static void {model}_one_step({model}_state *s, const {model}_input *inputs, size_t t,",
        f"    {model}_output *output) {{",
        *_buffer_indices(unit),
        *_lengths(unit, 1),
    ]
    if all(held(port, unit) and not port.is_length for port in unit.signature.inputs):
        lines.append("  (void)t;")
    if not unit.signature.inputs:
        lines.append("  (void)inputs;")

    def place(port: Port, kind: str) -> str:
        if kind == "input":
            return _input(port, unit)
        return f"output->{port.c_name}"

    lines += ["  " + line for line in call_lines(unit, (unit.batch, 1), dispatched, _of_state(unit, place))]
    return [*lines, *_done(unit, 1)]


def _one_chunk(unit: Unit, dispatched: Iterable[str]) -> list[str]:
    """Return the function that runs steps t.. at once: their inputs side by side as the graph has them."""
    model = unit.name
    steps = unit.chunk
    lines = [
        f"/* Steps t to t + {steps - 1} at once. */",
        f"static void {model}_one_chunk({model}_state *s, const {model}_input *inputs, size_t t,",
        f"    {model}_output *outputs) {{",
        *_buffer_indices(unit),
        "  size_t step;",
        *_lengths(unit, steps),
    ]
    moved = [port for port in unit.signature.inputs if not held(port, unit)]
    if moved:
        lines.append(f"  for (step = 0; step < {steps}; step++) {{")
        for port in moved:
            lines += _copies(
                port, "time", steps, "step", f"s->work.in_{port.c_name}", f"inputs[t + step].{port.c_name}"
            )
        lines.append("  }")

    def place(port: Port, kind: str) -> str:
        if kind == "input":
            return _input(port, unit) if held(port, unit) else f"s->work.in_{port.c_name}"
        return f"s->work.out_{port.c_name}" if port.has_time else f"outputs[t + {steps - 1}].{port.c_name}"

    lines += [
        "  " + line for line in call_lines(unit, (unit.batch, steps), dispatched, _of_state(unit, place))
    ]
    outputs = [port for port in unit.signature.outputs if port.has_time]
    if outputs:
        lines.append(f"  for (step = 0; step < {steps}; step++) {{")
        for port in outputs:
            lines += _copies(
                port,
                "time",
                steps,
                "step",
                f"s->work.out_{port.c_name}",
                f"outputs[t + step].{port.c_name}",
                back=True,
            )
        lines.append("  }")
    elif not moved:
        lines.remove("  size_t step;")
    return [*lines, *_done(unit, steps)]


def chunk_members(unit: Unit) -> list[str]:
    """Return the members of model_work that hold a chunk as the graph has it."""
    return [f"  {ctype} {name}[{count}];" for name, ctype, count in chunk_arrays(unit)]


def chunk_arrays(unit: Unit) -> list[tuple[str, str, int]]:
    """Return name, C type and number of elements of each of them."""
    if unit.chunk == 1:
        return []
    moved = [("in", port) for port in unit.signature.inputs if not held(port, unit)]
    moved += [("out", port) for port in unit.signature.outputs if port.has_time]
    return [(f"{direction}_{port.c_name}", port.ctype, port.size * unit.chunk) for direction, port in moved]


def _of_state(unit: Unit, place: Callable[[Port, str], str]) -> Callable[[str], str]:
    """Return places of parameters for a call on a model_state; `place` says where inputs and outputs are."""
    ports = {f"{port.kind}.{port.name}": port for port in unit.signature.ports}
    plain = {"kernels": "s->kernels", "weights": "s->weights->parameters", ODD_STEP: "(int)(s->position & 1)"}

    def found(name: str) -> str:
        if name in plain:
            return plain[name]
        kind, _, rest = name.partition(".")
        if kind == "area":
            return f"s->work.{rest}_area"
        if kind in ("state", "next"):
            return f"s->{ports[f'state.{rest}'].c_name}[{'now' if kind == 'state' else 'next'}]"
        return place(ports[name], kind)

    return found


def _input(port: Port, unit: Unit) -> str:
    if port.is_length:
        return f"left_{port.c_name}"
    return f"inputs[{'0' if held(port, unit) else 't'}].{port.c_name}"


def _buffer_indices(unit: Unit) -> list[str]:
    return ["  const int now = s->buffer_index, next = 1 - now;"] if unit.signature.states else []


def _done(unit: Unit, steps: int) -> list[str]:
    swap = ["  s->buffer_index = next;"] if unit.signature.states else []
    return [*swap, f"  s->position += {steps};", "}"]


def _lengths(unit: Unit, steps: int) -> list[str]:
    """Return lines that count how many of the steps from t on are valid, per row."""
    counted = [port for port in unit.signature.inputs if port.is_length]
    lines = [f"  int64_t left_{port.c_name}[{port.size}];" for port in counted] + (
        ["  int row;"] if counted else []
    )
    for port in counted:
        lines += [
            f"  for (row = 0; row < {port.size}; row++) {{",
            f"    const int64_t left = inputs[0].{port.c_name}[row] - (int64_t)t;",
            f"    left_{port.c_name}[row] = left < 0 ? 0 : left > {steps} ? {steps} : left;",
            "  }",
        ]
    return lines


def _copies(
    port: Port, axis: str, count: int, place: str, whole: str, part: str, *, back: bool = False
) -> list[str]:
    """Return lines that copy one step (or row) of a port to `place` along an axis of the whole; or back."""
    before, elements, after = port.lies(axis)
    size = elements * after
    if before == 1:
        there, here = f"{whole} + {place} * {size}", part
        to, source = (here, there) if back else (there, here)
        return [f"    memcpy({to}, {source}, {size} * sizeof({port.ctype}));"]
    there, here = f"{whole} + (i * {count} + {place}) * {size}", f"{part} + i * {size}"
    to, source = (here, there) if back else (there, here)
    return [
        "    {",
        "      size_t i;",
        f"      for (i = 0; i < {before}; i++) memcpy({to}, {source}, {size} * sizeof({port.ctype}));",
        "    }",
    ]


def _many(unit: Unit, dispatched: Iterable[str]) -> list[str]:
    model = unit.name
    head = [
        f"void {model}_step_many({model}_state *states, const {model}_input *inputs,",
        f"    {model}_output *outputs,",
        f"    size_t count, {model}_many *room) {{",
        "  size_t done = 0;",
    ]
    single = f"  for (; done < count; done++) {model}_step(&states[done], &inputs[done], &outputs[done]);"
    if not unit.many:
        return [*head, "  (void)room;", single, "}", ""]
    return [
        *_one_group(unit, dispatched),
        "",
        *head,
        "  /* One batch costs as much as some streams alone; even half empty it is worth it. */",
        f"  while (count - done > {unit.many // 2}) {{",
        f"    size_t rows = count - done < {unit.many} ? count - done : {unit.many}, same = 1;",
        "    while (same < rows && states[done + same].weights == states[done].weights) same++;",
        f"    {model}_one_group(states + done, inputs + done, outputs + done, same, room);",
        "    done += same;",
        "  }",
        single,
        "}",
        "",
    ]


def _one_group(unit: Unit, dispatched: Iterable[str]) -> list[str]:
    """Return the function that steps a group of streams as one batch."""
    model = unit.name
    many, sig = unit.many, unit.signature
    lines = [
        f"/* Up to {many} streams as one batch; rows without a stream repeat the first. */",
        f"static void {model}_one_group({model}_state *states, const {model}_input *inputs,",
        f"    {model}_output *outputs, size_t rows, {model}_many *room) {{",
        "  size_t row;",
        f"  for (row = 0; row < {many}; row++) {{",
        "    const size_t from = row < rows ? row : 0;",
        *(["    const int now = states[from].buffer_index;"] if sig.states else []),
    ]
    for port in (*sig.inputs, *sig.states):
        own = f"inputs[from].{port.c_name}" if port.kind == "input" else f"states[from].{port.c_name}[now]"
        lines += _copies(port, "batch", many, "row", f"room->{port.kind}_{port.c_name}", own)
    lines.append("  }")
    ports = {f"{port.kind}.{port.name}": port for port in sig.ports}

    def place(name: str) -> str:
        plain = {"kernels": "states[0].kernels", "weights": "states[0].weights->parameters"}
        plain |= {ODD_STEP: "(int)(states[0].position & 1)"}
        if name in plain:
            return plain[name]
        kind, _, rest = name.partition(".")
        if kind == "area":
            return f"room->{rest}_area"
        port = ports[f"state.{rest}"] if kind == "next" else ports[name]
        return f"room->{kind}_{port.c_name}"

    lines += ["  " + line for line in call_lines(unit, (many, 1), dispatched, place)]
    lines += ["  for (row = 0; row < rows; row++) {"]
    lines += ["    const int next = 1 - states[row].buffer_index;"] if sig.states else []
    for port in (*sig.outputs, *sig.states):
        kind = "output" if port.kind == "output" else "next"
        own = f"outputs[row].{port.c_name}" if port.kind == "output" else f"states[row].{port.c_name}[next]"
        lines += _copies(port, "batch", many, "row", f"room->{kind}_{port.c_name}", own, back=True)
    lines += ["    states[row].buffer_index = next;"] if sig.states else []
    return [*lines, "    states[row].position++;", "  }", "}"]


def many_members(unit: Unit) -> list[str]:
    """Return the members of model_many: a batch of inputs, states and outputs."""
    if not unit.many:
        return ["  char none;"]
    kinds = [("input", unit.signature.inputs), ("state", unit.signature.states)]
    kinds += [("next", unit.signature.states), ("output", unit.signature.outputs)]
    members = [
        f"  {port.ctype} {kind}_{port.c_name}[{port.size * unit.many}];"
        for kind, ports in kinds
        for port in ports
    ]
    return [*members, *area_members(unit.areas([(unit.many, 1)]))]


def area_members(areas: Mapping[str, int]) -> list[str]:
    """Return the members that are scratch memory."""
    return [f"  {ctype} {ctype}_area[{count}];" for ctype, count in areas.items()]
