"""Sound through a model: its input and its output as files of sound, held to the rate of its steps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from rnnx.errors import InputError, UsageError
from rnnx.formats.sound_file import Sound
from rnnx.model.contract import Axis, Contract, InputSpec, OutputSpec, axis_index, describe
from rnnx.model.shapes import Array, chunk_shape
from rnnx.runtime.input_buffers import required


def rate_of(contract: Contract, spec: InputSpec | OutputSpec) -> Fraction | None:
    """Return how many entries of `spec` one second has, None if the contract does not say."""
    per_step = _factor(contract, spec)
    return None if contract.steps_per_second is None else per_step * Fraction(contract.steps_per_second)


def to_input(contract: Contract, sound: Sound) -> dict[str, Array]:
    """Return sound as the only input of a model, in the shape of a chunk of batch 1.

    Args:
        contract: of the model. Beside batch and time its input has one axis, of the channels, at most.
        sound: what a file holds.

    Returns:
        float32, or the floats that the model takes, by the name of the input.

    Raises:
        UsageError: `not-audio` for a model that takes no sound.
        InputError: `wrong-rate` or `wrong-channels`.
    """
    needed = [spec for spec in contract.inputs if spec.name in required(contract.inputs)]
    if len(needed) != 1:
        raise _not_audio(contract, f"inputs {', '.join(spec.name for spec in needed) or '(none)'}")
    (spec,) = needed
    place = _channel_axis(contract, spec)
    channels = 1 if place is None else _size(chunk_shape(contract, spec)[place])
    if sound.samples.shape[1] != channels:
        raise InputError(
            "wrong-channels",
            expected=f"sound of {channels} channel{'s' if channels > 1 else ''}",
            found=f"{sound.samples.shape[1]}",
            fix=f"mix it: 'ffmpeg -i SOUND -ac {channels} sound.wav'",
        )
    rate = rate_of(contract, spec)
    if rate is not None and rate != sound.rate:
        raise InputError(
            "wrong-rate",
            expected=f"{_shown(rate)} samples a second, {_factor(contract, spec)} a step",
            found=f"{sound.rate}",
            fix=f"convert it: 'ffmpeg -i SOUND -ar {_shown(rate)} sound.wav'",
        )
    return {spec.name: _placed(contract, spec, sound.samples).astype(spec.dtype)}


def to_sound(contract: Contract, outputs: dict[str, Array], like: Sound | None) -> Sound:
    """Return the output of a model, in the shape of a chunk of batch 1, as sound.

    Args:
        contract: of the model, which has one output.
        outputs: by name.
        like: the sound that went in, whose kind of samples it gets, and whose rate if the contract has none;
            None for 16 bits.

    Raises:
        UsageError: `not-audio` for an output that is no sound, or whose rate nobody knows.
    """
    if len(contract.outputs) != 1:
        raise _not_audio(contract, f"outputs {', '.join(spec.name for spec in contract.outputs)}")
    (spec,) = contract.outputs
    place, shape = _channel_axis(contract, spec), chunk_shape(contract, spec)
    time = axis_index(shape, "time")
    value = outputs[spec.name]
    batch = axis_index(shape, "batch")
    if time is None or (batch is not None and value.shape[batch] != 1):
        raise _not_audio(contract, f"output {spec.name!r} as {describe(spec.dtype, list(value.shape))}")
    moved = np.moveaxis(value, [time] if place is None else [time, place], [0] if place is None else [0, 1])
    rate = rate_of(contract, spec)
    if rate is None and like is not None:
        taken = next(entry for entry in contract.inputs if entry.name in required(contract.inputs))
        rate = Fraction(like.rate) * _factor(contract, spec) / _factor(contract, taken)
    if rate is None or rate.denominator != 1:
        raise _not_audio(contract, "no rate" if rate is None else f"a rate of {_shown(rate)} a second")
    samples = moved.reshape(moved.shape[0], -1).astype(np.float32)
    return Sound(samples, int(rate)) if like is None else Sound(samples, int(rate), like.kind)


def _placed(contract: Contract, spec: InputSpec, samples: Array) -> Array:
    """Return samples, [frame, channel], with the axes of a chunk."""
    shape, place = chunk_shape(contract, spec), _channel_axis(contract, spec)
    time = axis_index(shape, "time")
    assert time is not None
    ordered = samples if place is None or time < place else samples.T
    sizes = [len(samples) if index == time else 1 for index in range(len(shape))]
    if place is not None:
        sizes[place] = samples.shape[1]
    return ordered.reshape(sizes)


def _channel_axis(contract: Contract, spec: InputSpec | OutputSpec) -> int | None:
    """Return which axis has the channels; None where there is none but batch and time."""
    shape = chunk_shape(contract, spec)
    others = [
        index for index, dimension in enumerate(shape) if Axis.parse(dimension).name not in ("batch", "time")
    ]
    named = any(Axis.parse(shape[index]).name for index in others)
    if named or len(others) > 1 or axis_index(shape, "time") is None or not spec.dtype.startswith("float"):
        raise _not_audio(contract, f"{spec.name!r} as {describe(spec.dtype, shape)}")
    return others[0] if others else None


def _factor(contract: Contract, spec: InputSpec | OutputSpec) -> int:
    shape = chunk_shape(contract, spec)
    time = axis_index(shape, "time")
    return 1 if time is None else Axis.parse(shape[time]).factor


def _size(dimension: int | str) -> int:
    return Axis.parse(dimension).factor


def _shown(rate: Fraction) -> str:
    return str(rate.numerator) if rate.denominator == 1 else f"{float(rate):g}"


def _not_audio(contract: Contract, found: str) -> UsageError:
    return UsageError(
        "not-audio",
        expected="a model with one input and output of samples along time, at a rate that is known",
        found=found,
        fix="give arrays as .npy or .npz; 'rnnx export --steps-per-second' says the rate",
    )
