"""An ONNX model as bytes, with weights beside it where they are too large."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from rnnx_export.diagnostics import CaptureError

# A protobuf message holds less than 2 GiB; the graph itself needs room too.
WEIGHTS_LIMIT = 2**31 - 2**24


_SMALL = 1024


def to_bytes(model: ir.Model) -> bytes:
    """Return the file's bytes, the same for the same model in every process.

    Raises:
        CaptureError: the graph is not valid.
    """
    proto = ir.to_proto(model)
    external = any(bool(tensor.data_location) for tensor in proto.graph.initializer)
    try:
        if not external:  # the checker would look for the weights in the current folder
            onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CaptureError(f"no valid ONNX graph: {' '.join(str(error).split())[:180]}") from error
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def move_weights_out(model: ir.Model, location: str) -> bytes:
    """Return the weights as one block, where they are too large for the file; else return nothing.

    Args:
        model: its initializers then point into the block.
        location: the block's file name beside the model.
    """
    initializers = model.graph.initializers.values()
    tensors = [(value, value.const_value) for value in initializers if value.const_value is not None]
    if sum(tensor.nbytes for _, tensor in tensors) <= WEIGHTS_LIMIT:
        return b""
    block = bytearray()
    for value, tensor in tensors:
        if tensor.nbytes < _SMALL:
            continue
        block += bytes(-len(block) % 64)
        data = tensor.tobytes()
        shape = ir.Shape(tensor.shape.numpy())
        value.const_value = ir.ExternalTensor(
            location, len(block), len(data), tensor.dtype, name=tensor.name or "", shape=shape
        )
        block += data
    return bytes(block)
