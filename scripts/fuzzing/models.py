"""Edits of an ONNX file: of its messages, of the contract inside it, and of protobuf's own bytes."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from fuzzing.edits import FLOATS, edit_bytes, edit_json_text, integer, text
from rnnx.model import onnx_messages, protobuf
from rnnx.model.contract import METADATA_KEY

OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
_WEIGHTS = {"NodeProto": 6, "AttributeProto": 5, "TensorProto": 3, "GraphProto": 2}
_UNIQUE = (0, 2**7, 2**14, 2**31, 2**63, 2**64 - 1)


def edit_model(data: bytes, rng: random.Random, *, nodes: float = 0.0) -> bytes:
    """Return an ONNX file that differs from a good one in a few places.

    Args:
        data: the good one.
        rng: chooses the places.
        nodes: how often only nodes and weights are edited, so that the contract still fits.
    """
    if rng.random() < nodes:
        model = onnx.load_model_from_string(data)
        _edit_messages(model, rng, only=True)
        return model.SerializeToString()
    way = rng.random()
    if way < 0.12:
        return edit_bytes(data, rng)
    if way < 0.27:
        return edit_wire(data, rng)
    model = onnx.load_model_from_string(data)
    if way < 0.45:
        _edit_contract(model, rng)
    if way > 0.4:
        _edit_messages(model, rng, only=False)
    return model.SerializeToString()


def edit_contract(data: bytes, rng: random.Random) -> bytes:
    """Return an ONNX file that differs from a good one in its contract, or in the bytes around it."""
    way = rng.random()
    if way < 0.1:
        return edit_bytes(data, rng)
    if way < 0.2:
        return edit_wire(data, rng)
    if way < 0.3:
        model = onnx.load_model_from_string(data)
        messages: dict[str, list[Any]] = {}
        _collect(model, messages)
        for tensor in messages.get("TensorProto", []):
            if rng.random() < 0.5:
                _move_out(tensor, rng)
        return model.SerializeToString()
    entries, kept = {}, []
    for number, value, start, end in protobuf.fields(memoryview(data)):
        if number == 14 and isinstance(value, memoryview):
            entries.update([onnx_messages.entry(value)])
        else:
            kept.append(data[start:end])
    good = entries[METADATA_KEY]
    if way < 0.4:
        text = edit_bytes(good.encode(), rng)
    else:
        text = edit_json_text(json.loads(good), rng).encode("utf-8", "ignore")
    pair = protobuf.encode_bytes(1, METADATA_KEY.encode()) + protobuf.encode_bytes(2, text)
    pair = edit_wire(pair, rng) if way > 0.95 else pair
    return b"".join([*kept, protobuf.encode_bytes(14, pair)])


def edit_wire(data: bytes, rng: random.Random) -> bytes:
    """Return protobuf of which one field, however deep, is dropped, doubled, moved or says another size."""
    try:
        parts = [
            (number, value, data[start:end])
            for number, value, start, end in protobuf.fields(memoryview(data))
        ]
    except ValueError:
        return edit_bytes(data, rng)
    if not parts:
        return protobuf.encode_int(rng.randrange(1, 20), rng.choice(_UNIQUE))
    place = rng.randrange(len(parts))
    number, value, whole = parts[place]
    pieces = [part for _, _, part in parts]
    if isinstance(value, memoryview) and value and rng.random() < 0.75:
        inner = edit_wire(bytes(value), rng)
        length = len(inner) if rng.random() < 0.9 else rng.choice((0, len(inner) + 1, 2**31, 2**63))
        pieces[place] = protobuf.encode_varint(number << 3 | 2) + protobuf.encode_varint(length) + inner
        return b"".join(pieces)
    way = rng.randrange(6)
    if way == 0:
        del pieces[place]
    elif way == 1:
        pieces[place:place] = [whole] * rng.choice((1, 2, 100))
    elif way == 2:
        rng.shuffle(pieces)
    elif way == 3:
        pieces[place] = protobuf.encode_int(number, rng.choice(_UNIQUE))
    elif way == 4:
        pieces[place] = protobuf.encode_varint(number << 3 | rng.randrange(8)) + whole[1:]
    else:
        pieces[place] = protobuf.encode_bytes(rng.choice((number, rng.randrange(1, 30))), rng.randbytes(9))
    return b"".join(pieces)


def _edit_contract(model: Any, rng: random.Random) -> None:
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            with contextlib.suppress(ValueError):
                entry.value = edit_json_text(json.loads(entry.value), rng)


def _edit_messages(model: Any, rng: random.Random, *, only: bool) -> None:
    """Change a field of one to four messages; of nodes and weights only, if that is asked for."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        messages: dict[str, list[Any]] = {}
        for part in [*model.graph.node, *model.graph.initializer] if only else [model]:
            _collect(part, messages)
        with contextlib.suppress(ValueError, TypeError, OverflowError):  # what a field cannot hold
            _edit_message(messages, rng)


