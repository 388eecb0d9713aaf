"""What of a module's memory becomes a state, and what is only spoken of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rnnx_export.module.subject import Subject
from rnnx_export.states.buffers import remembered
from rnnx_export.states.observations import Exploration


class Keeps(nn.Module):
    """A running sum, beside which something plain is noted."""

    def __init__(self, note: str) -> None:
        super().__init__()
        self.h, self.note, self.plain = torch.zeros(1, 6), note, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.h = self.h + x
        if self.note == "size":
            self.plain = x.shape[0]
        elif self.note == "called":
            self.plain = True
        elif self.note == "count":
            self.plain = (self.plain or 0) + 1
        elif self.note == "first":
            y, self.plain = self.h * (2 if self.plain else 3), True
            return y
        return 2 * self.h


@pytest.mark.parametrize(("note", "spoken_of"), [("size", 0), ("called", 0), ("count", 1), ("first", 1)])
def test_a_plain_value_that_makes_no_difference_is_not_spoken_of(note: str, spoken_of: int) -> None:
    seen = Exploration(Subject(Keeps(note), {"x": "float32[batch, 6]"}))
    assert [state.name for state in remembered(seen, set())] == ["h"]
    assert len([said for said in seen.notes if "'plain', which is no tensor" in said]) == spoken_of
