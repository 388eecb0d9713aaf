"""ONNX Runtime, imported where it is needed, and told to keep to itself."""

from __future__ import annotations

import importlib
import os
from typing import Any

VARIABLE = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """Import onnxruntime. Raises what the import raises.

    Its official builds write an identifier into the home folder and report their use over the network, unless
    this variable says otherwise before they are loaded. Whoever has set it, to 0 too, is left alone.
    """
    os.environ.setdefault(VARIABLE, "1")
    return importlib.import_module("onnxruntime")
