"""rnnx: PyTorch networks with memory, as ONNX files whose memory is explicit.

Importing this package loads neither torch nor onnxruntime; what needs them is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rnnx.version import __version__

if TYPE_CHECKING:
    from rnnx.errors import (
        FileError,
        InputError,
        ModelError,
        ParityError,
        ProviderError,
        RefusedError,
        RnnxError,
        StreamError,
        UsageError,
    )
    from rnnx.model.contract import Contract
    from rnnx.pool.pool import Pool
    from rnnx.runtime.stream import Stream
    from rnnx.session import Session, load
    from rnnx.text.generation import generate
    from rnnx_export.api import export

_HOMES = {
    "Contract": "rnnx.model.contract",
    "Pool": "rnnx.pool.pool",
    "Session": "rnnx.session",
    "Stream": "rnnx.runtime.stream",
    "export": "rnnx_export.api",
    "generate": "rnnx.text.generation",
    "load": "rnnx.session",
    **dict.fromkeys(
        [
            "FileError",
            "InputError",
            "ModelError",
            "ParityError",
            "ProviderError",
            "RefusedError",
            "RnnxError",
            "StreamError",
            "UsageError",
        ],
        "rnnx.errors",
    ),
}

__all__ = [
    "Contract",
    "FileError",
    "InputError",
    "ModelError",
    "ParityError",
    "Pool",
    "ProviderError",
    "RefusedError",
    "RnnxError",
    "Session",
    "Stream",
    "StreamError",
    "UsageError",
    "__version__",
    "export",
    "generate",
    "load",
]


if not TYPE_CHECKING:  # with it, a type checker would take every name for one of these

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'rnnx' has no attribute {name!r}")
        return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
