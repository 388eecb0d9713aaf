"""The faults in parity_tests/golden/faults, and errors.json: what every runtime must say to each of them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import rnnx
from rnnx import replay
from rnnx.formats.safetensors_file import decode_tensors, encode_tensors
from rnnx.model.contract import Contract, Vocabulary
from rnnx.model.onnx_file import read_contract, read_model, write_contract
from rnnx.model.shapes import Array
from support.external_models import Put, constant, external, initializer, inner_constant, with_tensor

GRU, FEED, IDS, HOPS = "gru.onnx", "faults/feed.safetensors", "ids.onnx", "hops.onnx"


def fed(**tensors: Array) -> Callable[[Path], bytes]:
    """A file of inputs for one step."""
    return lambda folder: encode_tensors(tensors, {})


def x(*shape: int, dtype: str = "float32", **entries: float) -> Array:
    """Return ones, with the first entries of the last axis as they are named: x(1, 4, at2=nan)."""
    array = np.ones(shape, dtype)
    for place, value in entries.items():
        array[..., int(place.removeprefix("at"))] = value
    return array


def ids(token: int, *, shift: int = 0) -> Callable[[Path], bytes]:
    """Inputs of one step of the model with ranges."""
    return fed(token=np.array([token]), shift=np.array([shift], np.int8), level=np.ones(1, np.float32))


def contract_of_gru(**changes: Any) -> Callable[[Path], bytes]:
    """The GRU with fields of its contract replaced, as JSON would hold them."""

    def make(folder: Path) -> bytes:
        model = read_model(folder / GRU)
        fields = msgspec.to_builtins(read_contract(model)) | changes
        return write_contract(model.data, msgspec.convert(fields, Contract))

    return make


def range_backwards(folder: Path) -> bytes:
    """The model with ranges, one of them the wrong way round."""
    model = read_model(folder / IDS)
    contract = read_contract(model)
    inputs = [msgspec.structs.replace(spec, range=(spec.range or (0, 0))[::-1]) for spec in contract.inputs]
    return write_contract(model.data, msgspec.structs.replace(contract, inputs=inputs))


def without_end(folder: Path) -> bytes:
    """A model whose outputs come late, and that has no state to say that a sequence is over."""
    model = read_model(folder / "late.onnx")
    contract = read_contract(model)
    states = [msgspec.structs.replace(state, role=msgspec.UNSET) for state in contract.states]
    return write_contract(model.data, msgspec.structs.replace(contract, states=states))


def too_few_symbols(folder: Path) -> bytes:
    """The model of ids as one of symbols, of which it has one: fewer than it gives scores."""
    model = read_model(folder / IDS)
    contract = read_contract(model)
    inputs = [msgspec.structs.replace(spec, range=None) for spec in contract.inputs]
    vocabulary = Vocabulary(input=inputs[0].name, output=contract.outputs[0].name, symbols=["a"])
    return write_contract(model.data, msgspec.structs.replace(contract, inputs=inputs, vocabulary=vocabulary))


def without_contract(folder: Path) -> bytes:
    """The GRU as any other exporter would have written it."""
    data = read_model(folder / GRU).data
    # The contract is the last field of the file, and the only one whose text begins so.
    marked = write_contract(data, msgspec.structs.replace(read_contract(read_model(folder / GRU)), id=""))
    return marked.replace(b"rnnx.contract", b"else.contract")


def snapshot(model: str, *, batch: int = 1, position: int = 3, **metadata: str) -> Callable[[Path], bytes]:
    """A snapshot of `model` after some steps, with metadata replaced."""

    def make(folder: Path) -> bytes:
        stream = rnnx.load(folder / model).stream(batch=batch)
        for _ in range(position):
            stream.step(x(batch, 4))
        tensors, found = decode_tensors(stream.snapshot(), what="a snapshot")
        return encode_tensors(tensors, {**found, **metadata})

    return make


def snapshot_with_nan(folder: Path) -> bytes:
    """A snapshot of the GRU whose state holds NaN, as it does once a network has overflowed."""
    tensors, metadata = decode_tensors(snapshot(GRU)(folder), what="a snapshot")
    tensors["state.state.h"][0, 0, 2] = np.nan
    return encode_tensors(tensors, metadata)


def weights_in(location: str, put: Put = initializer) -> Callable[[Path], bytes]:
    """The leak with its factor in another file, which is not there."""
    return lambda folder: with_tensor(put, external("half", location))


def trace(model: str, change: Callable[[dict[str, Array], dict[str, str]], None]) -> Callable[[Path], bytes]:
    """The trace of `model`, changed in place."""

    def make(folder: Path) -> bytes:
        data = (folder / model).with_suffix(".trace.safetensors").read_bytes()
        tensors, metadata = decode_tensors(data, what="a trace")
        change(tensors, metadata)
        return encode_tensors(tensors, metadata)

    return make


def no_steps(tensors: dict[str, Array], metadata: dict[str, str]) -> None:
    """Leave nothing but the start."""
    for name, value in tensors.items():
        tensors[name] = value[: 1 if name.startswith("state.") else 0]


def no_output(tensors: dict[str, Array], metadata: dict[str, str]) -> None:
    """Leave out what there is to compare."""
    del tensors["output.y"]


def no_tolerance(tensors: dict[str, Array], metadata: dict[str, str]) -> None:
    """Leave out how far a state may be off."""
    tolerances = json.loads(metadata["tolerances"])
    del tolerances["state.state.h"]
    metadata["tolerances"] = json.dumps(tolerances)


STATE = {
    "name": "state.h",
    "input": "state.h_in",
    "output": "state.h_out",
    "dtype": "float32",
    "initial": 0.0,
}
FILES: dict[str, Callable[[Path], bytes]] = {
    "text.onnx": lambda folder: b"This is no ONNX model.\n",
    "short.onnx": lambda folder: (folder / GRU).read_bytes()[:1000],
    "no-contract.onnx": without_contract,
    "newer.onnx": contract_of_gru(version=2),
    "requires.onnx": contract_of_gru(requires=["ring-buffers"]),
    "no-end.onnx": without_end,
    "late.safetensors": fed(x=np.ones((1, 3), np.float32)),
    "time-in-a-state.onnx": contract_of_gru(states=[STATE | {"shape": [1, "time", 6]}]),
    "other-names.onnx": contract_of_gru(
        inputs=[{"name": "z", "dtype": "float32", "shape": ["batch", "time", 4]}]
    ),
    "range-backwards.onnx": range_backwards,
    "too-few-symbols.onnx": too_few_symbols,
    "weights-above.onnx": weights_in("../weights.bin"),
    "weights-elsewhere.onnx": weights_in("/weights.bin", inner_constant),
    "weights-missing.onnx": weights_in("weights.bin", constant),
    "feed.safetensors": fed(x=x(1, 4)),
    "wrong-shape.safetensors": fed(x=x(1, 5)),
    "wrong-batch.safetensors": fed(x=x(2, 4)),
    "chunk.safetensors": fed(x=x(1, 1, 4)),
    "no-batch.safetensors": fed(x=x(4)),
    "empty-batch.safetensors": fed(x=x(0, 4)),
    "wrong-dtype.safetensors": fed(x=x(1, 4, dtype="float64")),
    "wrong-name.safetensors": fed(x=x(1, 4), z=x(1, 4)),
    "nothing.safetensors": fed(),
    "nan.safetensors": fed(x=x(1, 4, at2=np.nan)),
    "infinity.safetensors": fed(x=x(1, 4, at0=-np.inf)),
    "half-infinity.safetensors": fed(x=x(1, 3, dtype="float16", at1=np.inf)),
    "symbol.safetensors": fed(token=np.array([37])),
    "negative-symbol.safetensors": fed(token=np.array([-1])),
    "id.safetensors": ids(37),
    "negative-id.safetensors": ids(-1),
    "shift.safetensors": ids(0, shift=-4),
    "length.safetensors": fed(x=x(1, 3), lengths=np.array([2])),
    "whole.safetensors": fed(x=x(1)),
    "block.safetensors": fed(audio=x(1, 100)),
    "wide-block.safetensors": fed(audio=x(2, 100)),
    "nan-block.safetensors": fed(audio=x(1, 100, at7=np.nan)),
    "memory.safetensors": fed(x=x(1, 4), memory=x(1, 5, 4)),
    "longer-memory.safetensors": fed(x=x(1, 4), memory=x(1, 6, 4)),
    "no-batch-step.safetensors": fed(x=x(2)),
    "step-length.safetensors": fed(x=x(1)),
    "snapshot.safetensors": snapshot(GRU),
    "snapshot-other.safetensors": snapshot("lstm.onnx"),
    "snapshot-newer.safetensors": snapshot(GRU, version="2"),
    "snapshot-batch.safetensors": snapshot(GRU, batch=2),
    "snapshot-nan.safetensors": snapshot_with_nan,
    "short.safetensors": lambda folder: snapshot(GRU)(folder)[:-4],
    "no-steps.safetensors": trace(GRU, no_steps),
    "no-output.safetensors": trace(GRU, no_output),
    "no-tolerance.safetensors": trace(GRU, no_tolerance),
}
# By name: the arguments of `replay`.
ERRORS: dict[str, list[str]] = {
    "not a model": ["faults/text.onnx"],
    "a model cut short": ["faults/short.onnx"],
    "a missing model": ["faults/none.onnx"],
    "no contract": ["faults/no-contract.onnx"],
    "a newer contract": ["faults/newer.onnx"],
    "an unknown requirement": ["faults/requires.onnx"],
    "a contract against its own rules": ["faults/time-in-a-state.onnx"],
    "a range the wrong way round": ["faults/range-backwards.onnx"],
    "fewer symbols than scores": ["faults/too-few-symbols.onnx"],
    "contract and graph disagree": ["faults/other-names.onnx"],
    "weights above the model's folder": ["faults/weights-above.onnx"],
    "weights of a Constant elsewhere": ["faults/weights-elsewhere.onnx"],
    "weights that are missing": ["faults/weights-missing.onnx"],
    "wrong shape": [GRU, "--feed", "faults/wrong-shape.safetensors"],
    "wrong batch": [GRU, "--feed", "faults/wrong-batch.safetensors"],
    "a chunk given to step": [GRU, "--feed", "faults/chunk.safetensors"],
    "a step without its batch": [GRU, "--feed", "faults/no-batch.safetensors"],
    "an empty batch": [GRU, "--feed", "faults/empty-batch.safetensors"],
    "wrong dtype": [GRU, "--feed", "faults/wrong-dtype.safetensors"],
    "wrong name": [GRU, "--feed", "faults/wrong-name.safetensors"],
    "missing input": [GRU, "--feed", "faults/nothing.safetensors"],
    "not a number": [GRU, "--feed", "faults/nan.safetensors"],
    "infinity": [GRU, "--feed", "faults/infinity.safetensors"],
    "infinity in float16": ["half.onnx", "--feed", "faults/half-infinity.safetensors"],
    "symbol out of range": ["characters.onnx", "--feed", "faults/symbol.safetensors"],
    "negative symbol": ["characters.onnx", "--feed", "faults/negative-symbol.safetensors"],
    "id above its range": [IDS, "--feed", "faults/id.safetensors"],
    "negative id": [IDS, "--feed", "faults/negative-id.safetensors"],
    "value below a range with negatives": [IDS, "--feed", "faults/shift.safetensors"],
    "length out of range": ["default_and_length.onnx", "--feed", "faults/length.safetensors"],
    "the end of a model that has none": [
        "faults/no-end.onnx",
        "--feed",
        "faults/late.safetensors",
        "--flush",
    ],
    "a step of a whole-only model": ["whole_only.onnx", "--feed", "faults/whole.safetensors"],
    "a free dimension not bound": ["free_dimension.onnx", "--feed", "faults/memory.safetensors"],
    "a closed stream": [GRU, "--misuse", "closed", "--feed", FEED],
    "two threads on one stream": [GRU, "--misuse", "threads", "--feed", FEED],
    "a step while entries wait": [HOPS, "--misuse", "waiting", "--feed", "faults/block.safetensors"],
    "a chunk that ends within a step": [HOPS, "--misuse", "part", "--feed", "faults/block.safetensors"],
    "a block of another batch": [HOPS, "--misuse", "waiting", "--feed", "faults/wide-block.safetensors"],
    "a block that holds NaN": [HOPS, "--misuse", "waiting", "--feed", "faults/nan-block.safetensors"],
    "lengths given to feed": ["step_length.onnx", "step_length.trace.safetensors", "--entries", "3"],
    "a block for a whole-only model": ["whole_only.onnx", "whole_only.trace.safetensors", "--entries", "3"],
    "whole sequences in a pool": ["whole_only.onnx", "--together", "faults/whole.safetensors"],
    "a pool without a batch": ["no_batch.onnx", "--together", "faults/no-batch-step.safetensors"],
    "a pool over a shared state": ["step_length.onnx", "--together", "faults/step-length.safetensors"],
    "streams of other sizes in a pool": [
        "loose_dimension.onnx",
        "--together",
        "faults/memory.safetensors,faults/longer-memory.safetensors",
        "--times",
        "4",
    ],
    "a wrong input in a pool": [
        GRU,
        "--together",
        f"{FEED},faults/wrong-shape.safetensors",
        "--times",
        "4",
    ],
    "a snapshot of another model": [GRU, "--restore", "faults/snapshot-other.safetensors"],
    "a newer snapshot": [GRU, "--restore", "faults/snapshot-newer.safetensors"],
    "a snapshot of another batch": [GRU, "--restore", "faults/snapshot-batch.safetensors"],
    "a snapshot that holds NaN": [GRU, "--restore", "faults/snapshot-nan.safetensors"],
    "a trace as a snapshot": [GRU, "--restore", "gru.trace.safetensors"],
    "a snapshot cut short": [GRU, "--restore", "faults/short.safetensors"],
    "a trace of another model": [GRU, "lstm.trace.safetensors"],
    "a snapshot as a trace": [GRU, "faults/snapshot.safetensors"],
    "a missing trace": [GRU, "faults/none.safetensors"],
    "a trace without steps": [GRU, "faults/no-steps.safetensors"],
    "a trace without an output": [GRU, "faults/no-output.safetensors"],
    "a trace without a tolerance": [GRU, "faults/no-tolerance.safetensors"],
    "text of a model without vocabulary": [GRU, "--text", "a", "--length", "1"],
    "a prompt outside the vocabulary": ["characters.onnx", "--text", "aäb", "--length", "1"],
    "an empty prompt": ["characters.onnx", "--text", "", "--length", "1"],
    "weights without a sum": ["--draw", "0,0", "--seed", "7", "--count", "1"],
    "a negative weight": ["--draw", "1,-1", "--seed", "7", "--count", "1"],
    "a provider that is absent": [GRU, "--provider", "cuda", "--feed", FEED],
    "a provider that does not exist": [GRU, "--provider", "tpu", "--feed", FEED],
}
# Where the text depends on the runtime (the providers it has, how it prints a number), the code alone counts.
# Python's pool has numbers of its own for its streams.
CODE_ALONE = (
    "a provider that does not exist",
    "a negative weight",
    "a snapshot cut short",
    "streams of other sizes in a pool",
    "a wrong input in a pool",
)

# By name and language: why a fault cannot be committed there.
IMPOSSIBLE = {
    "a closed stream": {"rust": "it does not compile: a stream that was dropped cannot be named"},
    "two threads on one stream": {"rust": "it does not compile: a stream has one mutable borrower at a time"},
}


def write_faults(folder: Path) -> None:
    """Write faults/, from the models that are in `folder` already."""
    (folder / "faults").mkdir(exist_ok=True)
    for name, make in FILES.items():
        (folder / "faults" / name).write_bytes(make(folder))


def errors(folder: Path) -> list[Mapping[str, Any]]:
    """Return the entries of errors.json: the Python runtime's own words."""
    with contextlib.chdir(folder):
        return [entry(name, arguments) for name, arguments in ERRORS.items()]


def entry(name: str, arguments: list[str]) -> Mapping[str, Any]:
    """Return one entry of errors.json."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = replay.main([*arguments, "--json"])
    found = json.loads(said.getvalue())
    if code != 2 or "error" not in found:
        raise SystemExit(f"{name}: no error came of {arguments}, but {found}")
    text = None if name in CODE_ALONE else found["error"]["text"]
    return {
        "name": name,
        "arguments": arguments,
        "code": found["error"]["code"],
        "text": text,
        "except": IMPOSSIBLE.get(name, {}),
    }
