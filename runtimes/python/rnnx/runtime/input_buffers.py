"""What a caller hands in, checked and converted before it reaches an engine.

An engine may read out of bounds, or abort the process, on input that does not fit. So every error a
caller can make is found here, and named with tensor, shape and index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnx.errors import InputError, first_line
from rnnx.model.contract import Axis, Dimension, InputSpec, OutputSpec, StateSpec, axis_index, describe
from rnnx.model.index_ranges import Bounds
from rnnx.model.shapes import Array, filled, fit

if TYPE_CHECKING:
    from rnnx.engines.protocol import Call, Device

# What NumPy raises for what is no array, and a tensor on a GPU, or one that needs gradients, when it is read.
UNREADABLE = (TypeError, ValueError, RuntimeError)
_FLOATS = ("float16", "float32", "float64")


class Feed:
    """One input of a call: where it is written, and what is checked on the way.

    Attributes:
        name: of the input.
        target: the engine's buffer, seen in the shape the caller uses.
        default: what stands in for an input left out, in the caller's shape; None if it must be given.
    """

    __slots__ = ("_call", "_check", "_flat", "default", "dtype", "name", "shape", "target")

    def __init__(
        self,
        name: str,
        target: Array,
        *,
        default: Array | None,
        check: Callable[[Array], bool] | None,
        call: Call | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.shape = target.shape
        self.dtype = target.dtype
        self.default = default
        self._flat = target.reshape(-1)
        self._check = check
        self._call = call  # None where nothing is taken from a device

    def fill(self, value: Any) -> bool:
        """Write `value` to the buffer. False if it is no array of the exact shape and dtype, or not valid."""
        if (
            type(value) is not np.ndarray
            or value.shape != self.shape
            or (value.dtype is not self.dtype and value.dtype != self.dtype)  # the first is faster
        ):
            return self._call is not None and self._fill_there(self._call, value)
        self.target[...] = value
        return self._check is None or self._check(self._flat)

    def _fill_there(self, call: Call, value: Any) -> bool:
        """Have the engine take a value that lies on its device; its values are not looked at."""
        found = value if type(value) is OnDevice else on_device(value, call.device)
        if found is None or found.shape != self.shape or found.dtype != self.dtype:
            return False
        call.take(self.name, found.value)
        call.on_device.add(self.name)
        return True

    def is_valid(self) -> bool:
        """Whether what stands in the buffer may reach the engine."""
        return self._check is None or self._check(self._flat)


class OnDevice:
    """A value that lies where the engine computes: of known shape and dtype, its values not looked at."""

    __slots__ = ("dtype", "shape", "size", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.shape = tuple(int(size) for size in value.shape)
        self.size = math.prod(self.shape)
        # PyTorch says "torch.float32", others "float32".
        self.dtype = str(value.dtype).rpartition(".")[2]


def on_device(value: Any, device: Device | None) -> OnDevice | None:
    """Return a value as what lies on `device`, None if it does not (or `device` is the host)."""
    ask = getattr(value, "__dlpack_device__", None) if device is not None else None
    if ask is None or type(value) is np.ndarray or tuple(map(int, ask())) != device:
        return None
    return OnDevice(value)


def is_finite(flat: Array) -> bool:
    """Whether a one-dimensional array of float32 or float64 holds neither NaN nor infinity.

    The dot product with itself is one pass without a temporary. It overflows on large finite values, so
    only a finite one settles the matter; otherwise each element is looked at. (`vdot` overflows silently,
    `dot` with a warning.)
    """
    return math.isfinite(np.vdot(flat, flat)) or bool(np.isfinite(flat).all())


def is_finite_half(flat: Array) -> bool:
    """Whether a one-dimensional array of float16 is finite: its dot product overflows at once."""
    return bool(np.isfinite(flat).all())


def is_within(bounds: Bounds) -> Callable[[Array], bool]:
    """Return a check that all elements of a one-dimensional integer array lie within bounds."""
    least, largest = bounds.least, bounds.largest

    def check(flat: Array) -> bool:
        if flat.size == 1:
            return bool(least <= flat.item() <= largest)
        if least:
            return bool(flat.min(initial=largest) >= least and flat.max(initial=least) <= largest)
        # Seen as unsigned, a negative number is a huge one: one pass instead of two.
        return bool(flat.view(f"u{flat.itemsize}").max(initial=0) <= largest)

    return check


def value_check(spec: InputSpec, bounds: Bounds | None) -> Callable[[Array], bool] | None:
    """Return the check on the values of one input, or None where every value is valid.

    Args:
        spec: the input.
        bounds: as `bounds_of` gives them.
    """
    if bounds is not None:
        return is_within(bounds)
    if spec.dtype == "float16":
        return is_finite_half
    return is_finite if spec.dtype in _FLOATS else None


def to_input(spec: InputSpec, value: Any, device: Device | None) -> Array | OnDevice:
    """Return `value` as what lies on `device`, or else as `to_array` does, with its errors."""
    found = on_device(value, device)
    if found is None:
        return to_array(spec, value)
    if found.dtype != spec.dtype:
        raise _wrong_dtype(spec, describe(found.dtype, found.shape), f"convert it to {spec.dtype}")
    return found


def to_array(spec: InputSpec | StateSpec, value: Any) -> Array:
    """Return `value` as an array of the dtype of `spec` in this machine's byte order.

    Arrays must have exactly that dtype; Python numbers and lists have none and are converted, integers to
    floats too, floats to integers not.

    Raises:
        InputError: `wrong-dtype`, also for masked elements, or `wrong-shape` for lists of unequal lengths.
    """
    dtype = np.dtype(spec.dtype)
    if np.ma.is_masked(value):
        fix = "fill them, and tell the model of them in an input of its own"
        raise _wrong_dtype(spec, "an array with masked elements", fix)
    if isinstance(value, (bool, int, float, list, tuple)):
        return _from_python(spec, value, dtype)
    try:
        array = np.asarray(value)
    except UNREADABLE as error:
        found = f"a {type(value).__name__} that is no array ({first_line(error)})"
        raise _wrong_dtype(spec, found, "convert it to a NumPy array first") from error
    if array.dtype.newbyteorder("=") == dtype:
        return np.asarray(array, dtype)
    raise _wrong_dtype(spec, describe(str(array.dtype), array.shape), f"convert it to {spec.dtype}")


def _from_python(spec: InputSpec | StateSpec, value: Any, dtype: np.dtype[Any]) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise wrong_shape(spec, spec.shape, {}, "lists of unequal lengths") from error
    order = "biuf"
    rank = order.find(array.dtype.kind)
    if isinstance(value, (list, tuple)) and not array.size:
        return array.astype(dtype)
    wanted = max(order.find(dtype.kind), 1 if dtype.kind != "b" else 0)
    if rank < 0 or (rank == 0) != (dtype.kind == "b") or (rank == 3 and wanted != 3):
        raise _wrong_dtype(spec, f"Python values of type {array.dtype}", f"give {spec.dtype} values")
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise _wrong_dtype(
                spec, f"values from {array.min()} to {array.max()}", f"give {spec.dtype} values"
            )
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def required(specs: Sequence[InputSpec]) -> list[str]:
    """Return the names of the inputs that a caller has to give."""
    return [spec.name for spec in specs if spec.default is None and spec.role is None]


def name_inputs(specs: Sequence[InputSpec], inputs: Any) -> Mapping[str, Any]:
    """Return what a caller handed in by input name; a model that needs one input takes it bare.

    Raises:
        InputError: `unknown-input` or `missing-input`.
    """
    needed = required(specs)
    inputs = {} if inputs is None else inputs
    if not isinstance(inputs, Mapping):
        alone = needed if len(needed) == 1 else [spec.name for spec in specs]
        if len(alone) == 1:
            return {alone[0]: inputs}
        raise InputError(
            "missing-input",
            expected=f"a dict of the inputs {', '.join(needed)}",
            found=f"one {type(inputs).__name__}",
            fix="name each value: {" + ", ".join(f'"{name}": ...' for name in needed) + "}",
        )
    known = [spec.name for spec in specs]
    for name in inputs:
        if name not in known:
            raise InputError(
                "unknown-input",
                expected=f"inputs {', '.join(known)}",
                found=repr(name),
                fix="correct or remove it; 'rnnx inspect' lists the inputs",
            )
    for name in needed:
        if inputs.get(name) is None:
            raise InputError(
                "missing-input",
                expected=f"a value for each of the inputs {', '.join(needed)}",
                found=f"none for {name!r}",
                fix=f"add {name!r}",
            )
    return inputs


def wrong_value(spec: InputSpec, array: Array, bounds: Bounds | None) -> InputError:
    """Return the error for the first value of `array` that `value_check` does not let pass."""
    if bounds is None:
        code, allowed, bad = "non-finite", "finite values", ~np.isfinite(array)
        fix = "mend the source of the NaN or infinity; one of them would spoil every later step"
    else:
        code, allowed, fix = f"{bounds.kind}-range", bounds.allowed, bounds.fix
        bad = (array < bounds.least) | (array > bounds.largest)
    index = tuple(int(entry) for entry in np.argwhere(bad)[0])
    place = f"at index {list(index)}" if index else "as its value"
    return InputError(code, expected=f"{allowed} in {spec.name!r}", found=f"{array[index]} {place}", fix=fix)


def wrong_shape(
    spec: InputSpec | StateSpec | OutputSpec,
    shape: Sequence[Dimension],
    dims: Mapping[str, int],
    found: str,
    fix: str = "reshape it, or open the stream with the batch and dims that you mean",
) -> InputError:
    """Return the error for a tensor whose shape does not fit."""
    return InputError(
        "wrong-shape", expected=f"{spec.name!r} as {spec.dtype}{filled(shape, dims)}", found=found, fix=fix
    )


def misfit(
    spec: InputSpec,
    shape: Sequence[Dimension],
    actual: tuple[int, ...],
    dims: Mapping[str, int],
    *,
    whole: bool,
) -> InputError:
    """Return the error for an input whose sizes do not fit `shape`, `dims` or each other."""
    for name in ("batch", "time"):
        index = axis_index(shape, name)
        if index is not None and len(actual) == len(shape) and actual[index] == 0:
            return InputError(
                f"empty-{name}",
                expected=f"{spec.name!r} as {spec.dtype}{filled(shape, dims)} with at least one entry",
                found=f"{list(actual)}: a {name} of 0",
                fix="leave the call out when there is nothing to run",
            )
    found = f"{list(actual)}"
    time = axis_index(shape, "time")
    if whole and time is not None and len(actual) == len(shape):
        factor = Axis.parse(shape[time]).factor
        full = -(-actual[time] // factor) * factor
        if full != actual[time] and fit(shape, [*actual[:time], full, *actual[time + 1 :]], dims) is not None:
            found += f", where {actual[time]} is no multiple of {factor}"
            fix = f"fill it up to {full}, or give it to feed, which keeps what is over"
            return wrong_shape(spec, shape, dims, found, fix)
    if len(actual) == len(shape) + 1 and not whole:
        return wrong_shape(
            spec, shape, dims, f"{found}, which has one axis more than a step", "use run for chunks"
        )
    batched = with_axis("batch", shape, actual, dims)
    one_step = whole and with_axis("time", shape, actual, dims) is not None
    if one_step and (batched is None or "batch" in dims):  # else any number of steps would be so many rows
        return wrong_shape(
            spec, shape, dims, f"{found}, which has one axis less than a chunk", "use step for one step"
        )
    if batched is not None:
        fix = f"reshape it to {batched}, a batch of one row"
        return wrong_shape(spec, shape, dims, f"{found}, which has no batch axis", fix)
    return wrong_shape(spec, shape, dims, found)


def with_axis(
    name: str, shape: Sequence[Dimension], actual: Sequence[int], dims: Mapping[str, int]
) -> list[int] | None:
    """Return sizes with a 1 for the axis called `name`, None where they do not fit `shape` and `dims` so."""
    index = axis_index(shape, name)
    if index is None or len(actual) != len(shape) - 1:
        return None
    sizes = [*actual[:index], 1, *actual[index:]]
    return sizes if fit(shape, sizes, dims) is not None else None


def _wrong_dtype(spec: InputSpec | StateSpec, found: str, fix: str) -> InputError:
    return InputError("wrong-dtype", expected=f"{spec.name!r} as {spec.dtype}", found=found, fix=fix)
