"""RNN, GRU and LSTM over time: the inputs of all steps projected at once, then one kernel a step.

Equations: those of the ONNX operators, which hold PyTorch's. Rows past their length give zeros, and a row of
length 0 leaves zeros as its state, as ONNX Runtime has it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from rnnx_native.lowering.lower import Inputs, Lowering, constant, op
from rnnx_native.lowering.ops.cells import plain_step
from rnnx_native.lowering.ops.layer import GATES, Layer, read_layer
from rnnx_native.lowering.ops.linear import coded_rows
from rnnx_native.onnx_graph.read import Node
from rnnx_native.program import pack_weights
from rnnx_native.program.loop_nests import copy_strided, elementwise, nest, view
from rnnx_native.program.memory_plan import WIDTHS
from rnnx_native.program.program import ODD_STEP
from rnnx_native.program.values import Array, Buffer, Value, contiguous

# Bytes that fit into a cache of the second level, with room for what else a step reads.
FITS = 1 << 19

Results = tuple[Value, Value, Value | None]  # y [time, batch, units]; h and c [batch, units]


@op(
    "RNN 7-22 activation_alpha activation_beta activations clip direction hidden_size layout",
    "GRU 7-22 activation_alpha activation_beta activations clip direction hidden_size layout "
    "linear_before_reset",
    "LSTM 7-22 activation_alpha activation_beta activations clip direction hidden_size input_forget layout",
)
def recurrent(low: Lowering, node: Node, inputs: Inputs) -> list[Value]:
    """Write a recurrent node, one direction after the other."""
    count = 2 if node.attributes.get("direction", "forward") == "bidirectional" else 1
    found = [_direction(low, read_layer(low, node, inputs, index)) for index in range(count)]
    names = [*node.outputs, "", "", ""][:3]
    time, batch, units = found[0][0].shape
    y = _beside(low, [result[0] for result in found], names[0] or f"{node.name}.y")
    h = _stacked(low, [result[1] for result in found], names[1] or f"{node.name}.h")
    results = [view(y, (time, count, batch, units)), h]
    cells = [result[2] for result in found if result[2] is not None]
    return [*results, _stacked(low, cells, names[2] or f"{node.name}.c")] if cells else results


def _beside(low: Lowering, values: list[Value], name: str) -> Value:
    """Return y of all directions, [time, directions, batch, units]."""
    if len(values) == 1:
        return values[0]
    time, batch, units = values[0].shape
    shape = (time, len(values), batch, units)
    out = low.program.new(name, values[0].dtype, shape)
    steps = [len(values) * batch * units, units, 1]
    for index, value in enumerate(values):
        own = contiguous(value.shape)
        offset = index * batch * units
        copy_strided(low.program, out, value, value.shape, own, 0, to=steps, to_offset=offset)
    return out


def _stacked(low: Lowering, values: list[Value], name: str) -> Value:
    """Return h or c of all directions, [directions, batch, units]."""
    if len(values) == 1:
        return view(values[0], (1, *values[0].shape))
    out = low.program.new(name, values[0].dtype, (len(values), *values[0].shape))
    for index, value in enumerate(values):
        offset = index * value.size
        if not low.program.adopt(out, value, offset):
            own = contiguous(value.shape)
            copy_strided(low.program, out, value, value.shape, own, 0, to=own, to_offset=offset)
    return out


def _direction(low: Lowering, layer: Layer) -> Results:
    if layer.lengths is None and layer.x.shape[0] == 1:
        return _single(low, layer)
    return _many(low, layer)


def _single(low: Lowering, layer: Layer) -> Results:
    """Write one step, the input's product in the same kernel."""
    program, batch, units = low.program, layer.x.shape[1], layer.units
    h = program.new(f"{layer.label}.h", layer.x.dtype, (batch, units))
    c = program.new(f"{layer.label}.c", layer.x.dtype, (batch, units)) if layer.c is not None else None
    if layer.fused:
        fused = Fused(low, layer)
        fused.step(h, c, layer.h, layer.c, fused.start(None, layer.x), odd_step=ODD_STEP)
    else:
        plain_step(low, layer, h, c, layer.h, layer.c, layer.x)
    return view(h, (1, batch, units)), h, c


