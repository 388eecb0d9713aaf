"""States that a contract holds in another form than the module.

Rows that the module makes of the batch and something else, `x.reshape(batch * bands, time, width)`: in a
contract the batch is an axis of its own, so that a row can be reset or moved. And complex numbers, as pairs.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Fold:
    """How rows are made of a state's axes `axis` and `axis + 1`.

    Attributes:
        axis: the first of the two, and the axis of the rows.
        sizes: of the two, -1 for the batch: (-1, 3) if the batch comes first, (3, -1) if it comes last.
    """

    axis: int
    sizes: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class ComplexFold:
    """Real and imaginary part along a last axis of 2."""


AnyFold = Fold | ComplexFold


def merge(value: Tensor, fold: AnyFold | None) -> Tensor:
    """Return a state as the module has it."""
    if isinstance(fold, ComplexFold):
        return torch.view_as_complex(value)
    return value if fold is None else value.flatten(fold.axis, fold.axis + 1)


def split(value: Tensor, fold: AnyFold | None) -> Tensor:
    """Return a state as the contract has it."""
    if fold is None:
        return value
    if isinstance(fold, ComplexFold):
        return torch.view_as_real(value)
    alone = value.shape[fold.axis] == 1  # a start that is the same for all rows
    return value.unsqueeze(fold.axis) if alone else value.unflatten(fold.axis, fold.sizes)


def sizes_of_rows(before: Tensor, after: Tensor, axis: int, batch: int) -> tuple[int, int] | None:
    """Return `Fold.sizes` as the rows tell that change with the inputs' first row, None if they do not.

    Args:
        before, after: the same tensor in two runs, between which the first row of the inputs differs.
        axis: of the rows.
        batch: rows of the inputs.
    """
    count = before.shape[axis] // batch
    changed = (before != after).movedim(axis, 0).flatten(1).any(1)
    for sizes in ((-1, count), (count, -1)):
        first = torch.zeros(count * batch, dtype=torch.bool).unflatten(0, sizes)
        first.select(sizes.index(-1), 0).fill_(True)
        if torch.equal(changed, first.flatten()):
            return sizes
    return None
