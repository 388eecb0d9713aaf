"""The parts of rnnx that are fed: for each, how an input is made and what is done with it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import itertools
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing import arrays, edits, models
from fuzzing.seeds import seeds
from fuzzing.worker import RejectionError
from rnnx import cli, session
from rnnx.cli import group
from rnnx.engines.ort_import import import_onnxruntime
from rnnx.formats import trace_file
from rnnx.formats.array_files import read_arrays
from rnnx.model.contract import step_shape
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.model.shapes import chunk_shape
from rnnx.replay import Replay
from rnnx.scaffold import LANGUAGES
from support.c_tokens import tokens
from support.replay_programs import READERS

MODEL = "model.onnx"
# Imported once, before children are forked; nothing is opened.
import_onnxruntime()
for name in (
    *("rnnx.engines.ort_engine", "rnnx.cli.run", "rnnx.cli.run_pool", "rnnx.cli.compile", "rnnx.cli.embed"),
    *("rnnx_native.engine", "rnnx_native.compile", "rnnx_native.c_source.engine_text"),
):
    importlib.import_module(name)
Files = Mapping[str, bytes]


@dataclasses.dataclass(frozen=True)
class Target:
    """A part of rnnx.

    Attributes:
        make: returns the files of one input by name.
        use: does what a user would do with them, in the folder where they lie; or the language whose program
            reads the model (drivers.py).
        heavy: how many times as long as reading a file it takes, roughly.
    """

    make: Callable[[random.Random], Files]
    use: Callable[[Path], None] | str
    heavy: float = 1


def _model(rng: random.Random, *, nodes: float = 0.0) -> Files:
    data = rng.choice(seeds()).model
    for _ in range(rng.choice((1, 1, 2))):
        with contextlib.suppress(Exception):  # the second edit may find what it cannot read
            data = models.edit_model(data, rng, nodes=nodes)
    return {MODEL: data, "weights": bytes(range(64))}


def _contract(rng: random.Random) -> Files:
    """A model whose contract says something else, or is none, with tensors in other files now and then."""
    return {MODEL: models.edit_contract(rng.choice(seeds()).model, rng), "weights": bytes(range(64))}


_nodes = functools.partial(_model, nodes=0.75)  # of which most get as far as an engine


def _snapshot(rng: random.Random) -> Files:
    seed = rng.choice(seeds())
    return {MODEL: seed.model, "state": arrays.edit_safetensors(seed.snapshot, rng)}


def _trace(rng: random.Random) -> Files:
    seed = rng.choice([seed for seed in seeds() if seed.trace])
    return {MODEL: seed.model, "model.trace.safetensors": arrays.edit_safetensors(seed.trace, rng)}


def _inputs(rng: random.Random) -> Files:
    seed = rng.choice(seeds())
    suffix = rng.choice(("npz", "npz", "npy", "safetensors", "jsonl"))
    if suffix == "npz":
        data = arrays.npz(seed.inputs, rng)
    elif suffix == "npy":
        data = arrays.edit_npy(arrays.npy(next(iter(seed.inputs.values()))), rng)
    elif suffix == "safetensors":
        data = arrays.edit_safetensors(arrays.safetensors(seed.inputs), rng)
    else:
        content = {name: value.tolist() for name, value in seed.inputs.items()}
        data = edits.edit_json_text(content, rng).encode("utf-8", "surrogatepass")
    return {MODEL: seed.model, f"x.{suffix}": data}


def command(*words: str) -> str:
    """Run `rnnx WORDS` as a user does; return what it prints.

    Raises:
        RejectionError: it ended in a way that no command may.
        RnnxError: it was refused.
    """
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(printed):
        try:
            cli.app([*words], standalone_mode=False)
        except Exception as error:
            told = group.as_rnnx_error(error)
            if told.code == "internal":
                raise  # by its own name, from where it came
            raise told from error
    return printed.buffer.getvalue().decode()  # type: ignore[attr-defined]


def _inspect(folder: Path) -> None:
    for options in ([], ["--json"]):
        shown = command("inspect", MODEL, *options)
        strange = [letter for letter in shown if not letter.isprintable() and letter != "\n"]
        if strange:
            raise RejectionError("text", f"{strange[0]!r} on the terminal")


def _load(folder: Path) -> None:
    read_contract(read_model(MODEL))
    session.load(MODEL, "cpu")


def _run(provider: str) -> Callable[[Path], None]:
    def use(folder: Path) -> None:
        loaded = session.load(MODEL, provider)
        contract = loaded.contract
        dims = dict.fromkeys(contract.free_dimensions, 3)
        stream = loaded.stream(batch=2 if contract.has_batch else 1, dims=dims)
        if contract.whole_only is None:
            stream.step(_values(contract, dims, step_shape))
        stream.run(_values(contract, {**dims, "time": 3}, functools.partial(chunk_shape, contract)))
        stream.restore(stream.snapshot())

    return use


def _values(contract: Any, dims: Mapping[str, int], shape_of: Callable[[Any], Any]) -> dict[str, Any]:
    """Return an input of ones for each that has no default."""
    sizes = {"batch": 2, "time": 1, **dims}
    found = {}
    for spec in contract.inputs:
        if spec.default is None and spec.role != "length":
            found[spec.name] = np.ones([_size(entry, sizes) for entry in shape_of(spec)], spec.dtype)
    return found


def _size(dimension: int | str, sizes: Mapping[str, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    factor, _, name = dimension.rpartition("*")
    return min(int(factor or 1) * sizes.get(name, 3), 1 << 20)


def _compile(folder: Path) -> None:
    sizes = [
        word for name in read_contract(read_model(MODEL)).free_dimensions for word in ("--dim", f"{name}=3")
    ]
    command("compile", MODEL, "-o", "out", "--quiet", *sizes)
    for path in sorted((folder / "out").iterdir()):
        if path.suffix in (".c", ".h"):
            _require_no_text(path)


def _require_no_text(path: Path) -> None:
    """Refuse code in which two names stand side by side that only a model's text has."""
    try:
        found = [word for _, word in tokens(path.read_text())]
    except AssertionError as error:
        raise RejectionError("text", f"{path.suffix}: {str(error).splitlines()[0]}") from None
    if edits.ESCAPED in itertools.pairwise(found):
        raise RejectionError("text", f"a text of the model as code in {path.suffix}")