def _many(low: Lowering, layer: Layer) -> Results:
    """Write a loop over time."""
    program = low.program
    time, batch, _ = layer.x.shape
    units, size = layer.units, batch * layer.units
    y = program.new(f"{layer.label}.y", layer.x.dtype, (time, batch, units))
    h = _own(low, layer.h, f"{layer.label}.h")
    c = None if layer.c is None else _own(low, layer.c, f"{layer.label}.c")
    fused = Fused(low, layer) if layer.fused else None
    projected = fused.project() if fused else None
    with program.loop(time) as iteration:
        place = f"({time - 1} - {iteration})" if layer.backwards else iteration
        new_h = program.new(f"{layer.label}.h_new", layer.x.dtype, (batch, units))
        new_c = None if c is None else program.new(f"{layer.label}.c_new", layer.x.dtype, (batch, units))
        if fused is not None:
            fused.step(new_h, new_c, h, c, fused.start(place, projected), odd_step=f"{iteration} & 1")
        else:
            features = layer.x.shape[2]
            x = view(program.placed(layer.x), (1, batch, features), offset=f"{place} * {batch * features}")
            plain_step(low, layer, new_h, new_c, h, c, x)
        pairs = [(h, new_h)] + ([(c, new_c)] if c is not None and new_c is not None else [])
        _keep(low, layer, pairs, view(y, (batch, units), offset=f"{place} * {size}"), place)
    if layer.lengths is not None:
        for state in [h] if c is None else [h, c]:
            counts = view(layer.lengths, (batch, 1))
            zeroed = constant("zero", np.zeros((), layer.lengths.dtype))
            elementwise(program, state, [counts, zeroed, state], "{0} > {1} ? {2} : 0")
    return y, h, c


def _own(low: Lowering, value: Value, name: str) -> Value:
    out = low.program.new(name, value.dtype, value.shape)
    copy_strided(low.program, out, value, value.shape, contiguous(value.shape), 0)
    return out


def _keep(low: Lowering, layer: Layer, pairs: list[tuple[Value, Value]], y: Value, place: str) -> None:
    """Write a step's results over the old state, and into y; rows past their length keep theirs."""
    new_h = pairs[0][1]
    if layer.lengths is None:
        for state, new in pairs:
            copy_strided(low.program, state, new, new.shape, contiguous(new.shape), 0)
        copy_strided(low.program, y, new_h, new_h.shape, contiguous(new_h.shape), 0)
        return
    counts = view(layer.lengths, (layer.x.shape[1], 1))
    for state, new in pairs:
        elementwise(low.program, state, [counts, new, state], f"{{0}} > {place} ? {{1}} : {{2}}")
    elementwise(low.program, y, [counts, new_h], f"{{0}} > {place} ? {{1}} : 0")


@dataclasses.dataclass(frozen=True)
class Start:
    """What a step's sums begin with.

    Attributes:
        sums: rows of them, [..., blocks * gates * 16].
        stride: elements from one row to the next; 0 if all streams share one.
        places: which row each stream has, int64 [batch]; None if they lie in the streams' order.
        x: the input whose product is still to be added, None if the sums hold it.
    """

    sums: Value
    stride: int
    places: Value | None = None
    x: Value | None = None


