"""Inputs made up from the contract alone, for comparing and measuring."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rnnx.contract import Contract, InputSpec, default_array, resolve, step_shape
from rnnx.errors import InputError
from rnnx.shapes import Array, has_steps


def random_inputs(
    contract: Contract, *, steps: int, sizes: Mapping[str, int], seed: int = 0
) -> dict[str, Array]:
    """Return inputs that a model could meet, the same for the same seed.

    Floats are drawn from the normal distribution, optional ones near their default; symbols from the
    vocabulary; other integers and truth values are 0 or 1; lengths are left to their default.

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
    dtype = np.dtype(spec.dtype)
    vocabulary = contract.vocabulary
    if vocabulary is not None and vocabulary.input == spec.name:
        return random.integers(0, len(vocabulary.symbols), shape).astype(dtype)
    if dtype.kind != "f":
        return (
            default_array(spec, shape)
            if spec.default is not None
            else random.integers(0, 2, shape).astype(dtype)
        )
    noise = np.asarray(random.standard_normal(shape))
    if spec.default is not None:
        noise = default_array(spec, shape).astype(np.float64) + 0.1 * noise
    return noise.astype(dtype)
