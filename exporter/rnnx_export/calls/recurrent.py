"""Recurrent layers and cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnnx_export.calls.types import Call, Tracer
from rnnx_export.capture import recurrent_ops  # noqa: F401  (defines the operators)


def layer(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """nn.RNN, LSTM, GRU: (x, hx, weights, bias, layers, dropout, training, bidirectional, batch_first)."""
    name = func.__name__
    if isinstance(args[1], Tensor) and args[1].dim() == 1:
        data, batch_sizes, hx, weights, bias, layers, _, _, bidirectional = args
        sequence = tracer.packing.open(data, batch_sizes)
        x, lengths, batch_first, order = sequence.x, sequence.lengths, True, sequence.order
    else:
        x, hx, weights, bias, layers, _, _, bidirectional, batch_first = args
        sequence, lengths, order = None, None, None
    start = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    axis = 1 if batch_first else 0
    lift = tracer.record("bidirectional" if bidirectional else name, start=start, like=x, axes={axis: 0})
    if lift is not None:
        start = tuple(tracer.states[state] for state in lift.names)
        if order is not None:
            start = tuple(state.index_select(1, order) for state in start)
    y, *ends = _call_layer(name, x, start, list(weights), (bias, layers, bidirectional, batch_first, lengths))
    if lift is not None:
        back = ends if order is None else [end.index_select(1, torch.argsort(order)) for end in ends]
        tracer.next_states.update(zip(lift.names, back, strict=True))
    tracer.ended(ends)
    return (y if sequence is None else sequence.close(y), *ends)


def _call_layer(name: str, x: Tensor, start: tuple[Tensor, ...], weights: list[Tensor], rest: Call) -> Any:
    if name == "lstm":
        return torch.ops.rnnx.lstm(x, *start, weights, *rest)
    if name == "gru":
        return torch.ops.rnnx.gru(x, *start, weights, *rest)
    return torch.ops.rnnx.rnn(x, *start, weights, *rest, name.removeprefix("rnn_"))


def cell(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """nn.RNNCell, nn.LSTMCell, nn.GRUCell: (x, hx, weights...)."""
    x, hx, *weights = args
    start = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    lift = tracer.record(func.__name__, start=start, like=x, axes={})
    if lift is not None:
        start = tuple(tracer.states[state] for state in lift.names)
    result = func(x, start if isinstance(hx, tuple | list) else start[0], *weights, **kwargs)
    ends = result if isinstance(result, tuple) else (result,)
    tracer.ended(ends)
    if lift is not None:
        tracer.next_states.update(zip(lift.names, ends, strict=True))
    return result
