"""Rules of nodes that ONNX Runtime does not check itself: what it ends the process on is refused before.

ONNX Runtime checks a graph, and says what is wrong with it. Where it does not, and goes on with what is not
there, the process ends. The rules below were found by running nodes of every operator with attributes,
shapes, numbers of inputs and outputs, and graphs drawn at random. Field numbers are those of onnx.proto
(NodeProto, AttributeProto).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence

from rnnx.errors import ModelError
from rnnx.model import protobuf
from rnnx.model.onnx_file import ModelFile
from rnnx.model.onnx_messages import element_count, walk

Names = Sequence[str]
Attributes = Mapping[str, float]


def require_rules(model: ModelFile) -> None:
    """Refuse nodes on which ONNX Runtime ends the process, wherever they stand.

    Raises:
        ModelError: `engine-refused`.
    """
    data = memoryview(model.data)
    nodes = [read_node(node) for node in walk(data, "model", "node")]
    decided = any(operator in _DECIDED_BY for operator, *_ in nodes)
    empty = empty_constants(data) if decided else ()
    for operator, inputs, outputs, attributes in nodes:
        broken = broken_rule(operator, inputs, outputs, attributes, empty)
        if broken is not None:
            raise ModelError(
                "engine-refused",
                expected=f"nodes that ONNX Runtime can run: {broken[0]}",
                found=f"{operator} whose {broken[1]} in {model.label}",
                fix="export it again",
            )


def broken_rule(
    operator: str, inputs: Names, outputs: Names, attributes: Attributes, empty: Collection[str] = ()
) -> tuple[str, str] | None:
    """Return the rule that a node breaks, and what is wrong with the node; None if it keeps them all.

    Args:
        operator: its name.
        inputs, outputs: names of values, "" for one left out.
        attributes: those that are numbers, by name.
        empty: names of constants without an element.
    """
    for place in _DECIDED_BY.get(operator, ()):
        if place < len(inputs) and inputs[place] in empty:
            return f"a {operator} is told what to run by values", f"input {place} has no element"
    rule = _RULES.get(operator)
    wrong = None if rule is None else rule[1](inputs, outputs, attributes)
    return None if rule is None or wrong is None else (rule[0], wrong)


def _split(inputs: Names, outputs: Names, attributes: Attributes) -> str | None:
    stated = attributes.get("num_outputs")
    if stated is None:
        return None
    if stated != len(outputs):
        return f"num_outputs is {stated:g}, and it has {len(outputs)}"
    return _named(inputs, outputs, attributes)


def _named(inputs: Names, outputs: Names, attributes: Attributes) -> str | None:
    return None if all(outputs) else "outputs are left out"


def _gather_nd(inputs: Names, outputs: Names, attributes: Attributes) -> str | None:
    axes = attributes.get("batch_dims", 0)
    return f"batch_dims is {axes:g}" if axes < 0 else None


def _third_input(inputs: Names, outputs: Names, attributes: Attributes) -> str | None:
    return "third input has no name" if len(inputs) > 2 and not inputs[2] else None


def _unique(inputs: Names, outputs: Names, attributes: Attributes) -> str | None:
    return f"axis is {attributes['axis']:g}" if "axis" in attributes else None


def _uniform(inputs: Names, outputs: Names, attributes: Attributes) -> str | None:
    low, high = attributes.get("low", 0.0), attributes.get("high", 1.0)
    return None if low <= high else f"low is {low:g} and high {high:g}"


def _normal(inputs: Names, outputs: Names, attributes: Attributes) -> str | None:
    scale = attributes.get("scale", 1.0)
    return None if scale > 0 else f"scale is {scale:g}"


# Places of the inputs that say which graph of a node runs, and how often. ONNX Runtime takes their first
# element, also where there is none.
_DECIDED_BY: Mapping[str, Sequence[int]] = {"Loop": (0, 1), "If": (0,)}

_RULES: Mapping[str, tuple[str, Callable[[Names, Names, Attributes], str | None]]] = {
    "Split": ("a Split has the outputs that num_outputs says, each with a name", _split),
    "If": ("what a graph inside gives has a name", _named),
    "Loop": ("what a graph inside gives has a name", _named),
    "Scan": ("what a graph inside gives has a name", _named),
    "GatherND": ("a GatherND has no negative batch_dims", _gather_nd),
    "LayerNormalization": ("a third input that is left out is not there at all", _third_input),
    "DFT": ("a third input that is left out is not there at all", _third_input),
    "Unique": ("a Unique takes all values, not those along an axis, of which there may be none", _unique),
    "RandomUniform": ("random values have a range that is not empty", _uniform),
    "RandomUniformLike": ("random values have a range that is not empty", _uniform),
    "RandomNormal": ("random values have a scale above 0", _normal),
    "RandomNormalLike": ("random values have a scale above 0", _normal),
}


def empty_constants(data: memoryview) -> set[str]:
    """Return the names of initializers, and of results of Constant nodes, that hold no element."""
    names = {_field(tensor, 8) for tensor in walk(data, "model", "tensor") if element_count(tensor) == 0}
    for node in walk(data, "model", "node"):
        operator, _, outputs, _ = read_node(node)
        if operator == "Constant" and any(not element_count(held) for held in walk(node, "node", "tensor")):
            names.update(outputs)
    return names - {""}


def _field(message: memoryview, wanted: int) -> str:
    """Return a field of a message that is text, "" if it is not there."""
    found = ""
    for number, value, _, _ in protobuf.fields(message):
        if number == wanted and isinstance(value, memoryview):
            found = _text(value)
    return found


def read_node(node: memoryview) -> tuple[str, list[str], list[str], dict[str, float]]:
    """Return a node's operator, the names of its inputs and outputs, and its attributes that are numbers."""
    operator, inputs, outputs, attributes = "", [], [], {}
    for number, value, _, _ in protobuf.fields(node):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            operator = _text(value)
        elif number == 5:
            name, held = _number(value)
            if held is not None:
                attributes[name] = held
    return operator, inputs, outputs, attributes


def _number(attribute: memoryview) -> tuple[str, float | None]:
    """Return an attribute's name, and the number that it holds, if it holds one."""
    name, held = "", None
    for number, content, _, _ in protobuf.fields(attribute):
        if number == 1 and isinstance(content, memoryview):
            name = _text(content)
        elif number == 2 and isinstance(content, int):
            held = struct.unpack("<f", content.to_bytes(8, "little")[:4])[0]
        elif number == 3 and isinstance(content, int):
            held = content - (1 << 64) if content >> 63 else content
    return name, held


def _text(value: memoryview) -> str:
    return bytes(value).decode(errors="replace")
