"""Inputs of a long comparison, made when they are needed, so that 100,000 steps fit in any memory.

Each kind behaves like an array [step, ...]: it has a length, and elements and slices are rows. Rows can be
asked for again as long as they are not further back than a few blocks; random ones always.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from rnnx.errors import InputError, UsageError
from rnnx.model.contract import Contract, InputSpec, resolve, step_shape
from rnnx.model.shapes import Array, chunk_shape, has_steps, to_steps
from rnnx.parity.random_inputs import random_inputs
from rnnx.parity.reference import Inputs, Values
from rnnx.runtime.input_buffers import name_inputs, to_array
from rnnx.runtime.input_checks import check_values

BLOCK = 256  # steps drawn at a time, and the longest chunk of a comparison
_KEPT_BLOCKS = 4

Kind = Literal["random", "zeros", "large", "denormal"]
KINDS: tuple[Kind, ...] = ("random", "zeros", "large", "denormal")


def drawn_inputs(
    contract: Contract,
    *,
    steps: int,
    sizes: Mapping[str, int],
    seed: int = 0,
    kind: Kind = "random",
) -> dict[str, Any]:
    """Return inputs that are drawn block by block, the same for the same seed.

    Args:
        contract: of the model.
        steps: number of steps, 1 or more.
        sizes: of batch and every free dimension.
        seed: of the generator.
        kind: `random`: as `random_inputs`; `zeros`; `large`: a thousand times as large (30
            times for float16); `denormal`: so small that they have no leading bit. Floats only: symbols,
            integers and inputs with a range are random always; so are lengths, of which the first is whole.

    Returns:
        By input name: rows [step, ...], or an array once for inputs without time.

    Raises:
        InputError: `missing-dimension` for a free dimension that `sizes` lacks.
    """
    blocks = _Blocks(contract, steps, sizes, seed, kind)
    first = blocks.get(0)
    values: dict[str, Any] = {}
    for spec in contract.inputs:
        if spec.role == "length":
            lengths = _lengths(resolve(spec.shape, sizes), steps, seed)
            values[spec.name] = lengths if spec.order is None else -np.sort(-lengths)
        else:
            stepped = has_steps(contract, spec)
            values[spec.name] = _Drawn(blocks, spec.name, steps) if stepped else first[spec.name]
    return values


def _lengths(shape: tuple[int, ...], steps: int, seed: int) -> Array:
    """Return random lengths of rows, the first of which is valid to the end."""
    lengths = np.random.default_rng([seed, 0x6C656E]).integers(1, steps + 1, shape)
    lengths.reshape(-1)[:1] = steps
    return lengths.astype(np.int64)


class _Blocks:
    """All inputs of a few blocks of steps, drawn again where they are gone."""

    def __init__(
        self, contract: Contract, steps: int, sizes: Mapping[str, int], seed: int, kind: Kind
    ) -> None:
        self._contract, self._steps, self._sizes, self._seed = contract, steps, sizes, seed
        self._kind: Kind = kind
        self._kept: OrderedDict[int, dict[str, Array]] = OrderedDict()

    def get(self, block: int) -> dict[str, Array]:
        if block not in self._kept:
            self._kept[block] = self._draw(block)
            if len(self._kept) > _KEPT_BLOCKS:
                self._kept.popitem(last=False)
        return self._kept[block]

    def _draw(self, block: int) -> dict[str, Array]:
        count = min(BLOCK, self._steps - block * BLOCK)
        seed = (self._seed << 32) + block
        values = random_inputs(self._contract, steps=count, sizes=self._sizes, seed=seed)
        for spec in self._contract.inputs:
            if spec.name in values and spec.range is None:
                values[spec.name] = _of_kind(values[spec.name], self._kind)
        return values


def _of_kind(value: Array, kind: Kind) -> Array:
    if value.dtype.kind != "f" or kind == "random":
        return value
    if kind == "zeros":
        return np.zeros_like(value)
    if kind == "large":
        return np.asarray(value * (30 if value.dtype.itemsize == 2 else 1000), value.dtype)
    tiny = np.finfo(value.dtype).smallest_normal / 4
    return np.asarray(np.clip(value, -3, 3) * tiny, value.dtype)


class _Rows:
    """What all lazy rows share: they can stand wherever an array [step, ...] is read row by row."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, place: int | slice) -> Array:
        if isinstance(place, slice):
            return np.stack([self._row(step) for step in range(*place.indices(self._steps))])
        if not 0 <= place < self._steps:
            raise IndexError(place)
        return self._row(place)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)

    def _row(self, step: int) -> Array:
        raise NotImplementedError


