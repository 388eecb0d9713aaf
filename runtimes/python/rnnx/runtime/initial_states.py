"""What a stream is opened with: its sizes and the start of its states, checked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rnnx.arguments import number
from rnnx.errors import InputError, first_line
from rnnx.limits import check_bytes
from rnnx.model.contract import Contract, axis_index, initial_array, resolve, unknown_name
from rnnx.model.shapes import Array
from rnnx.runtime import input_buffers


def sizes(
    contract: Contract, batch: int, dims: Mapping[str, int], capacity: int | None = None
) -> dict[str, int]:
    """Check the sizes a stream is opened with, or a pool of a capacity; return them by name, with the batch.

    Raises:
        InputError: `unknown-dimension`, `wrong-dimension`, `missing-dimension`, `empty-batch`, `no-batch`
            or `out-of-memory`.
    """
    free = contract.free_dimensions
    for name in dims:
        if name not in free:
            raise unknown_name("dimension", name, free)
    found = {**dims, "batch": batch}
    for name, size in found.items():
        code = "empty-batch" if name == "batch" else "wrong-dimension"
        found[name] = number(size, f"{name} as a number of 1 or more", least=1, code=code, error=InputError)
    if batch != 1 and not contract.has_batch:
        raise InputError(
            "no-batch",
            expected="batch 1, since the model has no batch axis",
            found=str(batch),
            fix="open one stream per sequence, or export with a batch axis",
        )
    for state in contract.states:
        for name in free:
            if name not in dims and axis_index(state.shape, name) is not None:
                raise InputError(
                    "missing-dimension",
                    expected=f"the size of {name!r}, which state {state.name!r} has",
                    found=f"dims with {', '.join(dims) or 'nothing'}",
                    fix="bind it when opening the stream",
                )
    check_states(contract, found if capacity is None else {**found, "capacity": capacity})
    return found


def check_states(contract: Contract, found: Mapping[str, int]) -> None:
    """Refuse sizes at which states take more than `rnnx.limits` allows. Raises InputError `out-of-memory`.

    Args:
        contract: of the model.
        found: sizes by name; `capacity`, where there is one, are the rows of a pool's table.
    """
    dims = {**found, "batch": found.get("capacity", found["batch"])}
    sizes = (
        math.prod(resolve(state.shape, dims)) * np.dtype(state.dtype).itemsize for state in contract.states
    )
    named = ", ".join(f"{name} {size}" for name, size in found.items())
    check_bytes(f"states of {named}, twice,", 2 * sum(sizes))  # two sets of buffers that swap roles


@contextlib.contextmanager
def room(found: Mapping[str, int]) -> Iterator[None]:
    """Say which sizes they were made for where buffers do not fit. Raises InputError `out-of-memory`."""
    try:
        yield
    except (MemoryError, OverflowError, ValueError) as error:  # the latter two: more than an array can have
        raise InputError(
            "out-of-memory",
            expected=f"memory for buffers of {', '.join(f'{name} {size}' for name, size in found.items())}",
            found=first_line(error),
            fix="choose smaller sizes",
        ) from error


def starts(contract: Contract, found: Mapping[str, int], initial: Mapping[str, Any]) -> dict[str, Array]:
    """Return the start of every state in full shape: from `initial` where named there, else the contract's.

    Raises:
        InputError: as `state_array`.
    """
    values = {state.name: initial_array(state, found) for state in contract.states}
    return values | {name: state_array(contract, name, value, found) for name, value in initial.items()}


def state_array(contract: Contract, name: str, value: Any, found: Mapping[str, int]) -> Array:
    """Return `value` as a fresh array for state `name`; a single Python number fills its shape.

    Raises:
        InputError: `unknown-state`, `wrong-dtype`, `wrong-shape`, or `non-finite` for NaN; a state may hold
            infinities.
    """
    spec = next((state for state in contract.states if state.name == name), None)
    if spec is None:
        raise unknown_name("state", name, [state.name for state in contract.states])
    array, shape = input_buffers.to_array(spec, value), resolve(spec.shape, found)
    if isinstance(value, (bool, int, float)):
        array = np.broadcast_to(array, shape)
    if array.shape != shape:
        raise input_buffers.wrong_shape(spec, spec.shape, found, f"{array.dtype}{list(array.shape)}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        index = [int(entry) for entry in np.argwhere(np.isnan(array))[0]]
        raise InputError(
            "non-finite",
            expected=f"state {name!r} without NaN (infinities are allowed)",
            found=f"nan at index {index}",
            fix="mend where it comes from; a NaN stays in a state for ever",
        )
    return np.array(array, order="C")
