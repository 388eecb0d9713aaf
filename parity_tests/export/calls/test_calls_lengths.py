"""The longest of the rows' lengths is as long as the chunk, in whatever form it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnnx_export.calls import lengths
from rnnx_export.calls.tracer import CallTracer
from rnnx_export.calls.types import Counted
from support.chunks import calls_of

SIZE = 100  # of the chunk, in which no row of these is whole
GIVEN = [3, 7, 5]

# What is computed of the lengths by each call, and what it is of the size.
ROWS: list[tuple[str, Callable[[Tensor], Any], Any]] = [
    ("to", lambda n: n.to(torch.int32).max().item(), SIZE),
    ("type", lambda n: n.type(torch.int16).max().item(), SIZE),
    ("long", lambda n: n.long().max().item(), SIZE),
    ("int", lambda n: n.int().max().item(), SIZE),
    ("cpu", lambda n: n.cpu().max().item(), SIZE),
    ("detach", lambda n: n.detach().max().item(), SIZE),
    ("clone", lambda n: n.clone().max().item(), SIZE),
    ("contiguous", lambda n: n.contiguous().max().item(), SIZE),
    ("view", lambda n: n.view(-1).max().item(), SIZE),
    ("reshape", lambda n: n.reshape(3, 1).reshape(-1).max().item(), SIZE),
    ("flatten", lambda n: n.flatten().max().item(), SIZE),
    ("add", lambda n: torch.add(n, 2).max().item(), SIZE + 2),
    ("__radd__", lambda n: (2 + n).max().item(), SIZE + 2),
    ("sub", lambda n: (n - 1).max().item(), SIZE - 1),
    ("mul", lambda n: (n * 3).max().item(), SIZE * 3),
    ("__rmul__", lambda n: (3 * n).max().item(), SIZE * 3),
    ("floor_divide", lambda n: torch.floor_divide(n, 3).max().item(), SIZE // 3),
    ("__floordiv__", lambda n: ((n - 1) // 2 + 1).max().item(), (SIZE - 1) // 2 + 1),
    ("div", lambda n: torch.div(n, 3, rounding_mode="floor").max().item(), SIZE // 3),
    ("max", lambda n: torch.max(n.max(dim=0)[0]).item(), SIZE),
    ("amax", lambda n: torch.amax(n).item(), SIZE),
    ("item", lambda n: (n.max() + 1).item(), SIZE + 1),
    ("__int__", lambda n: int(n.max()), SIZE),
    ("__index__", lambda n: len(range(n.max())), SIZE),
    # What is no length of the whole chunk is what it is.
    ("item", lambda n: n[0].item(), 3),
    ("item", lambda n: n.min().item(), 3),
    ("div", lambda n: torch.div(n, 2).max().item(), 3.5),
    ("div", lambda n: torch.div(n, 2, rounding_mode="trunc").max().item(), 3),
    ("mul", lambda n: (n * torch.tensor([1, 2, 3])).max().item(), 15),
    ("to", lambda n: n.to(torch.float32).max().item(), 7.0),
    ("max", lambda n: n[:, None].max(1)[0].tolist(), GIVEN),
    ("max", lambda n: torch.max(n, torch.tensor(6)).tolist(), [6, 7, 6]),
]


def test_every_call_of_the_module_has_a_row() -> None:
    spelled = {"__add__": "add", "__sub__": "sub", "__mul__": "mul", "cuda": "cpu"}  # as torch may name them
    assert {call for call, *_ in ROWS} == {spelled.get(call, call) for call in calls_of(lengths)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_longest_row_is_the_chunk(row: tuple[str, Callable[[Tensor], Any], Any]) -> None:
    _, compute, expected = row
    given = torch.tensor(GIVEN)
    with CallTracer(nn.Identity(), lengths=[Counted(given, SIZE)]):
        got = compute(given)
    assert got == expected
    with CallTracer(nn.Identity()):
        own = compute(given)
    assert own == compute(given), "nothing is counted unless it is said to be lengths"


def test_numbers_up_to_the_longest_row_are_as_many_as_the_chunk_has() -> None:
    given = torch.tensor(GIVEN)
    with CallTracer(nn.Identity(), lengths=[Counted(given, SIZE)]):
        assert torch.equal(torch.arange(given.max()), torch.arange(SIZE))
        assert torch.equal(torch.arange(1, given.max() + 1), torch.arange(1, SIZE + 1))
        assert torch.equal(torch.arange(given[0]), torch.arange(3))
