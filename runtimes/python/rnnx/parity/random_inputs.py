"""Inputs made up from the contract alone, for comparing and measuring."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rnnx.errors import InputError
from rnnx.model.contract import Contract, InputSpec, default_array, resolve, step_shape
from rnnx.model.index_ranges import bounds_of
from rnnx.model.shapes import Array, has_steps


def random_inputs(
    contract: Contract, *, steps: int, sizes: Mapping[str, int], seed: int = 0
) -> dict[str, Array]:
    """Return inputs that a model could meet, the same for the same seed.

    What has a range is drawn from it, and symbols from the vocabulary; other floats from the normal
    distribution; other integers and booleans are 0 or 1. Optional inputs stay near their default, and in
    their range; lengths are left to their default.

    Args:
        contract: of the model.
        steps: number of steps, 1 or more.
        sizes: of batch and every free dimension.
        seed: of the generator.

    Returns:
        By input name: [step, ...], or once for inputs without time.

    Raises:
        InputError: `missing-dimension` for a free dimension that `sizes` lacks.
    """
    random = np.random.default_rng(seed)
    values = {}
    for spec in contract.inputs:
        if spec.role == "length":
            continue
        try:
            shape = resolve(step_shape(spec), sizes)
        except KeyError as error:
            raise InputError(
                "missing-dimension",
                expected=f"the size of {error.args[0]!r}, which input {spec.name!r} has",
                found=", ".join(f"{name}={size}" for name, size in sizes.items()),
                fix=f"name it: dims={{{error.args[0]!r}: ...}}",
            ) from error
        if has_steps(contract, spec):
            shape = (steps, *shape)
        values[spec.name] = _random_input(contract, spec, shape, random)
    return values


def _random_input(
    contract: Contract, spec: InputSpec, shape: tuple[int, ...], random: np.random.Generator
) -> Array:
    dtype, bounds = np.dtype(spec.dtype), bounds_of(contract, spec)
    if spec.default is not None and (bounds is None or bounds.kind == "value"):
        value = default_array(spec, shape)
        if dtype.kind == "f":
            value = value.astype(np.float64) + 0.1 * random.standard_normal(shape)
        elif bounds is not None:
            value = value.astype(np.int64) + random.integers(-1, 2, shape)
        return (value if spec.range is None else np.clip(value, *spec.range)).astype(dtype)
    if bounds is not None:
        return random.integers(bounds.least, bounds.largest, shape, endpoint=True).astype(dtype)
    if dtype.kind != "f":
        return random.integers(0, 2, shape).astype(dtype)
    if spec.range is None:
        return np.asarray(random.standard_normal(shape)).astype(dtype)
    least, largest = spec.range
    share = np.asarray(random.random(shape))
    return ((1 - share) * least + share * largest).astype(dtype)
