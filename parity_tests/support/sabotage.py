"""Ways in which an exported graph can be wrong, done to its bytes: what a proof must not let through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

Spoil = Callable[[ModelProto], None]


def spoiled(data: bytes, spoil: Spoil) -> bytes:
    """Return the model with something wrong in it."""
    model = onnx.load_model_from_string(data)
    spoil(model)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tampered_weight(model: ModelProto) -> None:
    """One weight of hundreds is off by a hundredth."""
    largest = max(
        (tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT),
        key=lambda tensor: np.prod(tensor.dims),
    )
    values = numpy_helper.to_array(largest).copy()
    values.flat[values.size // 2] += 0.01
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))


def rounded_weights(model: ModelProto) -> None:
    """Every weight is rounded to float16."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            rounded = numpy_helper.to_array(tensor).astype("f2").astype("f4")
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def swapped_states(model: ModelProto) -> None:
    """The next values of two states change places."""
    first, second = _next_states(model)[:2]
    _rename_results(model, {first: second, second: first})


def dropped_state(model: ModelProto) -> None:
    """A state comes out as it went in."""
    last = _next_states(model)[-1]
    _rename_results(model, {last: "lost"})
    model.graph.node.append(helper.make_node("Identity", [last.replace("_out", "_in")], [last]))


def baked_start(model: ModelProto) -> None:
    """The graph begins at zeros whatever state it is given, and gives the right next one."""
    given = _next_states(model)[0].replace("_out", "_in")
    for node in model.graph.node:
        node.input[:] = ["always_zero" if name == given else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    model.graph.node.insert(0, helper.make_node("Mul", [given, "zero"], ["always_zero"]))


def slow_drift(model: ModelProto) -> None:
    """The first step is right, and each hands on a state that is a thousandth too large."""
    _after(model, _next_states(model)[0], "Mul", np.float32(1.001))


def look_ahead(model: ModelProto) -> None:
    """Each output holds a millionth of the next input: far below any tolerance."""
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.int64([1]), "ahead.begin"),
            numpy_helper.from_array(np.int64([10_000_000]), "ahead.end"),
            numpy_helper.from_array(np.int64([1]), "ahead.axis"),
            numpy_helper.from_array(np.int64([0, 0, 0, 0, 1, 0]), "ahead.pads"),
            numpy_helper.from_array(np.int64([2]), "ahead.last"),
            numpy_helper.from_array(np.float32(1e-6), "ahead.little"),
        ]
    )
    output = graph.output[0].name
    _rename_results(model, {output: "honest"})
    graph.node.extend(
        [
            helper.make_node("Slice", ["x", "ahead.begin", "ahead.end", "ahead.axis"], ["ahead.rest"]),
            helper.make_node("Pad", ["ahead.rest", "ahead.pads"], ["ahead.next"]),
            helper.make_node("ReduceSum", ["ahead.next", "ahead.last"], ["ahead.sum"], keepdims=1),
            helper.make_node("Mul", ["ahead.sum", "ahead.little"], ["ahead.part"]),
            helper.make_node("Add", ["honest", "ahead.part"], [output]),
        ]
    )


def mixed_rows(model: ModelProto) -> None:
    """Every row holds a thousandth of the mean over the batch: one row alone hides it."""
    graph = model.graph
    output = graph.output[0].name
    _rename_results(model, {output: "honest"})
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.int64([0]), "mixed.axis"),
            numpy_helper.from_array(np.float32(1e-3), "mixed.little"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["honest", "mixed.axis"], ["mixed.mean"], keepdims=1),
            helper.make_node("Sub", ["honest", "mixed.mean"], ["mixed.rest"]),
            helper.make_node("Mul", ["mixed.rest", "mixed.little"], ["mixed.part"]),
            helper.make_node("Add", ["honest", "mixed.part"], [output]),
        ]
    )


def short_memory(model: ModelProto) -> None:
    """Outputs are right for the first 100 steps of a call and zero after that."""
    graph = model.graph
    output = graph.output[0].name
    _rename_results(model, {output: "honest"})
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.int64([0]), "short.begin"),
            numpy_helper.from_array(np.int64([100]), "short.end"),
            numpy_helper.from_array(np.int64([1]), "short.axis"),
            numpy_helper.from_array(np.float32(0), "short.zero"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Slice", ["honest", "short.begin", "short.end", "short.axis"], ["short.first"]),
            helper.make_node("Slice", ["honest", "short.end", "short.far", "short.axis"], ["short.rest"]),
            helper.make_node("Mul", ["short.rest", "short.zero"], ["short.nothing"]),
            helper.make_node("Concat", ["short.first", "short.nothing"], [output], axis=1),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.int64([10_000_000]), "short.far"))


def _next_states(model: ModelProto) -> list[str]:
    return [value.name for value in model.graph.output if value.name.endswith("_out")]


def _rename_results(model: ModelProto, names: dict[str, str]) -> None:
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]


def _after(model: ModelProto, name: str, operator: str, value: np.generic) -> None:
    _rename_results(model, {name: "honest"})
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), "spoil"))
    model.graph.node.append(helper.make_node(operator, ["honest", "spoil"], [name]))