def _embed(folder: Path) -> None:
    language = list(LANGUAGES)[len((folder / MODEL).read_bytes()) % len(LANGUAGES)]
    command("embed", language, MODEL, "-o", "out", "--quiet")
    for path in (folder / "out").rglob("*"):
        own = path.name == MODEL or path.name.startswith("weights-")
        if path.is_file() and not own and edits.ESCAPED[0].encode() in path.read_bytes():
            raise RejectionError("text", f"a text of the model in {path.name}")


def _read_inputs(folder: Path) -> None:
    name = next(path.name for path in folder.iterdir() if path.name != MODEL)
    if name.endswith(".jsonl"):
        command("run", MODEL, "--pool", "--input", name, "--output", "out.jsonl", "--quiet")
    else:
        read_arrays(name)
        command("run", MODEL, "--input", name, "--output", "out.npz", "--quiet")


def _restore(folder: Path) -> None:
    loaded = session.load(MODEL)
    stream = loaded.stream(dims=dict.fromkeys(loaded.contract.free_dimensions, 3))
    stream.restore((folder / "state").read_bytes())
    if loaded.contract.whole_only is None:
        sizes = dict.fromkeys(loaded.contract.free_dimensions, 3) | {"batch": 1}
        stream.step(_values(loaded.contract, sizes, step_shape))


def _replay(folder: Path) -> None:
    loaded = session.load(MODEL)
    trace = trace_file.read_trace("model.trace.safetensors", loaded.contract, model_id=loaded.id)
    Replay(loaded, trace).run([2, 1])


TARGETS: dict[str, Target] = {
    "inspect": Target(_model, _inspect),
    "load": Target(_nodes, _load, 2),
    "run-cpu": Target(_nodes, _run("cpu"), 2),
    "run-native": Target(_nodes, _run("native"), 20),
    "compile": Target(_nodes, _compile, 6),
    "embed": Target(_model, _embed, 2),
    "inputs": Target(_inputs, _read_inputs, 2),
    "snapshots": Target(_snapshot, _restore, 2),
    "traces": Target(_trace, _replay, 2),
    **{f"contract-{language}": Target(_contract, language, 0.1) for language in READERS},
}
