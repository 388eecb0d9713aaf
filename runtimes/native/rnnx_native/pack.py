"""Weights in the layout that the kernels read: panels of 16 units (kernels/README.md)."""

from __future__ import annotations

import numpy as np

from rnnx_native.values import Array

LANES = 16


def blocks(units: int) -> int:
    """Return the number of panels that hold `units` units."""
    return -(-units // LANES)


def panels(weights: Array) -> Array:
    """Return weights [gates, units, columns] as [blocks, columns, gates, 16], units padded with zeros."""
    gates, units, columns = weights.shape
    count = blocks(units)
    padded = np.zeros((gates, count * LANES, columns), weights.dtype)
    padded[:, :units] = weights
    return np.ascontiguousarray(padded.reshape(gates, count, LANES, columns).transpose(1, 3, 0, 2))


def starts(bias: Array) -> Array:
    """Return biases [gates, units] as [blocks, gates, 16], padded with zeros."""
    return panels(bias[:, :, None])[:, 0]
