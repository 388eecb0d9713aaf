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
Initial = bool | int | float | str | list[Any]

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
    """One input: a tensor the caller provides. A `default` makes it optional."""

    name: str
    dtype: DType
    shape: list[Dimension]
    default: Initial | None = None
    role: Literal["length"] | None = None


class OutputSpec(_Struct, frozen=True, kw_only=True):
    """One output: a tensor the model gives."""

    name: str
    dtype: DType
    shape: list[Dimension]


class StateSpec(_Struct, frozen=True, kw_only=True):
    """One state: graph input `input` takes it, graph output `output` gives its next value."""

    name: str
    input: str
    output: str
    dtype: DType
    shape: list[Dimension]
    initial: Initial = 0.0


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
    value = _array(state.initial, state.dtype)
    return np.array(np.broadcast_to(value, resolve(state.shape, dims)), order="C")


def default_array(spec: InputSpec, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the default of an optional input broadcast to `shape`, as a fresh array."""
    assert spec.default is not None
    return np.array(np.broadcast_to(_array(spec.default, spec.dtype), shape), order="C")


def _array(value: Initial, dtype: str) -> np.ndarray[Any, Any]:
    """Return a value as it is read: each number as float64, then rounded to the nearest of its dtype."""
    numbers = np.asarray(_numbers(value), np.float64)
    whole = np.dtype(dtype).kind in "iu"
    with np.errstate(over="ignore"):  # beyond float16 lies infinity
        return (np.rint(numbers) if whole else numbers).astype(dtype)


def encode_initial(value: np.ndarray[Any, Any]) -> Initial:
    """Return an array as it stands in the contract: one number if all are equal, else nested lists.

    Non-finite values become the strings "inf", "-inf" and "nan", which every JSON parser accepts.
    """
    if value.size and (value == value.flat[0]).all():
        return _text(value.flat[0].item())
    if value.size and np.isnan(value.astype(np.float64)).all():
        return "nan"
    return _nested(value.tolist())


def _nested(value: Any) -> Initial:
    return [_nested(entry) for entry in value] if isinstance(value, list) else _text(value)


def _text(value: Any) -> Initial:
    if isinstance(value, float) and not np.isfinite(value):
        return "nan" if value != value else ("inf" if value > 0 else "-inf")
    return int(value) if isinstance(value, bool) else value


def _numbers(value: Initial) -> Any:
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    if isinstance(value, str):
        if value not in ("inf", "-inf", "nan"):
            raise ValueError(f"{value!r} is no number")
        return float(value)
    return value


def to_json(contract: Contract, *, indent: int = 0) -> str:
    """Return the contract as JSON text, in the order of the fields above."""
    data = msgspec.json.encode(contract)
    return (msgspec.json.format(data, indent=indent) if indent else data).decode()


def from_json(text: str | bytes) -> Contract:
    """Parse and check a contract.

    Raises:
        ModelError: `contract-invalid` for JSON that is no contract or contradicts itself,
            `contract-newer` for a later version, `contract-requires` for an unknown requirement.
    """
    try:
        header = msgspec.json.decode(text, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
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
    except msgspec.DecodeError as error:
        raise _invalid(str(error)) from error
    check(contract)
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
        if spec.default is not None:
            _check_value(spec, spec.default)
        if spec.role == "length" and (spec.dtype != "int64" or spec.shape not in (["batch"], [])):
            raise _invalid(f"length input {spec.name!r} is {spec.dtype}{spec.shape}, not int64[batch]")
    vocabulary = contract.vocabulary
    if vocabulary is not None:
        if vocabulary.input not in inputs:
            raise _invalid(f"vocabulary input {vocabulary.input!r} is no input")
        if vocabulary.output not in [spec.name for spec in contract.outputs]:
            raise _invalid(f"vocabulary output {vocabulary.output!r} is no output")
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


def _check_value(spec: InputSpec | StateSpec, value: Initial) -> None:
    """Check that a start or default broadcasts to its shape, the same on named axes, and fits its dtype."""
    try:
        array = np.asarray(_numbers(value), dtype=np.float64)
        ones = [1 if isinstance(dimension, str) else dimension for dimension in spec.shape]
        np.broadcast_to(array, ones)
        fits = _holds(np.dtype(spec.dtype), array)
    except (ValueError, OverflowError):
        fits = False
    if not fits:
        raise _invalid(f"initial or default of {spec.name!r} does not fit {describe(spec.dtype, spec.shape)}")


def _holds(dtype: np.dtype[Any], numbers: np.ndarray[Any, Any]) -> bool:
    """Whether all numbers (float64) have a counterpart in a dtype: integers once rounded, bool 0 and 1."""
    if dtype.kind == "f":
        return True
    if dtype.kind == "b":
        return bool(np.isin(numbers, (0, 1)).all())
    limits, whole = np.iinfo(dtype), np.rint(numbers)
    return bool(((whole >= limits.min) & (whole < float(limits.max) + 1)).all())


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
