"""`rnnx compile` as a function: an ONNX file in, a folder of C out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import onnx

from rnnx.errors import FileError, ModelError, UsageError, first_line
from rnnx.files import read_bytes, write_all, write_error
from rnnx.formats.trace_file import encode_trace, read_trace
from rnnx.model.contract import Contract
from rnnx.model.lengths import RECURRENT, GraphNode, lengths_of, sources
from rnnx.model.onnx_file import ModelFile, read_contract, read_model
from rnnx.tolerance import Bound
from rnnx_native.c_source.folder import write_files
from rnnx_native.c_source.struct_sizes import struct_sizes
from rnnx_native.lowering.compiled_model import Unit, make_unit
from rnnx_native.onnx_graph.fuse_bias import fuse
from rnnx_native.onnx_graph.read import Graph, read_graph
from rnnx_native.program.c_names import c_name
from rnnx_native.program.ports import has_free_rows
from rnnx_native.quantisation_cost import Cost, allowed, measure_cost, require_allowed
from rnnx_native.refusals import refuse

CHUNK = 16
WEIGHTS = ("f32", "f16", "int8")
_MOST, _LARGEST = 1 << 16, 1 << 24  # rows, or steps at once; elements of a dimension: what C compilers take
# Beside the model's own header and example.c: headers of C, which others include, and targets of CMake's own.
_HEADERS = """
    example alloca arm_neon endian features immintrin intrin assert complex ctype errno fenv float inttypes
    iso646 limits locale math setjmp signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib
    stdnoreturn string tgmath threads time uchar wchar wctype
"""
_TARGETS = "all all_build clean edit_cache help install package rebuild_cache run_tests test zero_check"
_TAKEN = {*_HEADERS.split(), *_TARGETS.split()}
MANY = 16  # streams that step together as one batch


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What `compile_model` wrote.

    Attributes:
        folder: where.
        files: their paths within it.
        name: prefix of all names in C.
        weight_bytes: of the parameters.
        state_bytes: of the C structure that is a stream's state, on a processor of 64 bits, with its room
            for intermediate results.
        scratch_bytes: of that room alone.
        has_trace: whether there was one to copy.
        cost: what weights of fewer bits cost, None for float32.
    """

    folder: Path
    files: tuple[str, ...]
    name: str
    weight_bytes: int
    state_bytes: int
    scratch_bytes: int
    has_trace: bool
    cost: Cost | None = None


def compile_model(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    batch: int = 1,
    dims: Mapping[str, int] | None = None,
    chunk: int = CHUNK,
    weights: str = "f32",
    accept: bool = False,
) -> Compiled:
    """Write a model as C99 into a folder, which is made if it is missing.

    Args:
        source: the ONNX file; a trace beside it, NAME.trace.safetensors, is copied; with weights of fewer
            bits, held to what these allow.
        folder: to write to.
        name: prefix of all names in C and of the files; the model file's own name unless given.
        batch: rows that one state steps side by side.
        dims: sizes of free dimensions, all of them.
        chunk: steps that a chunk computes at once: more needs more room in each state.
        weights: what matrices are stored in, `f32`, `f16` or `int8`; what the others cost is measured
            first, with the native provider and so with a C compiler.
        accept: whether they may cost more than the tolerance table allows.

    Raises:
        UsageError: `not-accepted`, `unknown-weights`.
        ModelError: `cannot-compile` for an operator that C does not have yet, or as `rnnx.load` does.
        UsageError: `wrong-size`, `missing-dimension` or `unknown-dimension`.
        FileError: `file-missing`, `cannot-read`, `output-not-a-folder`, or as `rnnx.files` says.
    """
    model = read_model(source)
    contract = read_contract(model)
    path = Path(source)
    if weights not in WEIGHTS:
        raise _wrong(
            "unknown-weights", f"weights out of {', '.join(WEIGHTS)}", repr(weights), "use one of these"
        )
    _check_name(c_name(name or path.stem))
    unit = unit_of(
        model, contract, name=name or path.stem, batch=batch, dims=dims or {}, chunk=chunk, weights=weights
    )
    cost = None if weights == "f32" else measure_cost(source, weights, dims=dims)
    if cost is not None and not accept:
        require_allowed(cost)
    trace = _trace_beside(path, model, contract, weights)
    files = write_files(unit, trace=trace, source=path.name)
    target = _folder(Path(folder))
    kernels = _folder(target / "kernels")
    try:
        write_all({target / entry: data for entry, data in files.items()})
    except FileError:
        with contextlib.suppress(OSError):  # it was there before, and holds something
            kernels.rmdir()
        raise
    return Compiled(
        target,
        tuple(files),
        unit.name,
        len(files[f"{unit.name}.weights"]) - 192,
        *struct_sizes(unit),
        trace is not None,
        cost,
    )


def _trace_beside(path: Path, model: ModelFile, contract: Contract, weights: str) -> bytes | None:
    """Return the trace beside a model, held to what its weights allow; None if there is none."""
    beside = path.with_name(f"{path.stem}.trace.safetensors")
    if not beside.is_file():
        return None
    if weights == "f32":
        return read_bytes(beside, what="a trace")
    trace = read_trace(beside, contract, model_id=model.id)
    bound = allowed(weights)
    wider = {
        name: Bound(max(old.absolute, bound.absolute), max(old.relative, bound.relative))
        for name, old in trace.tolerances.items()
    }
    return encode_trace(dataclasses.replace(trace, tolerances=wider))


