"""A step's memory that its author keeps outside, and that was left out of the call: it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import rnnx

STEP = {"x": "float32[batch, 6]"}
CHUNK = {"x": "float32[batch, time, 6]"}


class Levels(NamedTuple):
    v: Tensor
    i: Tensor


class Neuron(nn.Module):
    """Begins anew unless it is given its levels back."""

    def forward(self, x: Tensor, levels: Levels | None = None) -> tuple[Tensor, Levels]:
        if levels is None:
            levels = Levels(torch.zeros_like(x), torch.zeros_like(x))
        i = 0.8 * levels.i + x
        v = 0.9 * levels.v + i
        return (v > 1).to(x.dtype), Levels(v, i)


class Unused(nn.Module):
    """Takes anything for a parameter that it does not look at."""

    def forward(self, x: Tensor, hint: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.tanh(), x.exp()


class Masked(nn.Module):
    """What is given has another number of axes than anything that comes back."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if mask is not None:
            x = x * mask.reshape(-1, 1)
        return x, x.exp()


@pytest.mark.parametrize(
    ("module", "given", "asked_for"),
    [
        (Neuron(), {"inputs": STEP}, True),
        (Neuron(), {"inputs": STEP, "state": {"levels": None}}, False),
        (Neuron(), {"inputs": CHUNK}, False),
        (Unused(), {"inputs": STEP}, False),
        (Masked(), {"inputs": STEP}, False),
    ],
    ids=["left out", "given", "over a chunk", "unused", "no state"],
)
def test_memory_that_was_left_out_is_asked_for(
    module: nn.Module, given: dict[str, Any], asked_for: bool, tmp_path: Path
) -> None:
    made = rnnx.export(module, tmp_path / "m.onnx", **given)
    said = [note for note in made.notes if "say so: state={'levels': None}" in note]
    assert bool(said) == asked_for
    if asked_for:
        assert "takes 'y.1' of its result for 'levels'" in said[0]
