"""From a captured program to an ONNX graph, on torch's own converter and onnxscript's library.

Only recurrent layers are ours: each becomes one placeholder node in the domain `rnnx`, which `recurrent`
expands once the weights are known.
"""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import re
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset18
from torch.onnx._internal.exporter import _core, _decomp, _fx_passes, _registration

from rnnx_export.capture import recurrent_ops  # noqa: F401  (defines the operators)
from rnnx_export.diagnostics import Because, CaptureError, Reason, quiet, recorded_line, silent

DOMAIN = "rnnx"
_UNTRANSLATED = (operator.getitem, torch.ops.aten.sym_size.int)  # the converter looks through them
_OPERATOR = re.compile(r"OpOverload\(op='([\w.]+)', overload='(\w+)'\)")


def convert(exported: torch.export.ExportedProgram) -> ir.Model:
    """Return the captured program as an ONNX model.

    Raises:
        CaptureError: an operator has no ONNX counterpart.
    """
    try:
        with quiet(), silent():
            exported.graph.eliminate_dead_code()
            if not _is_plain(exported.graph):
                return _core.exported_program_to_ir(exported, registry=_registry())
            # What torch's converter does before, without tracing the program once more to take nothing apart.
            if not _is_of_one_float(exported.graph):
                _fx_passes.insert_type_promotion_nodes(exported.graph_module)
            _fx_passes.remove_assertion_nodes(exported.graph_module)
            return _core._exported_program_to_onnx_program(exported, registry=_registry()).model
    except Exception as error:  # the converter wraps every kind of failure
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = " ".join(str(cause).split())
        reason = Reason.COMPLEX if "complex-valued" in said else Reason.NO_ONNX_FORM
        raise CaptureError(Because(_no_form(exported, said), reason)) from error


def _is_plain(graph: torch.fx.Graph) -> bool:
    """Whether each operator of a graph has an ONNX form as it is, and none writes to its arguments.

    Forms are of real numbers: those of complex ones, where there are any, come of taking operators apart.
    """
    if any(dtype.is_complex for dtype in _dtypes(graph)):
        return False
    called = [node.target for node in graph.nodes if node.op not in ("placeholder", "output")]
    return all(
        (target in _taken() or target in _UNTRANSLATED)
        and not (isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable)
        for target in called
    )


def _is_of_one_float(graph: torch.fx.Graph) -> bool:
    """Whether every tensor of a graph is of one floating dtype, so that none is promoted to another's."""
    dtypes = _dtypes(graph)
    return len(dtypes) == 1 and dtypes.pop().is_floating_point


def _dtypes(graph: torch.fx.Graph) -> set[torch.dtype]:
    """Return the dtypes of the tensors of a graph."""
    values = itertools.chain.from_iterable(
        value if isinstance(value, (tuple, list)) else [value]
        for node in graph.nodes
        if (value := node.meta.get("val")) is not None
    )
    return {value.dtype for value in values if isinstance(value, torch.Tensor)}


@functools.cache
def _taken() -> frozenset[Any]:
    """Return the operators that have an ONNX form."""
    return frozenset(_decomp.get_onnx_implemented_overloads(_registry()))


def _no_form(exported: torch.export.ExportedProgram, text: str) -> str:
    """Return which operator has no ONNX form, and the user's line that calls it."""
    found = _OPERATOR.search(text)
    if found is None:
        return f"no ONNX form: {text[:180]}"
    name, overload = found.groups()
    kind = " of complex numbers" if "complex-valued" in text else ""
    # The converter takes operators apart first: linalg_eigvalsh is _linalg_eigh by then.
    with quiet(), silent():
        nodes = exported.run_decompositions().graph.nodes
    called = [node for node in nodes if str(node.target) == f"{name}.{overload}"]
    where = next(filter(None, (recorded_line(node.meta.get("stack_trace") or "") for node in called)), "")
    return f"no ONNX form: {name}{kind}{where}"


@functools.cache
def _registry() -> _registration.ONNXRegistry:
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    registry = _registration.ONNXRegistry.from_torchlib()
    for name in ("lstm", "gru", "rnn"):
        registry.register_op(getattr(torch.ops.rnnx, name).default, functools.partial(_placeholder, name))
    registry.register_op(torch.ops.aten.expm1.default, _expm1)
    registry.register_op(torch.ops.aten.log1p.default, _log1p)
    return registry


def _expm1(x: Any) -> Any:
    """exp(x) - 1 as tanh(x / 2) * (exp(x) + 1): near 0 the difference would lose what it is called for."""
    one, two = (opset18.CastLike(number, x) for number in (1.0, 2.0))  # type: ignore[type-var]
    return opset18.Mul(opset18.Tanh(opset18.Div(x, two)), opset18.Add(opset18.Exp(x), one))


def _log1p(x: Any) -> Any:
    """log(1 + x), near 0 with what 1 + x lost added: the logarithm's slope there times that."""
    one = opset18.CastLike(1.0, x)  # type: ignore[type-var]
    u = opset18.Add(x, one)
    lost = opset18.Sub(x, opset18.Sub(u, one))
    near = opset18.Add(opset18.Log(u), opset18.Div(lost, u))
    return opset18.Where(opset18.Less(opset18.Abs(x), one), near, opset18.Log(u))


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
