"""Models with a tensor in another file, wherever a tensor may stand: the leak, its factor outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from cases.leak import leak_contract, leak_graph
from rnnx.model.onnx_file import write_contract

Put = Callable[[Any, TensorProto], None]


def external(name: str, location: str, **entries: Any) -> TensorProto:
    """Return a float32 tensor [1] whose value lies in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def constant(model: Any, tensor: TensorProto) -> None:
    """The leak's factor comes from a Constant node."""
    half = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], [half.name], value=tensor))


def inner_constant(model: Any, tensor: TensorProto) -> None:
    """The same, inside the body of the Scan."""
    constant(model, tensor)
    body_of(model).node.insert(0, model.graph.node.pop(0))


def initializer(model: Any, tensor: TensorProto) -> None:
    tensor.name = model.graph.initializer.pop().name
    model.graph.initializer.append(tensor)


def inner_initializer(model: Any, tensor: TensorProto) -> None:
    tensor.name = model.graph.initializer.pop().name
    body_of(model).initializer.append(tensor)


def function(model: Any, tensor: TensorProto) -> None:
    """The factor comes from a Constant in a function of the model's own."""
    half = model.graph.initializer.pop()
    made = model.functions.add(name="factor", domain="own")
    made.output.append("value")
    made.node.append(helper.make_node("Constant", [], ["value"], value=tensor))
    made.opset_import.append(helper.make_opsetid("", 17))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.insert(0, helper.make_node("factor", [], [half.name], domain="own"))


def sparse(model: Any, tensor: TensorProto) -> None:
    """The factor is a sparse initializer, its one value outside."""
    made = model.graph.sparse_initializer.add(dims=[1])
    tensor.name = model.graph.initializer.pop().name
    made.values.CopyFrom(tensor)
    made.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [0]))


def unused_list(model: Any, tensor: TensorProto) -> None:
    """The tensor stands in a list of tensors, in an attribute of a function that nothing calls."""
    made = model.functions.add(name="idle", domain="own")
    made.node.append(helper.make_node("Identity", ["x"], ["y"]))
    attribute = made.node[0].attribute.add(name="many", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(tensor)


def training(model: Any, tensor: TensorProto) -> None:
    """The tensor stands in a graph for training."""
    model.training_info.add().initialization.initializer.append(tensor)


PLAIN: list[Put] = [constant, inner_constant, initializer, inner_initializer]  # what every engine takes
USED: list[Put] = [*PLAIN, function, sparse]
PLACES: list[Put] = [*USED, unused_list, training]


def body_of(model: Any) -> Any:
    """Return the graph that the Scan of the leak runs."""
    return next(entry.g for node in model.graph.node for entry in node.attribute if entry.name == "body")


def with_tensor(put: Put, tensor: TensorProto) -> bytes:
    """Return the leak with a tensor put somewhere."""
    model = onnx.load_model_from_string(leak_graph())
    put(model, tensor)
    return write_contract(model.SerializeToString(), leak_contract())


def write(folder: Path, put: Put, tensor: TensorProto) -> Path:
    """Write the leak with a tensor put somewhere, and return its path."""
    path = folder / "model.onnx"
    path.write_bytes(with_tensor(put, tensor))
    return path


def values(folder: Path, name: str, *numbers: float) -> None:
    (folder / name).write_bytes(np.array(numbers, "f4").tobytes())
