"""Call after call, and the ends of calls: what the module's caller sees beside the rows of one sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rnnx.errors import InputError
from rnnx.model.contract import OutputSpec, axis_index
from rnnx.model.shapes import Array, chunk_shape, to_steps
from rnnx.parity.lockstep import chunk_inputs, ended_rows
from rnnx.tolerance import error_beyond
from rnnx_export.proof.driven_reference import DrivenReference
from rnnx_export.proof.setting import ProofError, ProofSetting

_LENGTHS = (3, 1, 5, 2)


def compare_calls(setting: ProofSetting, batch: int) -> None:
    """Compare call after call: the module is called again as its author would, and the file goes on.

    A module that itself begins anew at each call, such as an LSTM that is given no state, says nothing here:
    of such a one the whole sequence is what counts, and that is compared elsewhere.

    Raises:
        ProofError: they differ.
    """
    plan, contract = setting.plan, setting.contract
    if not plan.convention.has_time or contract.whole_only:
        return
    sizes = setting.sizes(batch, sum(_LENGTHS), 4)
    inputs = setting.inputs(sizes, 4)
    driven, whole = DrivenReference(plan, lengths=_LENGTHS), DrivenReference(plan)
    try:
        calls = [outputs for outputs, _ in driven.steps(inputs, driven.start(sizes))]
    except InputError:  # it does not run on calls as short as these
        return
    rows = [outputs for outputs, _ in whole.steps(inputs, whole.start(sizes))]
    if not all(_alike(setting, *pair) for pair in zip(calls, rows, strict=True)):
        return
    stream, end = setting.stream(sizes), 0
    for length in _LENGTHS:
        begin, end = end, end + length
        got = stream.run(chunk_inputs(contract, inputs, begin, end))
        for spec in contract.outputs:
            for step, row in _rows(setting, spec, got[spec.name], begin, end):
                ended = ended_rows(contract, inputs, step, f"output.{spec.name}")
                where = f"calls of {_LENGTHS} steps: step {step}"
                _compare(setting, spec.name, calls[step][spec.name], row, where, ended)


def compare_ends(setting: ProofSetting, inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Compare outputs without time in every row, also in those that ended before the call did.

    Nothing says what such a row gives at a later step, but what the module says of it after a whole call is
    what its caller reads: the last hidden state of a padded batch.

    Raises:
        ProofError: they differ.
    """
    contract = setting.contract
    ends = [spec for spec in contract.outputs if axis_index(chunk_shape(contract, spec), "time") is None]
    if not ends or not any(spec.role == "length" for spec in contract.inputs):
        return
    driven = DrivenReference(setting.plan)
    *_, (expected, _) = driven.steps(inputs, driven.start(sizes))
    got = setting.run_whole(inputs, sizes)
    for spec in ends:
        _compare(
            setting, spec.name, expected[spec.name], got[spec.name], "after rows of unequal lengths", None
        )


def compare_flush(setting: ProofSetting, batch: int) -> None:
    """Compare what a sequence that is over still gives with the last outputs of the module's whole call.

    Of a sequence that is shorter than the delay a module may make something else, which is noted.

    Raises:
        ProofError: they differ.
    """
    delay = setting.plan.delay
    if delay is None or delay.ended is None:
        return
    _compare_end(setting, batch, 2 * delay.steps + 3)
    short = max(1, delay.steps // 2)
    try:
        _compare_end(setting, batch, short)
    except InputError:  # forward does not run on a sequence as short as this
        pass
    except ProofError:
        setting.note(f"a sequence of {short} steps, less than the delay, ends otherwise than forward ends it")


def _compare_end(setting: ProofSetting, batch: int, steps: int) -> None:
    """Compare a sequence of so many steps and what comes after it. Raises ProofError, InputError."""
    plan, contract = setting.plan, setting.contract
    assert plan.delay is not None
    assert plan.delay.ended is not None
    sizes = setting.sizes(batch, steps, 5)
    inputs = setting.inputs(sizes, 5)
    convention = dataclasses.replace(plan.convention, delay=0)
    driven = DrivenReference(dataclasses.replace(plan, convention=convention))
    expected = [outputs for outputs, _ in driven.steps(inputs, driven.start(sizes))]
    stream = setting.stream(sizes)
    before = stream.run(chunk_inputs(contract, inputs, 0, steps))
    stream.state[plan.delay.ended] = np.ones_like(stream.state[plan.delay.ended])
    nothing = {
        name: np.zeros((plan.delay.steps, *rows.shape[1:]), rows.dtype) if setting.stepped(name) else rows
        for name, rows in inputs.items()
    }
    after = stream.run(chunk_inputs(contract, nothing, 0, plan.delay.steps))
    for spec in contract.outputs:
        shape = chunk_shape(contract, spec)
        rows = np.concatenate([to_steps(part[spec.name], shape) for part in (before, after)])
        for step, row in enumerate(rows[plan.delay.steps :]):
            where = f"a sequence of {steps} steps and its end: step {step}"
            _compare(setting, spec.name, expected[step][spec.name], row, where, None)


def _rows(
    setting: ProofSetting, spec: OutputSpec, value: Array, begin: int, end: int
) -> Iterator[tuple[int, Array]]:
    """Yield step and row of an output of a chunk; one without time is that of the last step."""
    shape = chunk_shape(setting.contract, spec)
    timeless = axis_index(shape, "time") is None
    rows = value[None] if timeless else to_steps(value, shape)
    return zip(range(end - 1 if timeless else begin, end), rows, strict=True)


def _compare(
    setting: ProofSetting, name: str, expected: Any, got: Array, where: str, ended: Array | None
) -> None:
    wrong = error_beyond(setting.table[f"output.{name}"].drift, expected, got) > 0
    wrong = wrong if ended is None else wrong & ~ended
    if wrong.any():
        index = tuple(int(place) for place in np.argwhere(wrong)[0])
        raise ProofError(
            f"{where}, output.{name}{list(index)}: expected {expected[index]:.9g}, got {got[index]:.9g}"
        )


def _alike(setting: ProofSetting, several: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    """Whether a module gives in several calls what it gives in one, but for rounding."""
    return all(
        (error_beyond(setting.levels[f"output.{name}"].step, value, several[name]) <= 0).all()
        for name, value in one.items()
        if name in several
    )
