"""The part of the CUDA runtime that pinned memory needs, over ordinary memory: for machines without a GPU.

Its functions take what ctypes hands to the real ones, and count what is out.
"""

# ruff: noqa: N802 -- the names are CUDA's

from __future__ import annotations

import ctypes
from typing import Any

import rnnx
from rnnx.engines.ort_engine import OrtEngine
from rnnx.engines.ort_staging import Staging

_OUT_OF_MEMORY = 2


def apart(made: rnnx.Session, staging: Staging) -> rnnx.Session:
    """Return a session whose buffers lie apart from the host's arrays: on a device, the CPU in its place."""
    engine: Any = made.engine
    device = OrtEngine(engine.session, made.contract, "cpu", engine.options, "cpu", staging)
    device._mover = device.graph_mover()
    return rnnx.Session(made.contract, device, model_id=made.id, path=None)


class FakeCuda:
    """Stands in for the library.

    Attributes:
        current: the device that is the current one.
        held: the blocks that are out, by address.
        devices: the current device when each block was asked for.
        capacity: bytes there are.
    """

    def __init__(self, capacity: int = 1 << 30) -> None:
        self.current, self.capacity = 5, capacity
        self.held: dict[int, Any] = {}
        self.devices: list[int] = []
        # Functions, not methods: ctypes lets one set what a function returns.
        self.cudaGetErrorString = lambda code: {_OUT_OF_MEMORY: b"out of memory"}[code]

    def cudaGetDevice(self, place: Any) -> int:
        place._obj.value = self.current
        return 0

    def cudaSetDevice(self, device: ctypes.c_int) -> int:
        self.current = device.value
        return 0

    def cudaHostAlloc(self, place: Any, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:
        assert flags.value == 1, "portable"
        self.devices.append(self.current)
        if self.used() + size.value > self.capacity:
            return _OUT_OF_MEMORY
        if not size.value:
            place._obj.value = None
            return 0
        block = ctypes.create_string_buffer(size.value)
        place._obj.value = ctypes.addressof(block)
        self.held[place._obj.value] = block
        return 0

    def cudaFreeHost(self, place: ctypes.c_void_p) -> int:
        assert place.value is not None
        del self.held[place.value]
        return 0

    def cudaMemcpy(
        self, target: ctypes.c_void_p, source: ctypes.c_void_p, size: ctypes.c_size_t, kind: ctypes.c_int
    ) -> int:
        assert kind.value == 2, "to the host"
        assert target.value in self.held, "into an array that is not pinned"
        ctypes.memmove(target, source, size.value)
        return 0

    def used(self) -> int:
        """Return how many bytes are out."""
        return sum(len(block) for block in self.held.values())
