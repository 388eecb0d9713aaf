"""The state contract: what a model takes, gives and carries, written once inside the ONNX file.

Every runtime in every language reads this JSON (`metadata_props["rnnx.contract"]`) and guesses nothing
from names or positions. `docs/contract.md` describes each field; `docs/contract.schema.json` is generated
from the types below.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from rnnx.errors import InputError, ModelError
from rnnx.foreign_text import in_json
from rnnx.model.contract_values import (
    Initial,
    Number,
    holds,
    is_range,
    number_text,
    read_numbers,
    value_array,
)

METADATA_KEY = "rnnx.contract"
VERSION = 1
KNOWN_REQUIREMENTS: frozenset[str] = frozenset()

DType = Literal[
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]
Dimension = int | str

_NAMED = re.compile(r"(?:([1-9][0-9]*)\*)?([A-Za-z_][A-Za-z0-9_]*)")


class Axis(msgspec.Struct, frozen=True):
    """One parsed dimension: `factor * name` entries, or `factor` entries where `name` is empty."""

    factor: int
    name: str

    @classmethod
    @functools.lru_cache(maxsize=1024, typed=True)  # typed: True is no dimension, and equals 1
    def parse(cls, dimension: Dimension) -> Axis:
        """Parse 257, "batch" or "160*time". Raises ValueError on anything else."""
        if isinstance(dimension, int):
            if dimension < 1 or isinstance(dimension, bool):
                raise ValueError(f"dimension {dimension!r} is not positive")
            return cls(dimension, "")
        match = _NAMED.fullmatch(dimension)
        if match is None or (match[1] and match[2] != "time"):
            raise ValueError(f"dimension {dimension!r} is no number, name or multiple of time")
        return cls(int(match[1] or 1), match[2])


class _Struct(msgspec.Struct, frozen=True, kw_only=True):
    pass


class InputSpec(_Struct, omit_defaults=True, frozen=True, kw_only=True):
    """One input: a tensor the caller provides. A `default` makes it optional, a `range` bounds its values."""

    name: str
    dtype: DType
    shape: list[Dimension]
    default: Initial | None = None
    role: Literal["length"] | None = None
    order: Literal["descending"] | None = None
    range: tuple[Number, Number] | None = None


class OutputSpec(_Struct, omit_defaults=True, frozen=True, kw_only=True):
    """One output: a tensor the model gives; what it gives at a step belongs `delay` steps earlier."""

    name: str
    dtype: DType
    shape: list[Dimension]
    delay: int = 0


class StateSpec(_Struct, frozen=True, kw_only=True):
    """One state: graph input `input` takes it, graph output `output` gives its next value.

    One of role "ended" is set to 1 by who has no more inputs: what outputs are late by then comes with inputs
    of zeros.
    """

    name: str
    input: str
    output: str
    dtype: DType
    shape: list[Dimension]
    initial: Initial = 0.0
    role: Literal["ended"] | msgspec.UnsetType = msgspec.UNSET


class Vocabulary(_Struct, frozen=True, kw_only=True):
    """What the ids of a model over symbols mean."""

    input: str
    output: str
    scores: Literal["logits"] = "logits"
    unit: Literal["codepoint"] = "codepoint"
    symbols: list[str]


class Proof(_Struct, frozen=True, kw_only=True):
    """What was checked: by the exporter before it wrote the file, or by `rnnx parity --record`."""

    reference: str
    tolerance: str
    batches: list[int]
    steps: int
    id: str | None = None
    way: str | None = None
    not_direct: str | None = None
    max_error: float | None = None
    runtimes: list[str] | None = None


class Contract(_Struct, frozen=True, kw_only=True):
    """The whole contract. Fields a reader does not know are ignored; an unknown name in `requires` is not."""

    format: Literal["rnnx"] = "rnnx"
    version: int = VERSION
    requires: list[str] = []
    id: str = ""
    name: str = ""
    producer: dict[str, str] = {}
    inputs: list[InputSpec]
    outputs: list[OutputSpec]
    states: list[StateSpec]
    steps_per_second: float | None = None
    whole_only: str | None = None
    longest: int | None = None
    vocabulary: Vocabulary | None = None
    user: dict[str, Any] = {}
    proof: Proof | None = None

    @property
    def has_time(self) -> bool:
        """Whether the graph itself has a time axis. Without one it is a step model."""
        return any(axis_index(spec.shape, "time") is not None for spec in self.inputs)

    @property
    def has_batch(self) -> bool:
        """Whether several sequences can run side by side."""
        shapes = [*(spec.shape for spec in self.inputs), *(spec.shape for spec in self.states)]
        return any(axis_index(shape, "batch") is not None for shape in shapes)

    @property
    def free_dimensions(self) -> list[str]:
        """Names, other than batch and time, that are bound when a stream is opened, in order."""
        shapes = [*(spec.shape for spec in self.inputs), *(spec.shape for spec in self.states)]
        names = [Axis.parse(dim).name for shape in shapes for dim in shape]
        return [name for name in dict.fromkeys(names) if name not in ("", "batch", "time")]


def axis_index(shape: Sequence[Dimension], name: str) -> int | None:
    """Return the position of the axis called `name` (factor or not) in `shape`, or None."""
    for index, dimension in enumerate(shape):
        if isinstance(dimension, str) and Axis.parse(dimension).name == name:
            return index
    return None


def resolve(shape: Sequence[Dimension], dims: Mapping[str, int]) -> tuple[int, ...]:
    """Return `shape` in numbers, each name replaced by its entry in `dims`. Raises KeyError."""
    axes = [Axis.parse(dimension) for dimension in shape]
    return tuple(axis.factor * (dims[axis.name] if axis.name else 1) for axis in axes)


def step_shape(spec: InputSpec | OutputSpec | StateSpec) -> list[Dimension]:
    """Return the shape of one step: no `time` axis; an `N*time` axis has N entries there."""
    axes = [(dimension, Axis.parse(dimension)) for dimension in spec.shape]
    return [
        axis.factor if axis.name == "time" else dimension
        for dimension, axis in axes
        if axis.name != "time" or str(dimension) != "time"
    ]


def initial_array(state: StateSpec, dims: Mapping[str, int]) -> np.ndarray[Any, Any]:
    """Return the start of `state` as a fresh array of its full shape.

    Args:
        state: the state.
        dims: sizes of `batch` and the free dimensions.
    """
    value = value_array(state.initial, state.dtype)
    return np.array(np.broadcast_to(value, resolve(state.shape, dims)), order="C")


def default_array(spec: InputSpec, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the default of an optional input broadcast to `shape`, as a fresh array."""
    assert spec.default is not None
    return np.array(np.broadcast_to(value_array(spec.default, spec.dtype), shape), order="C")


