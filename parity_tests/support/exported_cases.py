"""Cases exported once in a run, by whichever test asks first; all that only read the file share it."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path

import rnnx
from rnnx.model.onnx_file import read_contract, read_model
from support.module_print import module_print, world_print
from support.plain_torch import CASES, build


def exported_case(name: str, kept: Path) -> Path:
    """Return the file of a case in the folder `kept`, its trace beside it; what fails is not kept.

    However often it is asked for, the export that made it left the caller's module and PyTorch as they were.
    """
    kept.mkdir(exist_ok=True)
    folder = kept / name
    with open(kept / f"{name}.lock", "w") as lock, tempfile.TemporaryDirectory(dir=kept) as place:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a parallel run share the folder
        if not folder.is_dir():
            made_in = Path(place) / "made"
            made_in.mkdir()
            _export(name, made_in)
            made_in.rename(folder)
    return folder / "model.onnx"


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
