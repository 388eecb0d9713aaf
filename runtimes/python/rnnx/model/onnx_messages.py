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


# Messages within messages: what protobuf reads too. All languages look as deep.
DEEPEST = 100


def walk(message: memoryview, kind: str, wanted: str, *, left: int = DEEPEST) -> Iterator[memoryview]:
    """Yield the messages of the kind `wanted` in a message of some kind, itself and those inside it.

    A graph's own initializers come before those of the graphs inside its nodes. Raises ValueError where the
    bytes are no messages, or lie more than `left` deep.
    """
    if left < 0:
        raise ValueError(f"messages more than {DEEPEST} deep")
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
        yield from walk(value, inside, wanted, left=left - 1)


def element_count(tensor: memoryview) -> int:
    """Return how many elements a tensor has, by its dims.

    Where the number takes more than 64 bits, which no file has, it is some number that does too: the product
    of a million dims would cost minutes. Raises ValueError where the bytes are no message.
    """
    sizes: list[int] = []
    for number, value, _, _ in protobuf.fields(tensor):
        if number == 1:
            sizes += [value] if isinstance(value, int) else protobuf.packed(value)
    count = 0 if 0 in sizes else 1
    for size in sizes:
        count *= size if count >> 64 == 0 else 1
    return count


def entry(message: memoryview) -> tuple[str, str]:
    """Return fields 1 and 2 of a small message as text: key and value, or domain and version."""
    found = {1: "", 2: ""}
    for number, value, _, _ in protobuf.fields(message):
        if number in found:
            found[number] = str(value) if isinstance(value, int) else bytes(value).decode()
    return found[1], found[2]
