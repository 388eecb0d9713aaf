"""Which messages of an ONNX file hold which, and a walk through all of one kind, wherever they stand.

Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

from rnnx.model import protobuf

# As far as they lead to nodes and tensors.
INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


def walk(message: memoryview, kind: str, wanted: str) -> Iterator[memoryview]:
    """Yield the messages of the kind `wanted` in a message of some kind, itself and those inside it.

    A graph's own initializers come before those of the graphs inside its nodes.
    """
    if kind == wanted:
        yield message
    if not INSIDE[kind]:
        return
    found = [
        (INSIDE[kind][number], value)
        for number, value, _, _ in protobuf.fields(message)
        if number in INSIDE[kind] and isinstance(value, memoryview)
    ]
    for inside, value in sorted(found, key=lambda part: part[0] == "node"):
        yield from walk(value, inside, wanted)


def entry(message: memoryview) -> tuple[str, str]:
    """Return fields 1 and 2 of a small message as text: key and value, or domain and version."""
    found = {1: "", 2: ""}
    for number, value, _, _ in protobuf.fields(message):
        if number in found:
            found[number] = str(value) if isinstance(value, int) else bytes(value).decode()
    return found[1], found[2]
