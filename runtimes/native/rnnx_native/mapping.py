"""Files mapped into memory without a file descriptor, of which a process has a thousand."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt


def mapped(path: Path) -> npt.NDArray[np.uint8]:
    """Return the bytes of a file [size], read only, shared with all who map it.

    Python's own mmap keeps a duplicate of the descriptor as long as the mapping lives.

    Raises:
        OSError: the file cannot be read or mapped.
    """
    if sys.platform == "win32":
        return np.memmap(path, np.uint8, "r")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address is None or address == ctypes.c_void_p(-1).value:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
    memory = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(memory, libc.munmap, address, size)
    found: npt.NDArray[np.uint8] = np.ctypeslib.as_array(memory)
    found.flags.writeable = False
    return found
