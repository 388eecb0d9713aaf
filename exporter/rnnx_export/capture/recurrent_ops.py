"""Recurrent layers as single operators that a captured program keeps whole.

torch's own capture takes recurrent layers apart into their time steps, frozen at the example's length.
These operators compute exactly what torch's do, with free sizes, and are translated to ONNX as layers.

Shapes: x [batch, time, features] (or [time, batch, features]), h and c [layers * directions, batch, size],
lengths int64 [batch] or None: the number of valid steps of each row.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SCHEMAS = {
    "lstm": "lstm(Tensor x, Tensor h, Tensor c, Tensor[] weights, bool bias, int layers, bool bidirectional, "
    "bool batch_first, Tensor? lengths) -> (Tensor, Tensor, Tensor)",
    "gru": "gru(Tensor x, Tensor h, Tensor[] weights, bool bias, int layers, bool bidirectional, "
    "bool batch_first, Tensor? lengths) -> (Tensor, Tensor)",
    "rnn": "rnn(Tensor x, Tensor h, Tensor[] weights, bool bias, int layers, bool bidirectional, "
    "bool batch_first, Tensor? lengths, str nonlinearity) -> (Tensor, Tensor)",
}


def _define() -> torch.library.Library:
    """Define the operators once in a process, however often the module is loaded."""
    library = torch.library.Library("rnnx", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.rnnx, name):
            library.define(schema)
            library.impl(name, IMPLEMENTATIONS[name], "CompositeExplicitAutograd")
            torch.library.register_fake(f"rnnx::{name}", _FAKES[name], lib=library)  # type: ignore[arg-type]
    return library


def _run(
    function: object, x: Tensor, hx: object, weights: list[Tensor], bias: bool, layers: int,
    bidirectional: bool, batch_first: bool, lengths: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Call torch's own layer. Rows are cut to their lengths one by one; a row of length 0 keeps its state."""
    if x.shape[1 if batch_first else 0] == 1:
        return _run_step(function, x, hx, weights, bias, layers, bidirectional, batch_first, lengths)
    if lengths is None:
        return function(x, hx, weights, bias, layers, 0.0, False, bidirectional, batch_first)  # type: ignore[operator, no-any-return]
    if not batch_first:
        x = x.transpose(0, 1)
    states = hx if isinstance(hx, tuple | list) else (hx,)
    rows: list[Tensor | None] = []
    ends: list[tuple[Tensor, ...]] = []
    for row, length in enumerate(lengths.tolist()):
        start = tuple(state[:, row : row + 1].contiguous() for state in states)
        if length == 0:
            rows.append(None)
            ends.append(start)
            continue
        row_hx = start if isinstance(hx, tuple | list) else start[0]
        y, *end = function(
            x[row : row + 1, :length], row_hx, weights, bias, layers, 0.0, False, bidirectional, True
        )  # type: ignore[operator]
        rows.append(y)
        ends.append(tuple(end))
    width = next((y.shape[2] for y in rows if y is not None), _width(states[0], bidirectional))
    out = x.new_zeros(x.shape[0], x.shape[1], width)
    for row, y in enumerate(rows):
        if y is not None:
            out[row, : y.shape[1]] = y[0]
    joined = tuple(torch.cat(parts, dim=1) for parts in zip(*ends, strict=True))
    return (out if batch_first else out.transpose(0, 1).contiguous(), *joined)


def _run_step(
    function: object, x: Tensor, hx: object, weights: list[Tensor], bias: bool, layers: int,
    bidirectional: bool, batch_first: bool, lengths: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Call torch's own layer on one step, without oneDNN: it packs the weights anew in every call."""
    flags = torch.backends.mkldnn.set_flags(_enabled=False, _fp32_precision=None)
    try:
        y, *ends = function(x, hx, weights, bias, layers, 0.0, False, bidirectional, batch_first)  # type: ignore[operator]
    finally:
        torch.backends.mkldnn.set_flags(_enabled=flags[0], _fp32_precision=None)
    if lengths is None:
        return (y, *ends)
    valid = (lengths > 0).reshape(1, -1, 1)
    starts = hx if isinstance(hx, tuple | list) else (hx,)
    kept = (torch.where(valid, end, start) for end, start in zip(ends, starts, strict=True))
    return (torch.where(valid.transpose(0, 1) if batch_first else valid, y, 0.0), *kept)


def _width(h: Tensor, bidirectional: bool) -> int:
    return int(h.shape[2]) * (2 if bidirectional else 1)


def _lstm(
    x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor], bias: bool, layers: int, bidirectional: bool,
    batch_first: bool, lengths: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    return _run(torch.lstm, x, (h, c), weights, bias, layers, bidirectional, batch_first, lengths)


def _gru(
    x: Tensor, h: Tensor, weights: list[Tensor], bias: bool, layers: int, bidirectional: bool,
    batch_first: bool, lengths: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    return _run(torch.gru, x, h, weights, bias, layers, bidirectional, batch_first, lengths)


def _rnn(
    x: Tensor, h: Tensor, weights: list[Tensor], bias: bool, layers: int, bidirectional: bool,
    batch_first: bool, lengths: Tensor | None, nonlinearity: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    function = torch.rnn_tanh if nonlinearity == "tanh" else torch.rnn_relu
    return _run(function, x, h, weights, bias, layers, bidirectional, batch_first, lengths)


def _fake(x: Tensor, h: Tensor, *rest: Tensor, bidirectional: bool) -> tuple[Tensor, ...]:
    y = x.new_empty(x.shape[0], x.shape[1], h.shape[2] * (2 if bidirectional else 1))
    return (y, torch.empty_like(h), *(torch.empty_like(state) for state in rest))


def _lstm_fake(x, h, c, weights, bias, layers, bidirectional, batch_first, lengths):  # type: ignore[no-untyped-def]
    return _fake(x, h, c, bidirectional=bidirectional)


def _gru_fake(x, h, weights, bias, layers, bidirectional, batch_first, lengths):  # type: ignore[no-untyped-def]
    return _fake(x, h, bidirectional=bidirectional)


def _rnn_fake(x, h, weights, bias, layers, bidirectional, batch_first, lengths, nonlinearity):  # type: ignore[no-untyped-def]
    return _fake(x, h, bidirectional=bidirectional)


IMPLEMENTATIONS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
_FAKES = {"lstm": _lstm_fake, "gru": _gru_fake, "rnn": _rnn_fake}
_LIBRARY = _define()