class _Drawn(_Rows):
    def __init__(self, blocks: _Blocks, name: str, steps: int) -> None:
        super().__init__(steps)
        self._blocks, self._name = blocks, name

    def _row(self, step: int) -> Array:
        row: Array = self._blocks.get(step // BLOCK)[self._name][step % BLOCK]
        return row


class FedBack(_Rows):
    """An input whose every row but the first is what came out a step before.

    Args:
        first: row 0.
        steps: number of rows.
    """

    def __init__(self, first: Array, steps: int) -> None:
        super().__init__(steps)
        self._dtype = first.dtype  # a reference in float64 gives more than its input takes
        self._kept = {0: np.array(first)}
        self._next = 1

    def push(self, output: Array) -> None:
        """Make `output` the next row."""
        self._kept[self._next] = np.array(output, dtype=self._dtype)
        self._kept.pop(self._next - 2 * BLOCK, None)
        self._next += 1

    def _row(self, step: int) -> Array:
        return self._kept[step]


def loops(contract: Contract) -> dict[str, str]:
    """Return which output can be fed back as which input: the same dtype and shape of a step.

    Raises:
        UsageError: `nothing-to-feed-back`.
    """
    found: dict[str, str] = {}
    for spec in contract.inputs:
        for output in contract.outputs:
            fits = output.dtype == spec.dtype and step_shape(output) == step_shape(spec)
            if fits and _takes_feedback(contract, spec) and output.name not in found.values():
                found[spec.name] = output.name
                break
    if not found:
        raise UsageError(
            "nothing-to-feed-back",
            expected="an output with the dtype and shape of an input",
            found="none",
            fix="use random or recorded inputs",
        )
    return found


def _takes_feedback(contract: Contract, spec: InputSpec) -> bool:
    return spec.role is None and has_steps(contract, spec)


def fed_back(inputs: Inputs, pairs: Mapping[str, str]) -> dict[str, Any]:
    """Return `inputs` with each input in `pairs` (input -> output name) waiting for its output."""
    return {name: FedBack(rows[0], len(rows)) if name in pairs else rows for name, rows in inputs.items()}


def push(inputs: Inputs, pairs: Mapping[str, str], outputs: Values) -> None:
    """Hand the outputs of a step to the inputs that wait for them."""
    for name, output in pairs.items():
        inputs[name].push(outputs[output])


def recorded_inputs(
    contract: Contract, arrays: Array | Mapping[str, Array], *, time: int
) -> dict[str, Array]:
    """Return recorded chunks as rows.

    Args:
        contract: of the model.
        arrays: by input name, in the shape of a chunk, batch and time included; the bare array will do for
            a model with one input.
        time: number of steps in them.

    Raises:
        InputError: `wrong-time` for an array without the axes of a chunk; as `Stream.run` for other names,
            dtypes or values.
    """
    found = name_inputs(contract.inputs, arrays)
    named = {spec.name: to_array(spec, found[spec.name]) for spec in contract.inputs if spec.name in found}
    check_values(contract, named, {"time": time}, finite=True)
    for spec in contract.inputs:
        if spec.name in named and has_steps(contract, spec):
            shape = chunk_shape(contract, spec)
            if named[spec.name].ndim != len(shape):
                raise InputError(
                    "wrong-time",
                    expected=f"input {spec.name!r} as {spec.dtype}{shape}".replace("'", ""),
                    found=f"an array {list(named[spec.name].shape)}",
                    fix="give whole sequences, with the batch and time axes that 'rnnx inspect' shows",
                )
            named[spec.name] = to_steps(named[spec.name], shape)
    return named
