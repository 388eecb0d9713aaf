"""The host arrays that what lies on a device is filled from and read into.

A GPU reads and writes pinned memory by itself; from or to an ordinary array the driver first copies into
pinned memory of its own. ONNX Runtime's Python interface allocates no pinned memory for its CUDA provider,
so this asks the CUDA runtime, the very library that the provider has loaded.
"""

from __future__ import annotations

import ctypes
import math
import sys
import weakref
from typing import Any, Protocol

import numpy as np

from rnnx.errors import ProviderError, first_line
from rnnx.model.shapes import Array, empty

_PORTABLE = 1  # cudaHostAllocPortable: pinned for every device, whichever is the current one
_TO_HOST = 2  # cudaMemcpyDeviceToHost


class Staging(Protocol):
    """Where host arrays come from, and how they are read into."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an uninitialised host array."""

    def fetch(self, value: Any, array: Array) -> None:
        """Overwrite `array` with `value`, an OrtValue of its shape and dtype."""


class Pageable:
    """Ordinary memory."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an uninitialised host array."""
        return empty(shape, dtype)

    def fetch(self, value: Any, array: Array) -> None:
        """Overwrite `array` with `value`."""
        array[...] = value.numpy()


class Pinned:
    """Pinned memory, of one GPU.

    Args:
        cuda: the CUDA runtime library.
        device: number of the GPU.

    Both methods raise ProviderError `no-pinned-memory`.
    """

    def __init__(self, cuda: Any, device: int) -> None:
        self._cuda, self._device = cuda, device
        cuda.cudaGetErrorString.restype = ctypes.c_char_p

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an uninitialised host array, given back to CUDA when nothing looks into it any more."""
        kind = np.dtype(dtype)
        size = kind.itemsize * math.prod(shape)
        place, before = ctypes.c_void_p(), ctypes.c_int()
        # On a GPU that is not in use otherwise, CUDA would take memory for its own ends.
        self._call("cudaGetDevice", ctypes.byref(before))
        self._call("cudaSetDevice", ctypes.c_int(self._device))
        try:
            # Nothing of nothing would be no address.
            wanted = ctypes.c_size_t(max(size, 1))
            self._call("cudaHostAlloc", ctypes.byref(place), wanted, ctypes.c_uint(_PORTABLE))
        finally:
            self._call("cudaSetDevice", before)
        assert place.value is not None
        memory: Any = (ctypes.c_byte * size).from_address(place.value)
        # When the process ends, all of it is given back at once, and CUDA may be gone by then.
        weakref.finalize(memory, self._cuda.cudaFreeHost, place).atexit = False
        return np.ndarray(shape, kind, memory)

    def fetch(self, value: Any, array: Array) -> None:
        """Overwrite `array`, made by `empty`, with `value`."""
        source, target = ctypes.c_void_p(value.data_ptr()), ctypes.c_void_p(array.ctypes.data)
        self._call("cudaMemcpy", target, source, ctypes.c_size_t(array.nbytes), ctypes.c_int(_TO_HOST))

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            raise _refused(f"{name}: {self._cuda.cudaGetErrorString(code).decode()}")


def pinned(ort: Any, device: int) -> Pinned:
    """Return pinned memory by way of the CUDA runtime that `ort`, the module onnxruntime, was built for.

    Raises:
        ProviderError: `no-pinned-memory` if that library cannot be loaded, or refuses a single byte.
    """
    version = str(ort.cuda_version).partition(".")[0]
    name = f"cudart64_{version}.dll" if sys.platform == "win32" else f"libcudart.so.{version}"
    try:
        cuda = ctypes.CDLL(name)
    except OSError as error:
        raise _refused(first_line(error)) from error
    made = Pinned(cuda, device)
    made.empty((1,), "bool")
    return made


def _refused(found: str) -> ProviderError:
    return ProviderError(
        "no-pinned-memory",
        expected="CUDA to give pinned host memory",
        found=found,
        fix="free memory, or load the model with the option pinned=False",
    )
