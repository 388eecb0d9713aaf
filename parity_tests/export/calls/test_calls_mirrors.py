"""What stands around a sequence may be made of its own frames: mirrored, or repeated."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnnx_export.calls import mirrors
from rnnx_export.module.subject import Subject
from rnnx_export.states.discover import discover
from support.chunks import FEW, Calling, Made, Row, Some, agrees_late, calls_of, named


def around(mode: str, some: Some) -> Made:
    """Each step sees the frames before and after it; time is one of two axes, or hops of it are."""
    hop, first = some(1, 3), some(0, 1)
    left, right = (some(0, 5), some(1, 4)) if mode == "replicate" else (some(1, 5), some(0, 4))

    def function(x: Tensor) -> Tensor:
        line = x.movedim(1, 2) if first else x
        padded = F.pad(line, (left, right), mode=mode)
        windows = padded.unfold(2, left + right + hop, hop)
        return windows.movedim(2, 1) if first else windows

    steps = f"{hop}*time" if hop > 1 else "time"
    shape = f"batch, {steps}, 2" if first else f"batch, 2, {steps}"
    return Made(
        Calling(function),
        {"x": f"float64[{shape}]"},
        ["past"],
        ["mirror"],
        shortest=max(left, right) // hop + 1,
    )


def after_another(some: Some) -> Made:
    """A mirror of what comes late itself, and of a sequence that has no batch."""
    frames = some(1, 3)

    def function(x: Tensor) -> Tensor:
        ahead = torch.tanh(F.pad(x, (0, 0, -1, 1)).T)
        return F.pad(ahead, (frames, frames), mode="reflect").unfold(1, 2 * frames + 1, 1).movedim(1, 0)

    return Made(
        Calling(function), {"x": "float64[time, 2]"}, ["past"], ["pad", "mirror"], shortest=frames + 1
    )


ROWS: list[Row] = [
    *(("pad", functools.partial(around, mode)) for mode in ("reflect", "replicate")),
    ("pad", after_another),
]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {call for call, _ in ROWS} == calls_of(mirrors)


@pytest.mark.parametrize("row", ROWS, ids=named)
@FEW
@given(st.data())
def test_steps_and_the_end_give_late_what_the_whole_gives(row: Row, data: st.DataObject) -> None:
    agrees_late(data, row)


def test_without_a_delay_nothing_is_mirrored() -> None:
    module = Calling(lambda x: F.pad(x, (2, 0), mode="reflect")[..., : x.shape[-1]])
    plan = discover(Subject(module, {"x": "float64[batch, 2, time]"}))
    assert not plan.lifts
