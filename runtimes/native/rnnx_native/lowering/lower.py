"""ONNX nodes to statements of C: folds what is known, hands the rest to the operators' writers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rnnx.errors import RnnxError, first_line
from rnnx.foreign_text import in_source
from rnnx_native.onnx_graph.constant_folding import fold
from rnnx_native.onnx_graph.read import Graph, Node
from rnnx_native.onnx_graph.standard import WITH_GRAPHS, check_node, check_results
from rnnx_native.program.program import Program
from rnnx_native.program.values import Array, Value
from rnnx_native.refusals import refuse

Inputs = Sequence[Value | None]
Writer = Callable[["Lowering", Node, Inputs], Sequence[Value]]
OPS: dict[str, Writer] = {}
KNOWN: dict[str, Known] = {}


@dataclasses.dataclass(frozen=True)
class Known:
    """What a writer knows of an operator.

    Attributes:
        first, last: versions in which ONNX changed it, the oldest and the newest that are written.
        attributes: names of those that the writer reads, or may leave unread.
    """

    first: int
    last: int
    attributes: frozenset[str]


def op(*operators: str) -> Callable[[Writer], Writer]:
    """Register a function as the writer of operators.

    Args:
        operators: each "NAME VERSIONS ATTRIBUTE ...", versions as `13` or `7-13`; the name alone for one of
            our own.
    """

    def register(writer: Writer) -> Writer:
        for text in operators:
            name, *rest = text.split()
            assert name not in OPS, name
            OPS[name] = writer
            if rest:
                first, _, last = rest[0].partition("-")
                KNOWN[name] = Known(int(first), int(last or first), frozenset(rest[1:]))
        return writer

    return register


def require_known(node: Node) -> None:
    """Refuse a version or an attribute of an operator that its writer does not know.

    Raises:
        ModelError: `cannot-compile`.
    """
    known = KNOWN.get(node.op)
    if known is None:
        return
    if not known.first <= node.version <= known.last:
        written = f"{known.first} to {known.last}" if known.first < known.last else str(known.first)
        raise refuse(node, f"version {node.version} of the operator, where C has {written}")
    strange = sorted(set(node.attributes) - known.attributes)
    if strange:
        raise refuse(node, f"the attribute {strange[0]!r}, which C does not know")


def known(value: Value | None) -> Array | None:
    """Return a constant's array; None for a value known only when the program runs."""
    return None if value is None else value.const


def constant(name: str, array: Array, *, learned: bool = False) -> Value:
    """Return a value that is known while compiling."""
    return Value(name, array.dtype, tuple(array.shape), const=array, learned=learned)


def need(node: Node, value: Value | None, what: str) -> Array:
    """Return a constant that the operator's writer must know. Raises ModelError `cannot-compile`."""
    array = known(value)
    if array is None:
        raise refuse(node, f"its {what} is known only when the model runs")
    return array


class Lowering:
    """Turns the nodes of a graph into statements of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def run(self, graph: Graph, bound: Mapping[str, Value]) -> dict[str, Value]:
        """Lower all nodes; return every value by name.

        Args:
            graph: the graph, or a Scan's body.
            bound: values of its inputs, and what it sees of the graph around it.

        Raises:
            ModelError: `cannot-compile`.
        """
        values = dict(bound)
        for name, array in graph.constants.items():
            values[name] = constant(name, array, learned=name in graph.learned)
        for node in graph.nodes:
            for name in node.inputs:
                if name and name not in values:
                    raise refuse(node, f"an input that nothing before it gives, {name!r}")
            inputs = [values[name] if name else None for name in node.inputs]
            try:
                results = self._node(graph, node, inputs, values)
            except (RnnxError, MemoryError, RecursionError):
                raise
            except Exception as error:  # what the standard's rules let through, as in graphs inside a node
                reason = (
                    f"its inputs or attributes do not fit it ({type(error).__name__}: {first_line(error)})"
                )
                raise refuse(node, reason) from error
            if any(node.outputs[len(results) :]):
                raise refuse(node, f"an output that C does not have, {node.outputs[len(results)]!r}")
            for name, value in zip(node.outputs, results, strict=False):
                if name:
                    values[name] = value
        return values

    def _node(self, graph: Graph, node: Node, inputs: Inputs, values: Mapping[str, Value]) -> Sequence[Value]:
        require_known(node)
        expected = check_node(node, inputs, graph.opset)
        folded = self._fold(graph, node, inputs)
        if folded is not None:
            return folded
        writer = OPS.get(node.op)
        if writer is None:
            raise refuse(node, "no such operator in C yet")
        before = len(self.program.statements)
        self.scope = values
        try:
            results = writer(self, node, inputs)
        except OverflowError as error:
            raise refuse(node, str(error), fix="use float32 weights") from error
        check_results(node, results, expected)
        made = self.program.statements[before:]
        if made:
            self.program.statements[before:] = []
            self.program.comment(_describe(node, results))
            self.program.statements.extend(made)
        return results

    def _fold(self, graph: Graph, node: Node, inputs: Inputs) -> list[Value] | None:
        """Return the outputs of a node whose inputs are all known, else None."""
        if node.op == "Shape" and inputs[0] is not None:
            return [constant(node.outputs[0], _shape(inputs[0], node))]
        if node.op in WITH_GRAPHS or any(value is not None and value.const is None for value in inputs):
            return None
        try:
            arrays = fold(node, [known(value) for value in inputs], graph.opset)
        except Exception as error:  # the reference implementation raises whatever its parts raise
            if node.op in OPS:
                return None
            raise refuse(node, f"its value could not be computed ahead ({error})") from error
        learned = any(value.learned for value in inputs if value is not None)
        if node.op in ("Constant", "ConstantOfShape"):
            learned = False
        return [
            constant(name, array, learned=learned and array.dtype.kind == "f")
            for name, array in zip(node.outputs, arrays, strict=True)
        ]


def _shape(value: Value, node: Node) -> Array:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(value.shape[slice(start, end)], np.int64)


def _describe(node: Node, results: Sequence[Value]) -> str:
    """Return the comment line of a node: operator, module, shapes."""
    shapes = ", ".join(f"[{', '.join(map(str, value.shape))}]" for value in results)
    place = in_source(node.module) if node.module else "the model"
    return f"{in_source(node.op)} of {place} ({in_source(node.name)}) -> {shapes}"
