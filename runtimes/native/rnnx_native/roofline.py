"""The roofline bound of a model's step: nothing that computes it in float32, on one core, can be faster.

Every weight of a matrix is read once a step, and multiplied once for each stream. Whichever of the two takes
longer is the bound. Rows that are looked up for a token are neither.
"""

from __future__ import annotations

import ctypes
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rnnx.bench.candidates import FREE_SIZE, Step
from rnnx.model.onnx_file import read_contract, read_model
from rnnx_native.build_cache import kept
from rnnx_native.compile import engine_unit

_SOURCE = Path(__file__).with_name("templates") / "roofline.c"
# Sums in any order. Not -ffast-math: what is linked with it makes a process treat tiny numbers as zero.
_ANY_ORDER = ("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math")
_FLAGS = ("-O3", "-march=native", *_ANY_ORDER, "-mprefer-vector-width=512", "-funroll-loops")
_CALIBRATION_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class RooflineCandidate:
    """What a step costs at least, as a candidate of `rnnx bench`.

    Attributes:
        path: of the model.
        name: for tables.
        optional: whether its failure is a remark rather than an error.
    """

    path: Path
    name: str = "floor"
    optional: bool = True

    def load(self) -> RooflineBound:
        """Count the weights; build the loops. Raises as `compile` and `build_cache` of this package."""
        model = read_model(self.path)
        contract = read_contract(model)
        fixed = {**dict.fromkeys(contract.free_dimensions, FREE_SIZE), "batch": 1}
        unit = engine_unit(model, contract, fixed, chunk=1, weights="f32")
        return RooflineBound(sum(array.size for name, array in unit.weights.items() if "_tiles" in name))


class RooflineBound:
    """Loops that read, or multiply by, so many weights.

    Args:
        weights: elements of all matrices that a step multiplies by.
    """

    def __init__(self, weights: int) -> None:
        self.weights = weights
        folder = kept(
            [_SOURCE.read_text(), *_FLAGS],
            lambda: {"roofline.c": _SOURCE.read_bytes()},
            {"roofline.so": [*_FLAGS, "-fPIC", "-shared", "roofline.c"]},
        )
        library = ctypes.CDLL(str(folder / "roofline.so"))
        self._read = library.rnnx_read
        self._read.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
        self._multiply = library.rnnx_multiply
        self._multiply.argtypes = [ctypes.c_long, ctypes.c_float]
        self._memory = np.zeros(weights + 128, np.float32)

    def read(self, times: int) -> object:
        """Read all weights, so many times."""
        return self._read(self._memory.ctypes.data, self.weights, times)

    def steps(self, streams: int) -> Step:
        """Return what takes as long as a step of so many streams must."""
        loops: list[Step] = [
            lambda: self.read(1),
            lambda: self._multiply(self.weights * streams, 0.5),
        ]
        return max(loops, key=_seconds)


def _seconds(loop: Callable[[], object]) -> float:
    """Return the least time of a call, of as many as a short while allows."""
    least, end = float("inf"), time.perf_counter() + _CALIBRATION_SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        loop()
        least = min(least, time.perf_counter() - begin)
    return least
