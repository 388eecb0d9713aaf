"""A model with all its programs: what the writers of files and the engine start from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from rnnx.model.contract import Axis, Contract
from rnnx_native.lowering.lower_model import Built, build
from rnnx_native.onnx_graph.read import Graph
from rnnx_native.program.memory_plan import CACHE_LINE, Plan, plan, prune
from rnnx_native.program.ports import Port, Signature, signature
from rnnx_native.program.program import Weights
from rnnx_native.program.values import C_TYPES, Array, Shape, shown


@dataclasses.dataclass(frozen=True)
class Unit:
    """A compiled model.

    Attributes:
        name: prefix of all names in C.
        id: of the model file.
        signature: what it takes, gives and carries.
        programs: by (rows, steps): single steps, then chunks, then many rows, as far as there are any.
        plans: of their memory, by the same keys.
        weights: arrays in the order in which they lie in memory, by name.
        chunk: steps computed at once in a chunk, 1 if there is no such program.
        many: streams stepped at once by `step_many`, 0 if they cannot be.
    """

    name: str
    id: str
    signature: Signature
    programs: Mapping[tuple[int, int], Built]
    plans: Mapping[tuple[int, int], Plan]
    weights: Mapping[str, Array]
    chunk: int
    many: int

    @property
    def batch(self) -> int:
        """Rows of one state."""
        return int(self.signature.sizes["batch"])

    @property
    def architecture(self) -> bytes:
        """SHA-256 of all but the weights' values: other weights with the same one can be loaded."""
        step = next(iter(self.programs.values())).program
        lines = [f"{name} {array.dtype} {array.shape}" for name, array in self.weights.items()]
        lines += [f"{label} {array.tolist()}" for label, array in step.tables.items()]
        lines += [
            line for statement in step.statements for line in statement.lines if not line.startswith("/*")
        ]
        lines += [f"{port.kind} {port.name} {port.dtype} {port.step}" for port in self.signature.ports]
        lines += [
            str(port.start.tolist())
            for port in self.signature.states
            if not port.varies and port.start is not None
        ]
        return hashlib.sha256("\n".join(lines).encode()).digest()

    def areas(self, keys: Sequence[tuple[int, int]]) -> dict[str, int]:
        """Return the elements of scratch memory that programs need, by C type."""
        found: dict[str, int] = {}
        for key in keys:
            for ctype, count in self.plans[key].areas.items():
                found[ctype] = max(found.get(ctype, 0), count)
        return found


def make_unit(
    graph: Graph,
    contract: Contract,
    *,
    name: str,
    model_id: str,
    sizes: Mapping[str, int],
    programs: Sequence[tuple[int, int]],
    kind: str = "f32",
) -> Unit:
    """Compile a model for one batch.

    Args:
        graph: as read.
        contract: of the model.
        name: prefix of all names in C.
        model_id: of the file.
        sizes: of batch and all free dimensions.
        programs: rows and steps of the programs to make.
        kind: what weights are stored in, `f32`, `f16` or `int8`.

    Raises:
        ModelError: `cannot-compile`.
    """
    weights, batch = Weights(kind), sizes["batch"]
    built = {(r, t): build(graph, contract, sizes, weights, batch=r, time=t) for r, t in programs}
    found = signature(contract, sizes, _step_shapes(contract, next(iter(built.values()))))
    found = dataclasses.replace(found, states=tuple(_started(weights, port) for port in found.states))
    for each in built.values():
        prune(each.program)
    plans = {key: plan(each.program) for key, each in built.items()}
    chunk = max((steps for rows, steps in built if rows == batch), default=1)
    many = max((rows for rows, _ in built if rows != batch), default=0)
    return Unit(name, model_id, found, built, plans, weights.arrays, chunk, many)


def _started(weights: Weights, port: Port) -> Port:
    """Put a state's start among the weights where it varies; float16 as its bits."""
    if not port.varies or port.start is None:
        return port
    start = port.start.view(np.uint16) if port.dtype == "float16" else port.start
    start = start.astype(np.uint8) if port.dtype == "bool" else start
    return dataclasses.replace(port, start_name=weights.add(f"start_of_{port.c_name}", start))


def _step_shapes(contract: Contract, built: Built) -> dict[str, Shape]:
    """Return the shape of one step of each output, which the contract may leave open."""
    shapes = {}
    for spec in contract.outputs:
        sizes = zip(spec.shape, built.gives[spec.name], strict=True)
        axes = [(Axis.parse(axis), axis, size) for axis, size in sizes]
        shapes[spec.name] = tuple(
            axis.factor if axis.name == "time" else size for axis, text, size in axes if text != "time"
        )
    return shapes


def padded_size(array: Array) -> int:
    """Return the number of elements an array takes among the weights: it ends at a cache line."""
    step = CACHE_LINE // array.itemsize
    return -(-max(array.size, 1) // step) * step


def program_lines(unit: Unit) -> list[str]:
    """Return all lines of all programs, remarks left out."""
    return [
        line
        for built in unit.programs.values()
        for each in built.program.statements
        if not each.is_comment
        for line in each.lines
    ]


def parameter_lines(unit: Unit) -> list[str]:
    """Return the members of the struct of parameters."""
    lines = [
        f"  {C_TYPES[array.dtype.name]} {name}[{padded_size(array)}]; /* {shown(array.shape)} */"
        for name, array in unit.weights.items()
    ]
    return lines or ["  unsigned char none[64]; /* this network has no parameters */"]


def payload(unit: Unit) -> bytes:
    """Return the parameters as they lie in memory, little-endian."""
    parts = []
    for array in unit.weights.values():
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        parts.append(data.ljust(padded_size(array) * array.itemsize, b"\0"))
    return b"".join(parts) or bytes(64)


def weights_file(unit: Unit) -> bytes:
    """Return a weights file, laid out as docs/native.md says."""
    data = payload(unit)
    checksum = 0xCBF29CE484222325
    for word in np.frombuffer(data, "<u8").tolist():
        checksum = ((checksum ^ word) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    head = b"RNNXWTS1" + (0x01020304).to_bytes(4, "little") + bytes(4)
    head += len(data).to_bytes(8, "little") + checksum.to_bytes(8, "little")
    head += unit.architecture + unit.id.encode()
    return head.ljust(192, b"\0") + data


def step_axes(port: Port) -> list[str]:
    """Return the names of the axes of one step, "" for those without."""
    return [Axis.parse(axis).name for axis in port.axes if axis != "time"]
