"""Weights in the layout that the kernels read: packed tiles of 16 units (kernels/README.md)."""

from __future__ import annotations

import numpy as np

from rnnx_native.program.values import Array

LANES = 16


def blocks(units: int) -> int:
    """Return the number of packed tiles that hold `units` units."""
    return -(-units // LANES)


def packed_tiles(weights: Array) -> Array:
    """Return weights [gates, units, columns] as [blocks, columns, gates, 16], units padded with zeros."""
    gates, units, columns = weights.shape
    count = blocks(units)
    padded = np.zeros((gates, count * LANES, columns), weights.dtype)
    padded[:, :units] = weights
    return np.ascontiguousarray(padded.reshape(gates, count, LANES, columns).transpose(1, 3, 0, 2))


def starts(bias: Array) -> Array:
    """Return biases [gates, units] as [blocks, gates, 16], padded with zeros."""
    return packed_tiles(bias[:, :, None])[:, 0]


def packed_byte_tiles(weights: Array) -> Array:
    """Return float32 weights [gates, units, columns] as int8 [blocks, gates * 16 * (8 + columns)].

    A scale for each gate of each unit makes the largest weight 127; columns are filled up to a multiple of 4.
    Layout: kernels/i8.h.
    """
    wide = packed_tiles(weights)  # [blocks, columns, gates, 16]
    scale = np.abs(wide).max(1, initial=0.0) / 127  # [blocks, gates, 16]
    whole = np.rint(wide / np.where(scale == 0, 1, scale)[:, None]).astype(np.int8)
    padded = np.zeros((whole.shape[0], padded_bytes(whole.shape[1]) - 8, *whole.shape[2:]), np.int8)
    padded[:, : whole.shape[1]] = whole
    quads = padded.reshape(len(padded), -1, 4, *padded.shape[2:]).transpose(0, 1, 3, 4, 2)
    parts = [scale.astype("<f4"), whole.sum(1, dtype=np.int32).astype("<i4"), quads]
    flat = [np.ascontiguousarray(part).reshape(len(wide), -1).view(np.int8) for part in parts]
    return np.concatenate(flat, 1)


def padded_bytes(columns: int) -> int:
    """Return the bytes of one input row of 8 bits: 8 in front, then columns up to a multiple of 4."""
    return 8 + -(-columns // 4) * 4
