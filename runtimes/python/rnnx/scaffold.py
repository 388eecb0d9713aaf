"""A small complete program around a model, in another language: `rnnx embed`.

A language is a folder of template files, which are copied as they are, and the runtime's sources, which are
copied beside them; nothing is filled in, and no file has a name that a model chose. Both lie in
`runtimes/LANGUAGE`, or in the installed wheel.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from rnnx.errors import FileError, UsageError
from rnnx.files import followed, write_error
from rnnx.formats.trace_file import Trace, encode_trace, read_trace
from rnnx.model.external_data import relocated
from rnnx.model.onnx_file import (
    ModelFile,
    external_files,
    model_id,
    read_contract,
    read_model,
    write_contract,
)

MODEL, TRACE = "model.onnx", "model.trace.safetensors"  # what every template opens, and proves it by
# What is no part of a runtime: its tests, the conformance program, what was built from it.
_LEFT_OUT = (
    "template",
    "tests",
    "test",
    "replay",
    "build",
    "target",
    "node_modules",
    "types",
    "package-lock.json",
    "tsconfig.json",
    "examples",
    ".*",
    "*.lock",
    "*_test.go",
)


@dataclasses.dataclass(frozen=True)
class Language:
    """How a program of one language is put together.

    Attributes:
        runtimes: which runtimes' sources it needs, and where in the program they lie.
        command: what builds and runs it, as its README says; for people.
        left_out: parts of the runtime that are not copied, beside the usual ones.
    """

    runtimes: Mapping[str, str]
    command: str
    left_out: Sequence[str] = ()


_CMAKE = "cmake -S . -B build -DONNXRUNTIME_INCLUDE_DIR=... && cmake --build build && build/app"
LANGUAGES = {
    "c": Language({"c": "rnnx"}, _CMAKE),
    "cpp": Language({"c": "rnnx/c", "cpp": "rnnx/cpp"}, _CMAKE),
    "go": Language({"go": "rnnx"}, "go run .", ("cmd",)),
    "java": Language({"java": "rnnx"}, "mvn compile exec:java", ("tools",)),
    "node": Language({"node": "rnnx"}, "npm install --ignore-scripts && node main.js"),
    "rust": Language({"rust": "rnnx"}, "cargo run --release", ("bin",)),
    "web": Language({"node": "rnnx"}, "npm install --ignore-scripts && python3 -m http.server"),
}


def embed(language: str, model: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Write a program around a model, whole or not at all.

    Args:
        language: one of `LANGUAGES`.
        model: an exported model; weights that lie beside it come along, under names of their own, and so
            does its trace, which the program replays first.
        folder: the program's folder, which must not be there yet, or be empty.

    Returns:
        The folder.

    Raises:
        UsageError: `unknown-language`.
        FileError: `folder-not-empty`, `output-folder-missing`, `disk-full`, `cannot-write`,
            `sources-missing`, `name-taken`, `file-missing` or `cannot-read`.
        FileError: for a trace beside the model, as `rnnx.formats.trace_file.read_trace`.
        ModelError: as `rnnx.load`; nothing is loaded, but the contract is checked.
    """
    found = LANGUAGES.get(language)
    if found is None:
        raise UsageError(
            "unknown-language",
            expected=f"a language out of {', '.join(LANGUAGES)}",
            found=repr(language),
            fix="choose one of these",
        )
    opened = read_model(model)
    contract = read_contract(opened)
    beside = trace_beside(model)
    trace = None if beside is None else read_trace(beside, contract, model_id=opened.id)
    place = _check_folder(Path(folder))
    homes = {name: _sources(name) for name in (language, *found.runtimes)}
    try:
        with tempfile.TemporaryDirectory(prefix=f".{place.name[:40]}.", dir=place.parent) as temporary:
            made = Path(temporary) / "app"
            shutil.copytree(homes[language] / "template", made)
            for name, where in found.runtimes.items():
                ignored = shutil.ignore_patterns(*_LEFT_OUT, *found.left_out)
                shutil.copytree(homes[name], made / where, ignore=ignored)
            _put_model(made, opened, trace)
            if place.is_dir():
                place.rmdir()
            made.rename(place)
    except OSError as error:
        raise write_error(place, error) from error
    return place


def trace_beside(model: str | os.PathLike[str]) -> Path | None:
    """Return the trace that was exported beside a model, None if it is not there."""
    path = Path(model).with_suffix(".trace.safetensors")
    return path if path.is_file() else None


def _put_model(folder: Path, model: ModelFile, trace: Trace | None) -> None:
    """Write a model into a program's folder, and its trace, with its weights under names that are made here.

    Weights that lie in other files are renamed in the model too. That changes the model's id, and with it the
    contract's, and the proof's where it was of this file; the values are the same.
    """
    names = {location: f"weights-{index}.bin" for index, location in enumerate(external_files(model))}
    for name in (MODEL, TRACE, *names.values()):
        if (folder / name).exists():
            raise FileError(
                "name-taken",
                expected=f"no {name} in the program, where the model goes",
                found="one",
                fix="this is a fault of rnnx: report it",
            )
    for location, name in names.items():
        assert model.path is not None
        shutil.copyfile(model.path.parent / location, folder / name)
    data = _relocated(model, names, folder) if names else model.data
    (folder / MODEL).write_bytes(data)
    if trace is not None:
        identity = model_id(data, folder) if names else model.id
        (folder / TRACE).write_bytes(encode_trace(dataclasses.replace(trace, model_id=identity)))


def _relocated(model: ModelFile, names: Mapping[str, str], folder: Path) -> bytes:
    data = relocated(model.data, names)
    renamed = model_id(data, folder)
    contract = read_contract(model)
    proof = contract.proof
    if proof is not None and (proof.id or contract.id) == model.id:
        proof = msgspec.structs.replace(proof, id=renamed)
    return write_contract(data, msgspec.structs.replace(contract, id=renamed, proof=proof))


def _check_folder(folder: Path) -> Path:
    place = followed(folder)
    if not place.parent.is_dir():
        raise FileError(
            "output-folder-missing",
            expected=f"a folder at {folder.parent}",
            found="no such folder",
            fix=f"create it with 'mkdir -p {folder.parent}' or choose another place",
        )
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise FileError(
            "folder-not-empty",
            expected=f"nothing yet, or an empty folder, at {folder}",
            found="files in it" if place.is_dir() else "a file in its place",
            fix="choose another place, or remove it first",
        )
    return place


def _sources(language: str) -> Path:
    """Return the folder of a language's runtime: in the wheel, or in the checkout this package runs from."""
    package = Path(__file__).resolve().parent
    for home in (package / "_sources" / language, package.parents[1] / language):
        if (home / "README.md").is_file():
            return home
    raise FileError(
        "sources-missing",
        expected=f"the {language} runtime's sources with this rnnx",
        found="none",
        fix="install rnnx from its wheel, or run it from a whole checkout",
    )
