"""The checks of inputs whose streams run as the rows of one batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rnnx.arguments import number
from rnnx.errors import InputError, RnnxError, StreamError
from rnnx.model.contract import Contract, InputSpec, axis_index, default_array
from rnnx.model.shapes import Array
from rnnx.pool.batch import same_bits
from rnnx.runtime.input_checks import check_values, match_inputs

# Inputs of one stream by name, and the size of every dimension.
Matched = tuple[dict[str, Array], dict[str, int]]


def check_pooled(contract: Contract, capacity: int) -> int:
    """Refuse models whose streams cannot be rows of one batch; return the capacity as an int.

    Raises:
        StreamError: `whole-only`.
        InputError: `no-batch`, `shared-state`, `shared-output` or `wrong-capacity`.
    """
    if contract.whole_only is not None:
        raise StreamError(
            "whole-only",
            expected="a model that can be stepped",
            found=f"one that takes whole sequences, because of {contract.whole_only}",
            fix="open a stream, and give it the whole sequence in one call of run",
        )
    if not contract.has_batch:
        raise InputError(
            "no-batch",
            expected="a model with a batch axis, whose rows the streams of a pool are",
            found="none in any input or state",
            fix="open one stream per sequence, or export with a batch axis",
        )
    for kind, specs in (("state", contract.states), ("output", contract.outputs)):
        for spec in specs:
            if axis_index(spec.shape, "batch") is None:
                raise InputError(
                    f"shared-{kind}",
                    expected=f"{kind}s with a batch axis, so that each stream of a pool has its own",
                    found=f"{kind} {spec.name!r} shared by all rows",
                    fix="open one stream per sequence",
                )
    return number(
        capacity, "capacity as a number of 1 or more", least=1, code="wrong-capacity", error=InputError
    )


def by_stream(inputs: Any) -> dict[int, Any]:
    """Return inputs as a dict by stream. Raises InputError `wrong-streams` for anything but a mapping."""
    if isinstance(inputs, Mapping):
        return dict(inputs)
    raise InputError(
        "wrong-streams",
        expected="a dict of inputs by stream",
        found=f"a {type(inputs).__name__}",
        fix="name the stream of each: {a: {...}}, with what pool.open() returned",
    )


def match_streams(
    contract: Contract,
    streams: Iterable[int],
    feeds: Iterable[Any],
    sizes: Mapping[str, int],
    *,
    whole: bool,
    finite: bool,
) -> list[Matched]:
    """Return the inputs of each stream, checked one by one and against each other.

    Args:
        contract: of the model.
        streams: in the order of `feeds`.
        feeds: what each was given.
        sizes: that are bound, with a batch of 1.
        whole: whether these are chunks, whose lengths may differ; else steps.
        finite: whether NaN and infinity are refused.

    Raises:
        InputError: as `match_inputs` and `check_values`, with the stream; or `streams-disagree`.
    """
    streams = list(streams)
    found = []
    for stream, feed in zip(streams, feeds, strict=True):
        try:
            arrays, dims = match_inputs(contract, feed, sizes, whole=whole)
            check_values(contract, arrays, dims, finite=finite)
        except InputError as error:
            raise named(error, f"stream {stream}") from None
        found.append((arrays, dims))
    check_joined(contract, streams, found)
    return found


def check_joined(contract: Contract, streams: Sequence[int], found: Sequence[Matched]) -> None:
    """Check the inputs of streams, each of which is right alone, against each other.

    Raises:
        InputError: `streams-disagree`.
    """
    _check_sizes(contract, streams, found)
    for spec in contract.inputs:
        if axis_index(spec.shape, "batch") is None and any(spec.name in arrays for arrays, _ in found):
            _check_shared(spec, streams, found)


def named(error: RnnxError, name: str) -> RnnxError:
    """Return `error` with whose input it was in its text."""
    return type(error)(
        error.code, expected=error.expected, found=f"{error.found}, in the input of {name}", fix=error.fix
    )


def _check_sizes(contract: Contract, streams: Sequence[int], found: Sequence[Matched]) -> None:
    for name in contract.free_dimensions:
        sizes = [dims[name] for _, dims in found]
        for stream, size in zip(streams, sizes, strict=True):
            if size != sizes[0]:
                raise InputError(
                    "streams-disagree",
                    expected=f"one size of {name!r} in all streams that run together",
                    found=f"{sizes[0]} in stream {streams[0]}, {size} in stream {stream}",
                    fix="run them in separate calls",
                )


def _check_shared(spec: InputSpec, streams: Sequence[int], found: Sequence[Matched]) -> None:
    """Refuse an input that holds for all rows and is not the same in all streams."""
    shape = next(arrays[spec.name].shape for arrays, _ in found if spec.name in arrays)
    values = []
    for arrays, dims in found:
        default = np.full(shape, dims["time"]) if spec.role else None
        if spec.default is not None:
            default = default_array(spec, shape)
        value = arrays.get(spec.name, default)
        assert value is not None
        values.append(value)
    for stream, value in zip(streams, values, strict=True):
        if value.shape != shape or not same_bits([values[0], value]):
            raise InputError(
                "streams-disagree",
                expected=f"one value of {spec.name!r}, which has no batch axis, in all streams of a call",
                found=f"another in stream {stream} than in stream {streams[0]}",
                fix="run them in separate calls, or export the model with a batch axis there",
            )
