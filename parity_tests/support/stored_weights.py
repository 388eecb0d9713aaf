"""What a recurrent layer and a readout give whose weights are stored in fewer bits: their own truth.

`f16`: each weight is the nearest half float. `int8`: a weight is a whole number in -127..127 times a scale
for each row of the matrix, and so is each row of what a matrix multiplies. Products and sums are as they
were. In float64 this is what compiled C rounds; in float32, what PyTorch would make of the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import rnnx
from rnnx.model.shapes import Array
from rnnx.parity.compare import stored_weights
from rnnx.parity.rounding import Meter

_TIE = 1e-4  # of a whole number; float32 at 128 is exact to a tenth of it


class StoredLayer:
    """One step of a recurrent layer and a linear readout of its `h`.

    Args:
        layer: `nn.LSTM`, `nn.GRU` or `nn.RNN` of one layer.
        readout: takes `h`.
        weights: `f32`, `f16` or `int8`.
        dtype: in which it is computed.
    """

    def __init__(self, layer: nn.RNNBase, readout: nn.Linear, weights: str, dtype: torch.dtype) -> None:
        self._weights, self._dtype = weights, dtype
        self._kind, self._relu = layer.mode[:4], layer.mode == "RNN_RELU"
        matrices = (layer.weight_ih_l0, layer.weight_hh_l0, readout.weight)
        self._wx, self._wh, self._wy = (self._stored(matrix) for matrix in matrices)
        biases = (layer.bias_ih_l0, layer.bias_hh_l0, readout.bias)
        self._bx, self._bh, self._by = (bias.detach().to(dtype) for bias in biases)

    def step(self, x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return the next states, float64 [batch, units], for x [batch, features] and the states before."""
        before = tuple(torch.from_numpy(value).to(self._dtype) for value in states)
        h = before[0]
        from_x, from_h = self._rows(x) @ self._wx.T + self._bx, self._rows(states[0]) @ self._wh.T + self._bh
        if self._kind == "LSTM":
            i, f, g, o = (from_x + from_h).chunk(4, 1)
            c = f.sigmoid() * before[1] + i.sigmoid() * g.tanh()
            return _array(o.sigmoid() * c.tanh()), _array(c)
        if self._kind == "GRU":
            (r, z, n), (hr, hz, hn) = from_x.chunk(3, 1), from_h.chunk(3, 1)
            z = (z + hz).sigmoid()
            return (_array((1 - z) * (n + (r + hr).sigmoid() * hn).tanh() + z * h),)
        total = from_x + from_h
        return (_array(total.relu() if self._relu else total.tanh()),)

    def read(self, h: Array) -> Array:
        """Return the readout of h [batch, units], float64 [batch, outputs]."""
        return _array(self._rows(h) @ self._wy.T + self._by)

    def decided(self, values: Array) -> Array:
        """Return which rows of `values` have no element between two whole numbers, where either is right."""
        if self._weights != "int8":
            return np.ones(len(values), bool)
        share = np.abs(values) * 127.0 / np.maximum(np.abs(values).max(1, keepdims=True), 1e-30) % 1
        return np.asarray((np.abs(share - 0.5) > _TIE).all(1))

    def _stored(self, matrix: nn.Parameter) -> torch.Tensor:
        values = matrix.detach().numpy()
        if self._weights == "f16":
            values = values.astype(np.float16)
        elif self._weights == "int8":
            scale = np.abs(values).max(1, keepdims=True) / np.float32(127)
            values = np.rint(values / np.where(scale == 0, 1, scale)) * scale.astype(np.float64)
        return torch.from_numpy(values).to(self._dtype)

    def _rows(self, values: Array) -> torch.Tensor:
        """Return rows as a matrix takes them; what decides their rounding is computed in float32."""
        if self._weights == "int8":
            largest = np.abs(values).max(1, keepdims=True)
            scale, inverse = (
                largest / np.float32(127),
                np.float32(127) / np.maximum(largest, np.float32(1e-30)),
            )
            values = np.floor(values * inverse + np.float32(0.5)) * scale.astype(np.float64)
        return torch.from_numpy(values).to(self._dtype)


def compare_stored(
    session: rnnx.Session, layer: nn.RNNBase, readout: nn.Linear, x: Array
) -> dict[str, float]:
    """Step a session and its own truth, each step from the session's states.

    Rows in which an element lies so near the middle of two whole numbers that either is right are left out.

    Args:
        session: of a layer and a readout, x -> y.
        layer, readout: the network.
        x: [step, batch, features], a window of steps at least.

    Returns:
        By tensor, the largest error of a window in units of what float32 costs PyTorch.
    """
    weights, states = stored_weights(session), session.contract.states
    true, own = (StoredLayer(layer, readout, weights, dtype) for dtype in (torch.float64, torch.float32))
    meter, worst = Meter(session.contract), {}
    with session.stream(batch=x.shape[1]) as stream:
        for step, row in enumerate(x):
            before = tuple(stream.state[state.name][0] for state in states)
            y = stream.step({"x": row})["y"]
            after = [stream.state[state.name][0] for state in states]
            stepped, read = true.decided(row) & true.decided(before[0]), true.decided(after[0])
            shown = [
                (f"state.{state.name}", stepped, got[None], wanted[None], rough[None])
                for state, got, wanted, rough in zip(
                    states, after, true.step(row, before), own.step(row, before), strict=True
                )
            ]
            shown.append(("output.y", read, y, true.read(after[0]), own.read(after[0])))
            for tensor, decided, got, wanted, rough in shown:
                right = np.where(decided[:, None], got, wanted).astype(got.dtype)
                excess = meter.add(step, tensor, wanted, right, rough)
                if excess is not None:
                    worst[tensor] = max(excess.ratio, worst.get(tensor, 0.0))
    return worst


def _array(values: torch.Tensor) -> Array:
    found: np.ndarray[Any, Any] = values.double().numpy()
    return found
