"""Cases exported once, by whichever test asks first; all that only read the file share it."""

from __future__ import annotations

from pathlib import Path

import rnnx
from rnnx.model.onnx_file import read_contract, read_model
from support.kept import once
from support.module_print import module_print, world_print
from support.plain_torch import CASES, build


def exported_case(name: str, folder: Path) -> Path:
    """Return the file of a case in the folder where exports are kept, its trace beside it.

    However often it is asked for, the export that made it left the caller's module and PyTorch as they were.
    """
    return once(folder / name, lambda made: _export(name, made)) / "model.onnx"


def _export(name: str, folder: Path) -> None:
    module = build(CASES[name])
    before, world = module_print(module), world_print()
    made = rnnx.export(module, folder / "model.onnx", **CASES[name].arguments)
    assert module_print(module) == before, "the caller's module changed"
    assert world_print() == world, "PyTorch's own settings changed"
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "model.trace.safetensors"}
    assert made.path == folder / "model.onnx"
    assert made.trace == folder / "model.trace.safetensors"
    assert made.contract == read_contract(read_model(made.path))
