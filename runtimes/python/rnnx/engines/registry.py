"""What computes a step behind a session, and the table of providers that users choose from.

An `Engine` is a loaded model, immutable and shared between threads. A `Lane` is what one stream needs of
it: two sets of state buffers, so that a step reads one set and writes the other. A `Call` is a lane bound
to fixed shapes. Engines own all buffers; streams decide which set is the current one.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol

from rnnx.arguments import mapping, shown
from rnnx.errors import ProviderError, UsageError
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import ModelFile
from rnnx.model.shapes import Array

# A module is named here by text only and imported when its provider is asked for.
_ONNX_RUNTIME = "rnnx.engines.ort_engine"
PROVIDERS = {"cpu": _ONNX_RUNTIME, "cuda": _ONNX_RUNTIME, "native": "rnnx_native.engine"}

Shape = tuple[int, ...]
Device = tuple[int, int]


class Call(Protocol):
    """A lane bound to fixed shapes.

    Attributes:
        inputs: arrays by input name, on the host, to be written before `run`.
        outputs: arrays by output name, on the host, that hold the results of the latest `run`. An array
            is replaced, not rewritten, where its shape was not known when the call was prepared.
        device: as the engine's.
        on_device: inputs that `take` took since it was emptied: `run` leaves their host arrays alone.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    device: Device | None
    on_device: set[str]

    def take(self, name: str, value: Any) -> None:
        """Copy an input from where it lies on `device`; its values do not visit the host.

        Args:
            name: of the input.
            value: of the input's dtype and as many entries, in DLPack's protocol.

        Raises:
            InputError: `not-contiguous`.
        """

    def run(self, side: int) -> None:
        """Compute from the state buffers of `side` (0 or 1) into those of the other side.

        Raises:
            ModelError: `engine-failed` if the engine stops; the buffers of `side` are untouched.
        """


class Lane(Protocol):
    """What one stream needs of an engine: two sets of state buffers.

    A lane may hold many streams, one to a row of the states' batch axes; a pool keeps a table of them, a
    lane of one side, and moves rows from there to the lane that computes and back.
    """

    def gather(self, side: int, table: Lane, rows: Array) -> None:
        """Overwrite all states of `side` with those rows of `table`, a lane of the same engine.

        Args:
            side: of this lane.
            table: whose side 0 is read; its states differ from this lane's in the batch alone.
            rows: int64 [batch of this lane], rows of the table.
        """

    def scatter(self, side: int, table: Lane, rows: Array) -> None:
        """Write all states of `side` to those rows of side 0 of `table`: the way back from `gather`.

        Other rows are not touched. No row stands in `rows` twice.
        """

    def read(self, side: int, name: str) -> Array:
        """Return a copy of a state, by its name in the contract."""

    def write(self, side: int, name: str, value: Array) -> None:
        """Overwrite a state with `value`, which has its exact dtype and shape."""

    def prepare(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape | None]) -> Call:
        """Bind buffers of these shapes, those of the graph; None is a shape known only after a run."""


class Engine(Protocol):
    """A loaded model: immutable, shared between threads.

    Attributes:
        provider: its name for users.
        device: where it computes, if inputs may lie there: DLPack's kind of device and its number. None for
            the host's memory.
    """

    provider: str
    device: Device | None

    def open(self, states: Mapping[str, Shape], *, sides: int = 2) -> Lane:
        """Return buffers for states of these shapes, their values not set; one side cannot be run."""


def open_engine(
    model: ModelFile, contract: Contract, *, provider: str, options: Mapping[str, Any] | None = None
) -> Engine:
    """Load `model` on the engine behind `provider`.

    Args:
        model: the model file as read.
        contract: the contract inside it.
        provider: a name from `PROVIDERS`, or `auto`: cuda where it works, else cpu.
        options: what the provider's engine lets one choose; `None` takes its defaults.

    Raises:
        ProviderError: `provider-unknown`, `provider-unavailable`, `onnxruntime-missing`,
            `onnxruntime-conflict` or `no-pinned-memory`.
        UsageError: `unknown-option` or `wrong-option`.
        ModelError: `engine-refused` if the engine cannot load the model.
    """
    if isinstance(provider, str) and provider == "auto":
        try:
            return open_engine(model, contract, provider="cuda", options=options)
        except ProviderError as error:
            if error.code not in ("provider-unavailable", "onnxruntime-missing"):
                raise
        # What only cuda lets one choose, and has just been checked, says nothing about cpu.
        common = _choices(_module("cpu").Options, "cpu")
        kept = {name: value for name, value in (options or {}).items() if name in common}
        return open_engine(model, contract, provider="cpu", options=kept)
    module = _module(provider)
    given = mapping("options", options, "settings")
    parsed = parse_options(module.Options, provider, given)
    return module.open_engine(model, contract, provider, parsed)  # type: ignore[no-any-return]


def availability() -> dict[str, ProviderError | None]:
    """Return, for each provider, None if it works on this machine and else the reason why not.

    `cuda` is tried on a model of one node, since a wheel with CUDA inside says nothing about the driver.
    """
    reasons: dict[str, ProviderError | None] = {}
    for provider in PROVIDERS:
        try:
            _module(provider).probe(provider)
            reasons[provider] = None
        except ProviderError as error:
            reasons[provider] = error
    return reasons


def parse_options(kind: type[Any], provider: str, options: Mapping[str, Any]) -> Any:
    """Return an instance of the dataclass `kind` with `options`, names and types checked.

    Raises:
        UsageError: `unknown-option` or `wrong-option`.
    """
    fields = _choices(kind, provider)
    for name, value in options.items():
        if name not in fields:
            raise UsageError(
                "unknown-option",
                expected=f"session options {', '.join(fields)} of provider {provider}",
                found=repr(name),
                fix="leave it out, or use one of these names",
            )
        default = fields[name].default
        if type(value) is not type(default):
            raise _wrong_option(name, f"a value of type {type(default).__name__}", value)
    parsed = kind(**options)
    for name, allowed in kind.ALLOWED.items():
        if getattr(parsed, name) not in allowed:
            is_range = isinstance(allowed, range)
            shown = f"in {allowed[0]}..{allowed[-1]}" if is_range else ", ".join(allowed)
            raise _wrong_option(name, shown, getattr(parsed, name))
    return parsed


def _choices(kind: type[Any], provider: str) -> dict[str, Any]:
    """Return the fields of the dataclass `kind` that a provider takes: those whose metadata name no other."""
    fields = dataclasses.fields(kind)
    return {field.name: field for field in fields if provider in field.metadata.get("providers", (provider,))}


def _wrong_option(name: str, expected: str, value: object) -> UsageError:
    return UsageError(
        "wrong-option",
        expected=f"session option {name!r} to be {expected}",
        found=repr(value),
        fix="change it",
    )


def _module(provider: str) -> ModuleType:
    home = PROVIDERS.get(provider) if isinstance(provider, str) else None
    if home is None:
        raise ProviderError(
            "provider-unknown",
            expected=f"a provider out of {', '.join(PROVIDERS)} or auto",
            found=shown(provider),
            fix="choose one of these; 'rnnx doctor' says which work here",
        )
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name is None or not home.startswith(error.name):
            raise
        raise ProviderError(
            "provider-unavailable",
            expected=f"the {provider} provider to be installed",
            found=f"no package {home.partition('.')[0]}",
            fix="choose another provider; 'rnnx doctor' says which work here",
        ) from None
