"""Reading an ONNX file as rnnx needs it: signature, operators, metadata, identity. No onnx package.

Field numbers are those of onnx.proto (ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rnnx.errors import ModelError
from rnnx.files import read_bytes
from rnnx.model import contract as contract_module
from rnnx.model import protobuf
from rnnx.model.contract import Contract, Dimension
from rnnx.model.external_data import ExternalTensor, external_tensors, read_all
from rnnx.model.lengths import GraphNode, require_kept_states
from rnnx.model.onnx_messages import element_count, entry

_METADATA_FIELD = 14
ELEMENT_TYPES = {  # of onnx.proto's TensorProto.DataType
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class GraphValue:
    """A graph input or output as the file declares it. A dimension of "" is undeclared."""

    dtype: str
    shape: list[Dimension]


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """An ONNX file that has been read and found whole.

    Attributes:
        data: the file's bytes.
        path: where it was read from, None for bytes.
        ir_version: the format's version.
        opsets: operator set version by domain ("" is ONNX's own).
        inputs, outputs: by name, initializers left out of the inputs.
        operators: how often each operator is used, subgraphs included.
        parameters: number of elements in all initializers, subgraphs included.
        metadata: `metadata_props`.
        external: whether values of tensors lie in other files beside it.
        id: `sha256:...` of the file without its metadata, then of external data in order.
    """

    data: bytes
    path: Path | None
    ir_version: int
    opsets: dict[str, int]
    inputs: dict[str, GraphValue]
    outputs: dict[str, GraphValue]
    operators: dict[str, int]
    parameters: int
    metadata: dict[str, str]
    external: bool
    id: str

    @property
    def label(self) -> str:
        """What to call the model in a message: its file name."""
        return str(self.path) if self.path else "the model"


def read_model(source: str | os.PathLike[str] | bytes) -> ModelFile:
    """Read an ONNX file, or its bytes.

    Raises:
        FileError: `file-missing` or `cannot-read`.
        ModelError: `not-onnx` if the bytes are no whole ONNX model, `external-data-missing`.
    """
    path = None if isinstance(source, bytes) else Path(source)
    data = source if isinstance(source, bytes) else read_bytes(source, what="an ONNX model")
    label = str(path) if path else "the model"
    try:
        return _parse(data, path)
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        found = f"{len(data)} bytes that are none, or are cut short"
        raise ModelError(
            "not-onnx",
            expected=f"an ONNX model in {label}",
            found=found,
            fix="name a file that 'rnnx export' wrote, or export it again",
        ) from error


def read_contract(model: ModelFile) -> Contract:
    """Return the contract inside `model`, checked against its graph.

    Raises:
        ModelError: `no-contract`, `contract-invalid`, `contract-newer`, `contract-requires`, or
            `contract-graph` where contract and graph disagree.
    """
    text = model.metadata.get(contract_module.METADATA_KEY)
    if text is None:
        raise ModelError(
            "no-contract",
            expected=f"an rnnx contract in {model.label}",
            found="an ONNX model without one",
            fix="export it with 'rnnx export'",
        )
    contract = contract_module.from_json(text)
    inputs = {spec.name: GraphValue(spec.dtype, spec.shape) for spec in contract.inputs}
    inputs |= {state.input: GraphValue(state.dtype, state.shape) for state in contract.states}
    outputs = {spec.name: GraphValue(spec.dtype, spec.shape) for spec in contract.outputs}
    outputs |= {state.output: GraphValue(state.dtype, state.shape) for state in contract.states}
    _agree(model, "input", inputs, model.inputs)
    _agree(model, "output", outputs, model.outputs)
    if any(spec.role == "length" for spec in contract.inputs):
        require_kept_states(_nodes(model), contract, model.label)
    return contract


def write_contract(data: bytes, contract: Contract) -> bytes:
    """Return the model `data` with `contract` as its rnnx metadata; other metadata stays."""
    view = memoryview(data)
    kept, entries = [], []
    for number, value, start, end in protobuf.fields(view):
        if number != _METADATA_FIELD:
            kept.append(bytes(view[start:end]))
        elif isinstance(value, memoryview) and entry(value)[0] != contract_module.METADATA_KEY:
            entries.append(bytes(view[start:end]))
    pair = protobuf.encode_bytes(1, contract_module.METADATA_KEY.encode())
    pair += protobuf.encode_bytes(2, contract_module.to_json(contract).encode())
    return b"".join([*kept, *entries, protobuf.encode_bytes(_METADATA_FIELD, pair)])


def model_id(data: bytes, folder: Path | None) -> str:
    """Return `sha256:...` of `data` without its metadata, then of external tensors as they stand in it."""
    return _identity(data, folder, external_tensors(data))


def _identity(data: bytes, folder: Path | None, external: Sequence[ExternalTensor]) -> str:
    view = memoryview(data)
    digest = hashlib.sha256()
    for number, _, start, end in protobuf.fields(view):
        if number != _METADATA_FIELD:
            digest.update(view[start:end])
    for block in read_all(folder, external):
        digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def external_files(model: ModelFile) -> list[str]:
    """Return the names of the files beside the model that hold weights of it, each once."""
    return list(dict.fromkeys(tensor.location for tensor in external_tensors(model.data)))


def _parse(data: bytes, path: Path | None) -> ModelFile:
    ir_version, graph = 0, None
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    for number, value, _, _ in protobuf.fields(memoryview(data)):
        if number == 1 and isinstance(value, int):
            ir_version = value
        elif number == 7 and isinstance(value, memoryview):
            graph = value
        elif number == 8 and isinstance(value, memoryview):
            domain, version = entry(value)
            opsets[domain] = int(version or 0)
        elif number == _METADATA_FIELD and isinstance(value, memoryview):
            key, text = entry(value)
            metadata[key] = text
    if graph is None or not ir_version or not opsets:
        raise ValueError("no graph, version or operator set")
    external = external_tensors(data)
    graphs = list(_graphs(graph))
    names = [node for inner in graphs for message in _messages(inner, 1) for node in _messages(message, 4)]
    operators = Counter(bytes(name).decode() for name in names)
    inputs = dict(_value_info(message) for message in _messages(graph, 11))
    outputs = dict(_value_info(message) for message in _messages(graph, 12))
    initializers = [dict(_initializer(message) for message in _messages(inner, 5)) for inner in graphs]
    return ModelFile(
        data=data,
        path=path,
        ir_version=ir_version,
        opsets=opsets,
        inputs={name: value for name, value in inputs.items() if name not in initializers[0]},
        outputs=outputs,
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(sum(sizes.values()) for sizes in initializers),
        metadata=metadata,
        external=bool(external),
        id=_identity(data, path.parent if path else None, external),
    )


def _graphs(graph: memoryview) -> Iterator[memoryview]:
    """Yield a graph and those inside its nodes (the body of a Scan): in graph order, depth first."""
    yield graph
    for node in _messages(graph, 1):
        for attribute in _messages(node, 5):
            for inner in (*_messages(attribute, 6), *_messages(attribute, 11)):
                yield from _graphs(inner)


def _messages(message: memoryview, field: int) -> Iterator[memoryview]:
    for number, value, _, _ in protobuf.fields(message):
        if number == field and isinstance(value, memoryview):
            yield value


def _nodes(model: ModelFile) -> Iterator[GraphNode]:
    """Yield the nodes of the graph, without those of subgraphs."""
    for graph in _messages(memoryview(model.data), 7):
        for node in _messages(graph, 1):
            # A name that is no UTF-8 is none of the contract's; an engine says what it thinks of it.
            names = {
                field: [bytes(name).decode(errors="replace") for name in _messages(node, field)]
                for field in (1, 2, 4)
            }
            yield GraphNode("".join(names[4]), names[1], names[2])


def _initializer(tensor: memoryview) -> tuple[str, int]:
    name = ""
    for number, value, _, _ in protobuf.fields(tensor):
        if number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode()
    return name, element_count(tensor)


def _value_info(message: memoryview) -> tuple[str, GraphValue]:
    name, dtype, shape = "", "", []
    for number, value, _, _ in protobuf.fields(message):
        if number == 1 and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == 2 and isinstance(value, memoryview):
            for tensor in _messages(value, 1):
                for inner, content, _, _ in protobuf.fields(tensor):
                    if inner == 1 and isinstance(content, int):
                        dtype = ELEMENT_TYPES.get(content, f"onnx type {content}")
                    elif inner == 2 and isinstance(content, memoryview):
                        shape = [_dimension(dimension) for dimension in _messages(content, 1)]
    return name, GraphValue(dtype, shape)


def _dimension(message: memoryview) -> Dimension:
    for number, value, _, _ in protobuf.fields(message):
        if number == 1 and isinstance(value, int):
            return value
        if number == 2 and isinstance(value, memoryview):
            return bytes(value).decode()
    return ""


def _agree(model: ModelFile, kind: str, named: dict[str, GraphValue], graph: dict[str, GraphValue]) -> None:
    def fail(expected: str, found: str) -> ModelError:
        return ModelError(
            "contract-graph",
            expected=f"contract and graph of {model.label} to agree on {expected}",
            found=found,
            fix="export the model again with 'rnnx export'",
        )

    if set(named) != set(graph):
        ours, theirs = (", ".join(sorted(names)) or "none" for names in (named, graph))
        raise fail(f"the {kind}s", f"{ours} in the contract, {theirs} in the graph")
    for name, value in named.items():
        if value.dtype != graph[name].dtype or not _fits(value.shape, graph[name].shape):
            ours = contract_module.describe(value.dtype, value.shape)
            theirs = contract_module.describe(graph[name].dtype, graph[name].shape)
            raise fail(f"{kind} {name!r}", f"{ours} in the contract, {theirs} in the graph")


def _fits(named: Sequence[Dimension], graph: Sequence[Dimension]) -> bool:
    return len(named) == len(graph) and all(
        ours == theirs or theirs == "" for ours, theirs in zip(named, graph, strict=True)
    )
