"""Inputs held against the contract: as arrays of the right dtype and shape, with the sizes they settle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnx.engines.protocol import Device
from rnnx.errors import InputError
from rnnx.model.contract import Contract, step_shape
from rnnx.model.index_ranges import bounds_of
from rnnx.model.shapes import Array, chunk_shape, fit
from rnnx.runtime import input_buffers


def match_inputs(
    contract: Contract, inputs: Any, sizes: Mapping[str, int], *, whole: bool, device: Device | None = None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the inputs that were given, by name, and the size of every dimension.

    Args:
        contract: of the model.
        inputs: as `Stream.step` takes them, or `Stream.run` if `whole`.
        sizes: that are known: batch, and free dimensions that were bound.
        whole: whether this is a chunk; else it is one step.
        device: where inputs may lie, which stand as `feeds.OnDevice` then; None for the host alone.

    Raises:
        InputError: `unknown-input`, `missing-input`, `wrong-dtype`, `wrong-shape`, `empty-batch`,
            `empty-time` or `missing-dimension`.
    """
    arrays: dict[str, Any] = {}
    dims = sizes if whole else {**sizes, "time": 1}
    named = input_buffers.name_inputs(contract.inputs, inputs)
    for spec in contract.inputs:
        if named.get(spec.name) is None:
            continue
        # Bounded integers are always looked at, so they have to be on the host.
        where = None if bounds_of(contract, spec) is not None else device
        array = input_buffers.to_input(spec, named[spec.name], where)
        shape = chunk_shape(contract, spec) if whole else step_shape(spec)
        fitted = fit(shape, array.shape, dims)
        if fitted is None or not array.size:
            raise input_buffers.misfit(spec, shape, array.shape, dims, whole=whole)
        arrays[spec.name], dims = array, fitted
    for name in ("time", *contract.free_dimensions):
        if name not in dims:
            raise InputError(
                "missing-dimension",
                expected=f"an input that tells the size of {name!r}",
                found="none given that has such an axis",
                fix="give one of the optional inputs"
                if name == "time"
                else "bind it when opening the stream",
            )
    return arrays, dict(dims)


def check_values(
    contract: Contract, arrays: Mapping[str, Array], dims: Mapping[str, int], *, finite: bool
) -> None:
    """Check the values of inputs whose shapes fit.

    Args:
        contract: of the model.
        arrays: as `match_inputs` gives them.
        dims: with the number of steps as `time`.
        finite: whether NaN and infinity are refused; bounded integers are checked in any case.

    Raises:
        InputError: `non-finite`, `symbol-range`, `length-range` or `value-range`.
    """
    for spec in contract.inputs:
        bounds = bounds_of(contract, spec, time=dims["time"])
        check = input_buffers.value_check(spec, bounds)
        array = arrays.get(spec.name)
        wanted = finite or bounds is not None
        if array is None or check is None or not wanted or isinstance(array, input_buffers.OnDevice):
            continue
        if not check(np.ascontiguousarray(array).reshape(-1)):
            raise input_buffers.wrong_value(spec, array, bounds)