def unit_of(
    model: ModelFile,
    contract: Contract,
    *,
    name: str,
    batch: int,
    dims: Mapping[str, int],
    chunk: int,
    weights: str = "f32",
) -> Unit:
    """Compile a model that was read. Raises as `compile_model` does."""
    if contract.whole_only:
        raise ModelError(
            "cannot-compile",
            expected="a network that can be stepped",
            found=f"one for whole sequences only, because of {contract.whole_only}",
            fix="run this model with provider cpu",
        )
    _check_size("batch", batch)
    _check_size("chunk", chunk)
    if batch != 1 and not contract.has_batch:
        raise _wrong(
            "wrong-size", "batch 1, since the model has no batch axis", str(batch), "leave --batch out"
        )
    free = contract.free_dimensions
    for dim, size in dims.items():
        if dim not in free:
            raise _wrong(
                "unknown-dimension", f"dimensions {', '.join(free) or '(none)'}", repr(dim), "leave it out"
            )
        _check_size(dim, size)
    for dim in free:
        if dim not in dims:
            raise _wrong("missing-dimension", f"the size of {dim!r}", "none", f"give it: --dim {dim}=N")
    return make_unit(
        _graph(model, contract),
        contract,
        name=c_name(name),
        model_id=model.id,
        sizes={**dims, "batch": batch},
        programs=programs(contract, batch, chunk),
        kind=weights,
    )


def programs(contract: Contract, batch: int, chunk: int) -> list[tuple[int, int]]:
    """Return the rows and steps of the programs that a model needs: single steps, chunks, many streams."""
    found = [(batch, 1)]
    if contract.has_time and chunk > 1:
        found.append((batch, chunk))
    if batch == 1 and has_free_rows(contract):
        found.append((MANY, 1))
    return found


def engine_unit(
    model: ModelFile, contract: Contract, fixed: Mapping[str, int], *, chunk: int, weights: str
) -> Unit:
    """Compile a model for the engine.

    Args:
        model: as read.
        contract: of the model.
        fixed: sizes of batch and the free dimensions, and of time for a model of whole sequences.
        chunk: steps to compute at once.
        weights: what matrices are stored in.

    Raises:
        ModelError: `cannot-compile`.
    """
    batch = fixed["batch"]
    keys = [(batch, fixed["time"])] if contract.whole_only else programs(contract, batch, chunk)
    sizes = {name: size for name, size in fixed.items() if name != "time"}
    graph = _graph(model, contract)
    return make_unit(
        graph, contract, name="model", model_id=model.id, sizes=sizes, programs=keys, kind=weights
    )


def _graph(model: ModelFile, contract: Contract) -> Graph:
    """Return the graph to compile. Raises ModelError `cannot-compile`."""
    graph = read_graph(_onnx_model(model))
    if contract.has_time and not contract.whole_only:
        _require_counted_lengths(graph, contract)
    return fuse(graph)


def _require_counted_lengths(graph: Graph, contract: Contract) -> None:
    """Refuse other lengths than the contract's: only those are counted anew for each block of a call."""
    counted = {spec.name for spec in contract.inputs if spec.role == "length"}
    nodes = [GraphNode(node.op, node.inputs, node.outputs) for node in graph.nodes]
    makers = {name: node for node in nodes for name in node.outputs}
    for node, shown in zip(nodes, graph.nodes, strict=True):
        name = lengths_of(node) if node.operator in RECURRENT else ""
        if name and not counted & sources(name, makers):
            raise refuse(shown, f"its sequence_lens {name!r} comes from no input with the role of a length")


def _onnx_model(model: ModelFile) -> onnx.ModelProto:
    try:
        if model.external and model.path is not None:
            return onnx.load(str(model.path))
        return onnx.load_model_from_string(model.data)
    except MemoryError:
        raise
    except Exception as error:  # of protobuf and of onnx, which have no class in common
        raise ModelError(
            "not-onnx",
            expected=f"an ONNX model that the package onnx can read in {model.label}",
            found=first_line(error),
            fix="export it again",
        ) from error


def _folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise FileError(
            "output-not-a-folder",
            expected=f"a folder, or nothing yet, at {path}",
            found="a file",
            fix="name a folder",
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    return path


def _check_name(name: str) -> None:
    """Refuse names of files that stand beside the model's, or that C and CMake have for themselves."""
    if name.lower() in _TAKEN:
        what = "a name that is free in C and CMake"
        raise _wrong("wrong-name", what, repr(name), "give another with --name")


def _check_size(name: str, size: int) -> None:
    most = _MOST if name in ("batch", "chunk") else _LARGEST
    if not 1 <= size <= most:
        raise _wrong("wrong-size", f"{name} as a number in 1..{most}", str(size), "change it")


def _wrong(code: str, expected: str, found: str, fix: str) -> UsageError:
    return UsageError(code, expected=expected, found=found, fix=fix)
