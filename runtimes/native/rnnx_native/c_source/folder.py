"""All files of a compiled model."""

from __future__ import annotations

from rnnx_native.c_source import kernels
from rnnx_native.c_source.files import cmake_text, example_text, header, source_text, weights_text
from rnnx_native.c_source.replay_text import replay_text
from rnnx_native.lowering.compiled_model import Unit, weights_file


def write_files(unit: Unit, *, trace: bytes | None, source: str) -> dict[str, bytes]:
    """Return the content of all files by path within the folder.

    Args:
        unit: the model.
        trace: that came with the model, None if there is none.
        source: what the model file is called, for remarks.
    """
    name = unit.name
    files = {
        f"{name}.h": header(unit, source),
        f"{name}.c": source_text(unit, source),
        f"{name}_weights.c": weights_text(unit, source),
        f"{name}_test.c": replay_text(unit, source),
        "example.c": example_text(unit, source),
        "CMakeLists.txt": cmake_text(unit, trace is not None),
    }
    files |= kernels.files(files[f"{name}.c"])
    found = {path: text.encode() for path, text in files.items()}
    found[f"{name}.weights"] = weights_file(unit)
    if trace is not None:
        found[f"{name}.trace.safetensors"] = trace
    return found