def _edit_message(messages: dict[str, list[Any]], rng: random.Random) -> None:
    """Change one field of one message; messages of kinds that matter are chosen more often."""
    kinds = sorted(messages)
    kind = rng.choices(kinds, [_WEIGHTS.get(name, 1) for name in kinds])[0]
    message = rng.choice(messages[kind])
    if kind == "NodeProto" and rng.random() < 0.35:
        _edit_node(message, messages, rng)
    elif kind == "AttributeProto" and rng.random() < 0.4:
        _retype(message, rng)
    elif kind == "TensorProto" and rng.random() < 0.15:
        _move_out(message, rng)
    else:
        fields = list(message.DESCRIPTOR.fields)
        present = [field for field, _ in message.ListFields()]
        field = rng.choice(present if present and rng.random() < 0.8 else fields)
        many = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        (_edit_repeated if many else _edit_single)(message, field, messages, rng)


def _collect(message: Any, found: dict[str, list[Any]]) -> None:
    found.setdefault(message.DESCRIPTOR.name, []).append(message)
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if hasattr(value, "add") else [value]:
                _collect(inner, found)


def _edit_repeated(message: Any, field: Any, messages: dict[str, list[Any]], rng: random.Random) -> None:
    values = getattr(message, field.name)
    items = list(values)
    way = rng.randrange(6)
    if not items or way == 0:
        items.append(_new(field, messages, rng))
    elif way == 1:
        del items[rng.randrange(len(items))]
    elif way == 2:
        items.insert(rng.randrange(len(items)), rng.choice(items))
    elif way == 3:
        items.reverse()
    elif way == 4:
        items[rng.randrange(len(items))] = _new(field, messages, rng)
    else:
        items = []
    copies = [_copy(item) for item in items]
    del values[:]
    values.extend(copies)


def _edit_single(message: Any, field: Any, messages: dict[str, list[Any]], rng: random.Random) -> None:
    if rng.random() < 0.25:
        message.ClearField(field.name)
    elif field.type == field.TYPE_MESSAGE:
        getattr(message, field.name).CopyFrom(_new(field, messages, rng))
    else:
        old = getattr(message, field.name)
        if isinstance(old, bytes) and old and rng.random() < 0.7:
            setattr(message, field.name, edit_bytes(old, rng))
        else:
            setattr(message, field.name, _new(field, messages, rng))


def _new(field: Any, messages: dict[str, list[Any]], rng: random.Random) -> Any:
    """Return a value for a field: another of the same kind in the model, or a strange one."""
    if field.type == field.TYPE_MESSAGE:
        known = messages.get(field.message_type.name)
        return _copy(rng.choice(known)) if known else field.message_type._concrete_class()
    if field.cpp_type == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return rng.choice((b"", b"reverse", b"\xff\xfe", rng.randbytes(12), text(rng).encode()))
        nodes = messages.get("NodeProto", [])
        names = [name for node in nodes for name in (*node.input, *node.output)]
        return rng.choice(names) if names and rng.random() < 0.6 else text(rng)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == field.TYPE_ENUM:
        return rng.choice([entry.number for entry in field.enum_type.values])
    return rng.randrange(30) if field.name in ("data_type", "elem_type") else integer(rng)


def _copy(item: Any) -> Any:
    if not hasattr(item, "DESCRIPTOR"):
        return item
    made = type(item)()
    made.CopyFrom(item)
    return made


def _edit_node(node: Any, messages: dict[str, list[Any]], rng: random.Random) -> None:
    way = rng.randrange(4)
    if way == 0:
        node.op_type = rng.choice(OPERATORS)
    elif way == 1:
        node.domain = rng.choice(("", "ai.onnx", "com.microsoft", "ai.onnx.ml", "x", text(rng)))
    elif way == 2 and (known := messages.get("AttributeProto")):
        node.attribute.append(_copy(rng.choice(known)))
    else:
        schema = rng.choice(OPERATORS)
        names = sorted(onnx.defs.get_schema(schema).attributes) or ["axis"]
        node.attribute.append(onnx.helper.make_attribute(rng.choice(names), integer(rng)))


def _retype(attribute: Any, rng: random.Random) -> None:
    """Give an attribute another type, with a value of that type or without one."""
    name = attribute.name
    if rng.random() < 0.5:
        attribute.type = rng.choice(list(onnx.AttributeProto.AttributeType.values()))
        return
    floats = [float(integer(rng)) for _ in range(3)]
    values: list[Any] = [1, 0.5, text(rng), [integer(rng)], [*floats], ["a", text(rng)], b"\xff"]
    values.append(onnx.helper.make_tensor("t", 1, [2], [0.0, 1.0]))
    attribute.CopyFrom(onnx.helper.make_attribute(name, rng.choice(values)))


def _move_out(tensor: Any, rng: random.Random) -> None:
    """Let a tensor say that its values lie in another file."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    digits = ("0", "8", "-1", "9" * 30, "1e3", str(2**63), text(rng))
    values = {
        "location": rng.choice(
            ("weights", "model.onnx", ".", "..", "/dev/zero", "link", "none", "a\0b", text(rng))
        ),
        "offset": rng.choice(digits),
        "length": rng.choice(digits),
    }
    for key, value in values.items():
        if rng.random() < 0.7:
            tensor.external_data.add(key=key, value=value)


def readable(data: bytes) -> str:
    """Return what a file holds as text, for a report; "" where protobuf cannot read it."""
    try:
        return str(onnx.load_model_from_string(data))
    except (DecodeError, ValueError):
        return ""