def to_json(contract: Contract, *, indent: int = 0) -> str:
    """Return the contract as JSON text, in the order of the fields above.

    With `indent` it is for people too: what cannot be seen is escaped. The text says the same.
    """
    data = msgspec.json.encode(contract)
    return in_json(msgspec.json.format(data, indent=indent).decode()) if indent else data.decode()


def from_json(text: str | bytes) -> Contract:
    """Parse and check a contract.

    Raises:
        ModelError: `contract-invalid` for JSON that is no contract or contradicts itself,
            `contract-newer` for a later version, `contract-requires` for an unknown requirement.
    """
    try:
        header = msgspec.json.decode(text, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(str(error)) from error
    if header.version > VERSION:
        raise ModelError(
            "contract-newer",
            expected=f"a contract of version {VERSION} at most",
            found=f"version {header.version}",
            fix="install a newer rnnx, or export the model again with this one",
        )
    unknown = [name for name in header.requires if name not in KNOWN_REQUIREMENTS]
    if unknown:
        raise ModelError(
            "contract-requires",
            expected="a contract that requires only what this rnnx knows",
            found=f"requires {', '.join(unknown)}",
            fix="install a newer rnnx",
        )
    try:
        contract = msgspec.json.decode(text, type=Contract)
        check(contract)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _invalid(str(error)) from error
    return contract


class _Header(msgspec.Struct):
    format: Literal["rnnx"]
    version: int
    requires: list[str] = []


def check(contract: Contract) -> None:
    """Check what the types cannot say. Raises ModelError `contract-invalid`."""
    if contract.version < 1:
        raise _invalid(f"version {contract.version}")
    inputs = [spec.name for spec in contract.inputs]
    _unique("input", [*inputs, *(state.input for state in contract.states)])
    _unique(
        "output", [*(spec.name for spec in contract.outputs), *(state.output for state in contract.states)]
    )
    _unique("state", [state.name for state in contract.states])
    specs: list[InputSpec | OutputSpec | StateSpec] = [*contract.inputs, *contract.outputs, *contract.states]
    for spec in specs:
        _check_shape(spec.name, spec.shape)
    for state in contract.states:
        if axis_index(state.shape, "time") is not None:
            raise _invalid(f"state {state.name!r} has a time axis")
        _check_value(state, state.initial)
    for spec in contract.inputs:
        _check_range(contract, spec)
        if spec.default is not None:
            _check_value(spec, spec.default)
        if spec.role == "length" and (spec.dtype != "int64" or spec.shape not in (["batch"], [])):
            raise _invalid(f"length input {spec.name!r} is {spec.dtype}{spec.shape}, not int64[batch]")
        if spec.order is not None and spec.role != "length":
            raise _invalid(f"input {spec.name!r} has an order, and is no length")
    vocabulary = contract.vocabulary
    if vocabulary is not None:
        if vocabulary.input not in inputs:
            raise _invalid(f"vocabulary input {vocabulary.input!r} is no input")
        if vocabulary.output not in [spec.name for spec in contract.outputs]:
            raise _invalid(f"vocabulary output {vocabulary.output!r} is no output")
        ids = next(spec for spec in contract.inputs if spec.name == vocabulary.input)
        scores = next(spec for spec in contract.outputs if spec.name == vocabulary.output)
        if ids.dtype != "int64":
            raise _invalid(f"vocabulary input {ids.name!r} is not int64")
        if scores.shape[-1:] != [len(vocabulary.symbols)]:
            raise _invalid(f"{len(vocabulary.symbols)} symbols, and not as many scores in {scores.name!r}")
        _unique("symbol", vocabulary.symbols)
        if any(len(symbol) != 1 for symbol in vocabulary.symbols):
            raise _invalid("a symbol that is not one code point")


def _unique(kind: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise _invalid(f"an {kind} without a name")
        if name in seen:
            raise _invalid(f"two entries for {kind} {name!r}")
        seen.add(name)


def _check_shape(name: str, shape: Sequence[Dimension]) -> None:
    try:
        axes = [Axis.parse(dimension) for dimension in shape]
    except ValueError as error:
        raise _invalid(f"{error} in the shape of {name!r}") from error
    for reserved in ("batch", "time"):
        if sum(axis.name == reserved for axis in axes) > 1:
            raise _invalid(f"{name!r} has two {reserved} axes")


def _check_range(contract: Contract, spec: InputSpec) -> None:
    """Check that a range is one of numbers of the dtype, and stands where no other bound does."""
    if spec.range is None:
        return
    symbols = contract.vocabulary is not None and contract.vocabulary.input == spec.name
    others = {"truth values": spec.dtype == "bool", "lengths": spec.role is not None, "symbols": symbols}
    for what, applies in others.items():
        if applies:
            raise _invalid(f"a range of {spec.name!r}, which takes {what}")
    if not is_range(spec.dtype, spec.range):
        raise _invalid(f"a range of {spec.name!r} that is not the least and the largest of {spec.dtype}")


def _check_value(spec: InputSpec | StateSpec, value: Initial) -> None:
    """Check that a start or default broadcasts to its shape, the same on named axes, and fits its dtype.

    A default of integers must lie in their range too.
    """
    try:
        array = np.asarray(read_numbers(value), dtype=np.float64)
        ones = [1 if isinstance(dimension, str) else dimension for dimension in spec.shape]
        np.broadcast_to(array, ones)
        fits = holds(np.dtype(spec.dtype), array)
        if isinstance(spec, InputSpec) and spec.range is not None and np.dtype(spec.dtype).kind != "f":
            whole = np.rint(array)
            fits = fits and bool(((whole >= spec.range[0]) & (whole <= spec.range[1])).all())
    except (ValueError, TypeError, OverflowError):  # also an object in a list
        fits = False
    if not fits:
        raise _invalid(f"initial or default of {spec.name!r} does not fit {describe(spec.dtype, spec.shape)}")


def _invalid(found: str) -> ModelError:
    return ModelError(
        "contract-invalid",
        expected="a contract as docs/contract.md describes",
        found=found,
        fix="export the model again with 'rnnx export'",
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the contract, generated from the types above."""
    found = msgspec.json.schema(Contract)
    # Contracts made in Python have defaults for these; a file must say them.
    found["$defs"]["Contract"]["required"] = ["format", "version", *found["$defs"]["Contract"]["required"]]
    return found


def input_text(spec: InputSpec) -> str:
    """Return an input as its spec is written: `int64[batch, time] in 0..95`."""
    return describe(spec.dtype, spec.shape) + range_text(spec)


def range_text(spec: InputSpec) -> str:
    """Return ` in 0..95`, or nothing where an input has no range."""
    return "" if spec.range is None else f" in {number_text(spec.range[0])}..{number_text(spec.range[1])}"


def describe(dtype: str, shape: Sequence[object]) -> str:
    """Return `float32[batch, 3]`: how a tensor is written in specs, errors and tables."""
    return f"{dtype}[{', '.join(str(dimension) for dimension in shape)}]"


def unknown_name(kind: str, name: str, known: Sequence[str]) -> InputError:
    """Return the error for an input, state or dimension the contract does not have."""
    return InputError(
        f"unknown-{kind}",
        expected=f"{kind}s {', '.join(known) or '(none)'}",
        found=repr(name),
        fix=f"use one of the names that 'rnnx inspect' lists as {kind}s",
    )
