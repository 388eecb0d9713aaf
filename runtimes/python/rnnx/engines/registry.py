"""What computes a step behind a session, and the table of providers that users choose from.

An `Engine` is a loaded model, immutable and shared between threads. `StateBuffers` are what one stream
needs of it: its states in a double buffer, so that a step reads one and writes the other. A `Call` is these
bound to fixed shapes. Engines own all buffers; streams decide which one is current.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from rnnx.arguments import mapping, shown
from rnnx.engines.protocol import Engine
from rnnx.errors import ProviderError, UsageError
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import ModelFile

# A module is named here by text only and imported when its provider is asked for.
_ONNX_RUNTIME = "rnnx.engines.ort_engine"
PROVIDERS = {"cpu": _ONNX_RUNTIME, "cuda": _ONNX_RUNTIME, "native": "rnnx_native.engine"}


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
    settings = mapping("options", options, "settings")
    parsed = parse_options(module.Options, provider, settings)
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
