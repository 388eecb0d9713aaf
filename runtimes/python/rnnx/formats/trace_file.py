"""Traces: recorded inputs, outputs and states, the test vectors that all languages share.

safetensors with the metadata (all text)

    format      "rnnx-trace"
    version     "1"
    model       the id of the model file, compared as a string
    reference   what gave the outputs: "torch 2.15.0"
    tolerances  JSON: {"output.y": {"atol": 2e-05, "rtol": 2e-05}, "state.lstm.h": ...}

and the tensors

    input.NAME    [step, ...]    row t is exactly what step t takes; an input without time, and a length
                                 input, stands there once, without the step axis
    output.NAME   [step, ...]    row t is exactly what step t gives
    state.NAME    [step+1, ...]  row 0 the start, row t+1 after step t

A value agrees if |got - expected| <= atol + rtol * |expected|, or both are the same infinity or NaN.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from rnnx.errors import FileError
from rnnx.files import read_bytes, write_bytes
from rnnx.formats.safetensors_file import check_format, decode_tensors, encode_tensors
from rnnx.model.contract import Contract, Dimension, InputSpec, OutputSpec, StateSpec, describe, step_shape
from rnnx.model.shapes import Array, fit, has_steps
from rnnx.tolerance import Bound

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a trace holds.

    Attributes:
        model_id: identity of the model file it was recorded from.
        reference: what gave the outputs.
        tolerances: how far a value may be off, by tensor: `output.NAME`, `state.NAME`.
        inputs: by name; [step, ...], or once for those without time.
        outputs: by name, [step, ...].
        states: by name, [step+1, ...].
    """

    model_id: str
    reference: str
    tolerances: Mapping[str, Bound]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    states: Mapping[str, Array]

    @property
    def steps(self) -> int:
        """Number of steps recorded."""
        return len(next(iter(self.outputs.values())))


def encode_trace(trace: Trace) -> bytes:
    """Return a trace as bytes; equal traces give equal bytes."""
    tensors: dict[str, Array] = {}
    for kind, group in (("input", trace.inputs), ("output", trace.outputs), ("state", trace.states)):
        tensors |= {f"{kind}.{name}": value for name, value in group.items()}
    tolerances = {
        name: {"atol": bound.absolute, "rtol": bound.relative} for name, bound in trace.tolerances.items()
    }
    metadata = {
        "format": "rnnx-trace",
        "version": str(VERSION),
        "model": trace.model_id,
        "reference": trace.reference,
        "tolerances": json.dumps(tolerances),
    }
    return encode_tensors(tensors, metadata)


def write_trace(path: str | os.PathLike[str], trace: Trace) -> None:
    """Write a trace, whole or not at all. Raises FileError as `rnnx.files.writing` does."""
    write_bytes(path, encode_trace(trace))


def read_trace(
    source: str | os.PathLike[str] | bytes, contract: Contract, *, model_id: str | None = None
) -> Trace:
    """Read a trace, or its bytes, and check it against the model it is for.

    Args:
        source: path or bytes.
        contract: of the model.
        model_id: of the model file; the trace must be of the same one. None accepts any.

    Raises:
        FileError: `file-missing`, `cannot-read`, `not-safetensors`, `not-a-trace`, `trace-newer`,
            `trace-of-another-model`, or `trace-invalid` for tensors or tolerances that are missing, empty or
            of another dtype or shape than the contract says.
    """
    data = source if isinstance(source, bytes) else read_bytes(source, what="a trace")
    tensors, metadata = decode_tensors(data, what="a trace")
    check_format(metadata, what="a trace", name="trace", version=VERSION, model_id=model_id)
    tolerances = _tolerances(metadata.get("tolerances", ""))
    reader = _Reader(tensors)
    inputs = {}
    for spec in contract.inputs:
        optional = spec.default is not None or spec.role == "length"
        if f"input.{spec.name}" in tensors or not optional:
            stepped = has_steps(contract, spec)
            inputs[spec.name] = reader.take("input", spec, step_shape(spec), "step" if stepped else None)
    outputs = {spec.name: reader.take("output", spec, step_shape(spec), "step") for spec in contract.outputs}
    states = {spec.name: reader.take("state", spec, spec.shape, "step+1") for spec in contract.states}
    for name in [f"output.{name}" for name in outputs] + [f"state.{name}" for name in states]:
        if name not in tolerances:
            raise _invalid(f"a tolerance for {name!r}", ", ".join(tolerances) or "none")
    return Trace(
        metadata.get("model", ""), metadata.get("reference", ""), tolerances, inputs, outputs, states
    )


class _Reader:
    """Takes tensors out of a trace, checking that all agree on steps, batch and free dimensions."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors
        self._sizes: dict[str, int] = {}

    def take(
        self,
        kind: str,
        spec: InputSpec | OutputSpec | StateSpec,
        shape: Sequence[Dimension],
        first: str | None,
    ) -> Array:
        """Return the tensor `kind.NAME`, of `shape` behind a first axis of steps ("step" or "step+1")."""
        name = f"{kind}.{spec.name}"
        value = self._tensors.get(name)
        if value is None:
            raise _invalid(f"a tensor {name!r}", ", ".join(self._tensors) or "no tensors")
        extra = 1 if first == "step+1" else 0
        rest = value.shape[1:] if first else value.shape
        fitted = fit(shape, rest, self._sizes)
        if fitted is not None and first and value.ndim:
            steps = fitted.setdefault("step", value.shape[0] - extra)
            fitted = fitted if steps == value.shape[0] - extra and steps > 0 else None
        if fitted is None or (first and not value.ndim) or value.dtype != np.dtype(spec.dtype):
            wanted = describe(spec.dtype, [first, *shape] if first else shape)
            known = ", ".join(f"{key} {size}" for key, size in self._sizes.items())
            raise _invalid(
                f"{name!r} as {wanted}" + (f" where {known}" if known else ""),
                describe(str(value.dtype), value.shape),
            )
        self._sizes = fitted
        return value


def _tolerances(text: str) -> dict[str, Bound]:
    try:
        parsed = json.loads(text)
        return {name: Bound(float(entry["atol"]), float(entry["rtol"])) for name, entry in parsed.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _invalid("tolerances as JSON", repr(text[:60])) from error


def trace_sizes(trace: Trace, contract: Contract) -> dict[str, int]:
    """Return the sizes of batch and free dimensions that a trace was recorded with."""
    sizes: dict[str, int] = {}
    for spec in contract.inputs:
        if spec.name in trace.inputs:
            value = trace.inputs[spec.name]
            rest = value.shape[1:] if has_steps(contract, spec) else value.shape
            sizes = fit(step_shape(spec), rest, sizes) or sizes
    for state in contract.states:
        sizes = fit(state.shape, trace.states[state.name].shape[1:], sizes) or sizes
    return sizes


def _invalid(expected: str, found: str) -> FileError:
    return FileError(
        "trace-invalid",
        expected=f"a trace with {expected}",
        found=found,
        fix="record it again with 'rnnx export', or use the trace that belongs to this model",
    )
