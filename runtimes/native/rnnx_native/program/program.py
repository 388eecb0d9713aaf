"""A program: statements of C over buffers, in the order in which they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from rnnx_native.program import pack_weights
from rnnx_native.program.c_names import identifier
from rnnx_native.program.values import C_TYPES, Array, Buffer, Shape, Value, shifted

# What a program's function calls the parity of its step, 0 and 1 by turns.
ODD_STEP = "odd_step"


@dataclasses.dataclass
class Statement:
    """Some lines of C.

    Attributes:
        lines: C, buffers named by their tokens.
        reads, writes: buffers.
        depth: number of loops of the program around it.
        loop: "open" or "close" where it begins or ends such a loop.
    """

    lines: list[str]
    reads: list[Buffer]
    writes: list[Buffer]
    depth: int = 0
    loop: str = ""

    @property
    def is_comment(self) -> bool:
        """Whether it is a remark and computes nothing."""
        return bool(self.lines) and self.lines[0].startswith("/*") and not self.writes


class Weights:
    """The learned constants of all programs of a model, each once, in order of first use.

    Attributes:
        kind: what the matrices of float32 networks are stored in, `f32`, `f16` or `int8`.
        arrays: by name.
    """

    def __init__(self, kind: str = "f32") -> None:
        self.kind = kind
        self.arrays: dict[str, Array] = {}
        self._known: dict[tuple[str, str, bytes], str] = {}

    def add(self, name: str, array: Array) -> str:
        """Return the name under which `array` lies in the weights.

        One parameter that is used twice lies there once. Two parameters never share a place, even if they are
        equal today: other weights of the same architecture must find the same layout.
        """
        array = np.ascontiguousarray(array)
        key = (name, f"{array.dtype.str}{array.shape}", array.tobytes())
        if key not in self._known:
            base = identifier(name)
            unique, count = base, 2
            while unique in self.arrays:
                unique, count = f"{base}_{count}", count + 1
            self.arrays[unique] = array
            self._known[key] = unique
        return self._known[key]


class Program:
    """What a model computes at one batch and one number of steps.

    Attributes:
        name: of the C function.
        statements: in order.
        buffers: all of them, parts of others included.
        tables: constants that are code rather than weights, by name.
    """

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self.weights = weights
        self.statements: list[Statement] = []
        self.buffers: list[Buffer] = []
        self.tables: dict[str, Array] = {}
        self._depth = 0
        self._loops = 0
        self._constants: dict[tuple[str, str, bytes], Buffer] = {}

    def buffer(self, kind: str, ctype: str, shape: Shape, label: str) -> Buffer:
        """Return a new buffer."""
        size = int(np.prod(shape, dtype=np.int64)) if shape else 1
        made = Buffer(len(self.buffers), kind, ctype, size, label, shape)
        self.buffers.append(made)
        return made

    def new(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int]) -> Value:
        """Return a value in fresh scratch memory."""
        kind, shape = np.dtype(dtype), tuple(int(extent) for extent in shape)
        return Value(name, kind, shape, buffer=self.buffer("scratch", C_TYPES[kind.name], shape, name))

    def constant(self, array: Array, name: str, *, learned: bool = True) -> Buffer:
        """Return the buffer of a constant: a weight if it is learned, else a table in the code."""
        array = np.ascontiguousarray(array)
        if array.dtype == np.bool_:
            array = array.astype(np.uint8)
        key = (name if learned else "", f"{array.dtype.str}{array.shape}", array.tobytes())
        if key not in self._constants:
            kind = "weight" if learned else "table"
            found = self.buffer(kind, C_TYPES[array.dtype.name], array.shape, name)
            found.label = self.weights.add(name, array) if learned else f"table_{found.number}"
            if not learned:
                self.tables[found.label] = array
            self._constants[key] = found
        return self._constants[key]

    def matrix(self, weights: Array, name: str, *, learned: bool) -> tuple[Buffer, str]:
        """Return the buffer of packed weights [gates, units, columns], and the suffix of their kernels.

        Raises:
            OverflowError: a weight is too large for float16.
        """
        packed = pack_weights.packed_tiles(weights)
        if weights.dtype != np.float32:
            return self.constant(packed, name, learned=learned), "f64"
        if self.weights.kind == "f32" or not learned:
            return self.constant(packed, name, learned=learned), "f32"
        if self.weights.kind == "int8":
            return self.constant(pack_weights.packed_byte_tiles(weights), name, learned=learned), "i8"
        with np.errstate(over="ignore"):
            halves = packed.astype(np.float16)
        if not np.isfinite(halves[np.isfinite(packed)]).all():
            largest = np.abs(weights).max()
            raise OverflowError(f"{name} has a weight of {largest:g}, and float16 ends at 65504")
        return self.constant(halves.view(np.uint16), name, learned=learned), "h16"

    def in_bytes(self, x: Value, columns: int) -> Value:
        """Emit the scaling of x [rows, columns] to 8 bits; return uint8 [rows, bytes of a row]."""
        rows = x.size // columns
        out = self.new(f"{x.name}.bytes", np.uint8, (rows, pack_weights.padded_bytes(columns)))
        self.emit([f"rnnx_quantize_i8({self.ref(out)}, {self.ref(x)}, {columns}, {rows});"], [x], [out])
        return out

    def placed(self, value: Value) -> Value:
        """Return `value` in a buffer: constants are put into the weights or the code."""
        if value.buffer is not None:
            return value
        assert value.const is not None
        learned = value.learned and value.dtype.kind == "f"
        held = self.constant(value.const, value.name, learned=learned)
        return dataclasses.replace(value, buffer=held, const=None)

    def ref(self, value: Value, more: str | int = "0") -> str:
        """Return a C pointer to the first element of `value`, `more` elements further on."""
        value = self.placed(value)
        assert value.buffer is not None
        offset = shifted(value.offset, more)
        return value.buffer.token if offset == "0" else f"({value.buffer.token} + {offset})"

    def at(self, value: Value, index: str | int) -> str:
        """Return a C expression for one element of `value`."""
        value = self.placed(value)
        assert value.buffer is not None
        return f"{value.buffer.token}[{shifted(value.offset, index)}]"

    def emit(self, lines: Sequence[str], reads: Sequence[Value], writes: Sequence[Value]) -> None:
        """Append a statement."""
        inputs = [buffer for value in reads if (buffer := self.placed(value).buffer) is not None]
        outputs = [value.buffer for value in writes if value.buffer is not None]
        self.statements.append(Statement(list(lines), inputs, outputs, self._depth))

    def use(self, *buffers: Buffer) -> None:
        """Say that the latest statement reads these too."""
        self.statements[-1].reads.extend(buffers)

    def adopt(self, whole: Value, part: Value, offset: int) -> bool:
        """Let `part` be computed inside `whole`, `offset` elements from its start; False if it cannot be."""
        buffer = part.buffer
        if buffer is None or whole.buffer is None or buffer.kind != "scratch" or buffer.parent is not None:
            return False
        if part.offset != "0" or part.size != buffer.size or buffer.fixed:
            return False
        buffer.parent, buffer.offset = whole.buffer, offset
        # The concatenation counts as written here, so that it is never thought unused.
        self.emit([], [part], [whole])
        return True

    def comment(self, text: str) -> None:
        """Append a line of comment. Texts out of the model are in it as `in_source` gives them."""
        self.statements.append(Statement([f"/* {text} */"], [], [], self._depth))

    @contextmanager
    def loop(self, count: int) -> Iterator[str]:
        """Put the statements made inside into a loop over 0..count-1; yield its variable."""
        variable = f"t{self._loops}"
        self._loops += 1
        head = f"for (int {variable} = 0; {variable} < {count}; {variable}++) {{"
        self.statements.append(Statement([head], [], [], self._depth, "open"))
        self._depth += 1
        yield variable
        self._depth -= 1
        self.statements.append(Statement(["}"], [], [], self._depth, "close"))
