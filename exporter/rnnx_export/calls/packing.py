"""Packed sequences, which a tracer leaves padded."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class _Entry:
    batch_sizes: Tensor
    lengths: Tensor
    sizes: tuple[Any, Any]
    order: Tensor | None


class Packing:
    """What was packed during one run, found again by the stand-in for its batch sizes."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self.selected: dict[int, tuple[Tensor, Tensor]] = {}

    def is_batch_sizes(self, value: Any) -> bool:
        """Whether `value` is a stand-in that `pack` made."""
        return id(value) in self._entries

    def batch(self, batch_sizes: Tensor) -> Any:
        """Return the number of rows, which is the first batch size."""
        return self._entries[id(batch_sizes)].sizes[0]

    def select(self, result: Tensor, order: Tensor) -> Tensor:
        """Remember which rows a tensor is made of, and return it."""
        self.selected[id(result)] = (result, order)
        return result

    def pack(self, x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        """Return (data, stand-in for the batch sizes)."""
        # Rows that were put in order by hand, for a packing that wants them sorted: the lengths tell how.
        order = next(
            (self.selected[id(value)][1] for value in (x, lengths) if id(value) in self.selected), None
        )
        padded = x if batch_first else x.transpose(0, 1)
        stand_in = torch.ones(1, dtype=torch.int64)
        entry = _Entry(stand_in, lengths.to(torch.int64), (padded.shape[0], padded.shape[1]), order)
        self._entries[id(stand_in)] = entry
        return padded.flatten(0, 1), stand_in

    def open(self, data: Tensor, batch_sizes: Tensor) -> Sequence:
        """Return the padded sequence behind packed data."""
        entry = self._entries[id(batch_sizes)]
        return Sequence(data.unflatten(0, entry.sizes), entry.lengths, entry.order)

    def unpack(
        self, data: Tensor, batch_sizes: Tensor, batch_first: bool, padding: float
    ) -> tuple[Tensor, Tensor]:
        """Return (padded [batch, time, ...] or time first, lengths)."""
        entry = self._entries[id(batch_sizes)]
        y = data.unflatten(0, entry.sizes)
        steps = torch.arange(entry.sizes[1])
        valid = (steps[None, :] < entry.lengths[:, None]).reshape(*entry.sizes, *[1] * (y.dim() - 2))
        y = torch.where(valid, y, torch.full((), padding, dtype=y.dtype))
        return (y if batch_first else y.transpose(0, 1)), entry.lengths


@dataclasses.dataclass(frozen=True)
class Sequence:
    """A packed sequence that was kept padded: x [batch, time, features], lengths int64 [batch]."""

    x: Tensor
    lengths: Tensor
    order: Tensor | None

    def close(self, y: Tensor) -> Tensor:
        """Return a layer's output as a packed sequence's data: [batch * time, features]."""
        return y.flatten(0, 1)