class Fused:
    """The call of a cell's kernel, its weights packed."""

    def __init__(self, low: Lowering, layer: Layer) -> None:
        self.low = low
        self.layer = layer
        # Gates stand in ONNX's order, which is the kernels' own.
        # GRU: the hidden state's bias stays apart, since the reset gate multiplies that of n.
        start = layer.wb if layer.node.op == "GRU" else layer.wb + layer.rb
        self.stride = pack_weights.blocks(layer.units) * GATES[layer.node.op] * pack_weights.LANES
        self.rows = self._token_rows(start)
        self.wh, self.kind = self._matrix(layer.r, "hidden_tiles")
        self.hidden = None
        if layer.node.op == "GRU":
            self.hidden = self._constant(pack_weights.starts(layer.rb), "hidden_start")
        if self.rows is None:
            self.bias = self._constant(pack_weights.starts(start), "start")
            self.wx, _ = self._matrix(layer.w, "input_tiles")

    def _constant(self, array: Array, what: str) -> Buffer:
        return self.low.program.constant(array, f"{self.layer.label}_{what}", learned=self.layer.learned)

    def _matrix(self, array: Array, what: str) -> tuple[Buffer, str]:
        return self.low.program.matrix(array, f"{self.layer.label}_{what}", learned=self.layer.learned)

    def _token_rows(self, start: Array) -> Buffer | None:
        """Return start + wx x for each token that x may be a code of, and for no token."""
        layer = self.layer
        weight = layer.w.reshape(-1, layer.w.shape[2]).T  # [features, gates * units]
        products = coded_rows(layer.x, weight)
        if products is None:
            return None
        columns = products.T.reshape(layer.w.shape[0], layer.units, -1)
        rows = pack_weights.packed_tiles(columns).transpose(1, 0, 2, 3)  # [tokens, blocks, gates, 16]
        every = np.concatenate([rows, np.zeros_like(rows[:1])]) + pack_weights.starts(start)[None]
        return self._constant(every.astype(start.dtype), "token_rows")

    def start(self, place: str | None, x: Value | None) -> Start:
        """Return what a step starts from.

        Args:
            place: number of the step, None if there is only one.
            x: of several steps their product, as `project` gives it; of one step the input itself.
        """
        layer, batch = self.layer, self.layer.x.shape[1]
        if self.rows is not None:
            return self._looked_up(place)
        assert x is not None
        if place is None:
            return Start(
                Value(f"{layer.label}.start", layer.x.dtype, (self.stride,), buffer=self.bias), 0, x=x
            )
        return Start(view(x, (batch, self.stride), offset=f"{place} * {batch * self.stride}"), self.stride)

    def _looked_up(self, place: str | None) -> Start:
        """Return the rows that the tokens of a step stand for."""
        layer, program = self.layer, self.low.program
        batch, ids = layer.x.shape[1], layer.x.token_ids
        assert self.rows is not None
        assert ids is not None
        rows = Value(f"{layer.label}.token_rows", layer.x.dtype, self.rows.shape, buffer=self.rows)
        count, first = self.rows.shape[0] - 1, "0" if place is None else f"{place} * {batch}"
        if batch == 1:
            row = f"rnnx_row({program.at(ids, first)}, {count})"
            return Start(view(rows, (1, self.stride), offset=f"{row} * {self.stride}"), self.stride)
        places = program.new(f"{layer.label}.places", np.int64, (batch,))
        row = f"(int64_t)rnnx_row({program.at(ids, f'{first} + i0')}, {count})"
        program.emit(nest([batch], lambda names: [f"{program.at(places, 'i0')} = {row};"]), [ids], [places])
        return Start(rows, self.stride, places)

    def project(self) -> Value | None:
        """Emit the input's product for all steps as [time * batch, blocks, gates, 16]; None for tokens."""
        layer, program = self.layer, self.low.program
        if self.rows is not None:
            return None
        time, batch, features = layer.x.shape
        gates, count = GATES[layer.node.op], pack_weights.blocks(layer.units)
        out = program.new(
            f"{layer.label}.projected", layer.x.dtype, (time * batch, count, gates, pack_weights.LANES)
        )
        ref, x = program.ref, layer.x
        if self.kind == "i8":
            x, features = program.in_bytes(x, features), pack_weights.padded_bytes(features)
        arguments = f"{features}, {gates}, {count}, {time * batch}"
        call = f"({ref(out)}, {ref(x)}, {self.wx.token}, {self.bias.token}, {arguments});"
        program.emit([f"rnnx_project_{self.kind}{call}"], [x], [out])
        program.use(self.wx, self.bias)
        return out

    def step(
        self, h: Value, c: Value | None, h_old: Value, c_old: Value | None, start: Start, *, odd_step: str
    ) -> None:
        """Emit one step from `h_old` and `c_old`.

        Args:
            odd_step: the parity of the step. Large weights are walked to and fro: where they just exceed a
                cache, a step finds in it what the one before read last.
        """
        layer, program = self.layer, self.low.program
        ref, rows, units = program.ref, layer.x.shape[1], layer.units
        new, old = [h], [h_old]
        if c is not None and c_old is not None:
            new, old = [h, c], [h_old, c_old]
        # The product takes h, in bytes if weights are; beside it an LSTM needs c, and a GRU h in floats.
        apart = {"LSTM": old[1:], "GRU": old, "RNN": []}[layer.node.op]
        arguments = [ref(value) for value in (*new, *apart, start.sums)]
        arguments += [str(start.stride), "NULL" if start.places is None else ref(start.places)]
        x, wx = start.x, None
        if self.hidden is not None:
            arguments.append(self.hidden.token)
        if x is not None:
            wx, features = self.wx, x.shape[2]
            if self.kind == "i8":
                x, features = program.in_bytes(x, features), pack_weights.padded_bytes(features)
            arguments += [wx.token, ref(x), str(features)]
        else:
            arguments += ["NULL", "NULL", "0"]
        hidden, width = h_old, units
        if self.kind == "i8":
            hidden, width = program.in_bytes(h_old, units), pack_weights.padded_bytes(units)
        arguments += [self.wh.token, ref(hidden), str(width), str(units), str(rows)]
        if layer.node.op == "RNN":
            arguments.append(str(int(layer.relu)))
        large = self.wh.size * WIDTHS[self.wh.ctype] > FITS and rows < 4  # with more rows, sums take the time
        arguments.append(odd_step if large else "0")
        name = f"rnnx_{layer.node.op.lower()}_{self.kind}"
        token_ids = layer.x.token_ids if self.rows is not None else None
        reads = [
            *old,
            hidden,
            start.sums,
            *(each for each in (x, start.places, token_ids) if each is not None),
        ]
        program.emit([f"{name}({', '.join(arguments)});"], reads, new)
        program.use(*(buffer for buffer in (self.wh, self.hidden, wx) if buffer is not None))
