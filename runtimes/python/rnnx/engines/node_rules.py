"""Rules of the standard that a graph is held to before ONNX Runtime sees it: what it ends the process on.

ONNX Runtime checks a graph itself, and says what is wrong with it. Where it does not, and goes on with
outputs that are not there, the process ends or never comes back: those are refused here. Field numbers are
those of onnx.proto (NodeProto, AttributeProto).
"""

from __future__ import annotations

from rnnx.errors import ModelError
from rnnx.model import protobuf
from rnnx.model.onnx_file import ModelFile
from rnnx.model.onnx_messages import walk

_SPLIT = "Split"


def require_rules(model: ModelFile) -> None:
    """Refuse nodes whose outputs disagree with their attributes, wherever they stand.

    Raises:
        ModelError: `engine-refused`.
    """
    for node in walk(memoryview(model.data), "model", "node"):
        parts = list(protobuf.fields(node))
        operators = [
            bytes(value) for number, value, _, _ in parts if number == 4 and isinstance(value, memoryview)
        ]
        if operators[-1:] != [_SPLIT.encode()]:
            continue
        outputs = sum(number == 2 for number, _, _, _ in parts)
        for number, value, _, _ in parts:
            stated = _number(value, b"num_outputs") if number == 5 and isinstance(value, memoryview) else None
            if stated is not None and stated != outputs:
                raise ModelError(
                    "engine-refused",
                    expected=f"a {_SPLIT} with as many outputs as its attribute num_outputs says, {stated}",
                    found=f"one with {outputs} in {model.label}",
                    fix="export it again",
                )


def _number(attribute: memoryview, name: bytes) -> int | None:
    """Return the number that an attribute holds, if it is called so."""
    named, value = False, None
    for number, content, _, _ in protobuf.fields(attribute):
        if number == 1 and isinstance(content, memoryview):
            named = bytes(content) == name
        elif number == 3 and isinstance(content, int):
            value = content
    return value if named else None
