"""From a captured program to an ONNX graph, on torch's own converter and onnxscript's library.

Only recurrent layers are ours: each becomes one placeholder node in the domain `rnnx`, which `recurrent`
expands once the weights are known.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import onnx_ir as ir
import torch
from torch.onnx._internal.exporter import _core, _registration

from rnnx_export import recurrent_ops  # noqa: F401  (defines the operators)
from rnnx_export.capture import CaptureError, _silent
from rnnx_export.subject import quiet

DOMAIN = "rnnx"


def convert(exported: torch.export.ExportedProgram) -> ir.Model:
    """Return the captured program as an ONNX model.

    Raises:
        CaptureError: an operator has no ONNX counterpart.
    """
    try:
        with quiet(), _silent():
            return _core.exported_program_to_ir(exported, registry=_registry())
    except Exception as error:  # the converter wraps every kind of failure
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = " ".join(str(cause).split())
        raise CaptureError(f"no ONNX form: {text[:180]}") from error


@functools.cache
def _registry() -> _registration.ONNXRegistry:
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    registry = _registration.ONNXRegistry.from_torchlib()
    for name in ("lstm", "gru", "rnn"):
        registry.register_op(getattr(torch.ops.rnnx, name).default, functools.partial(_placeholder, name))
    return registry


def _placeholder(name: str, *args: Any, **kwargs: Any) -> Any:
    """Record one node for a recurrent layer: its tensors as inputs, the rest as attributes."""
    states = 2 if name == "lstm" else 1
    x, start = args[0], args[1 : 1 + states]
    weights, bias, layers, bidirectional, batch_first, lengths, *nonlinearity = args[1 + states :]
    attributes = {
        "bias": int(bias),
        "layers": int(layers),
        "bidirectional": int(bidirectional),
        "batch_first": int(batch_first),
        "nonlinearity": nonlinearity[0] if nonlinearity else "",
    }
    node = ir.Node(
        DOMAIN,
        name.upper(),
        inputs=[x, lengths, *start, *weights],
        attributes=ir.convenience.convert_attributes(attributes),
        num_outputs=1 + states,
        version=1,
    )
    assert _core.current_tracer is not None
    _core.current_tracer.nodes.append(node)
    return node.outputs
