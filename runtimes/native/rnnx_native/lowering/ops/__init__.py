"""The operators' writers, a file a family. Importing this package registers them all."""

from rnnx_native.lowering.ops import (
    convolve,
    elementwise,
    fourier,
    indexing,
    linear,
    loops_over_time,
    normalise,
    pooling,
    recurrent,
    reduce,
    resize,
    scatter,
    shapes,
)

__all__ = [
    "convolve",
    "elementwise",
    "fourier",
    "indexing",
    "linear",
    "loops_over_time",
    "normalise",
    "pooling",
    "recurrent",
    "reduce",
    "resize",
    "scatter",
    "shapes",
]
