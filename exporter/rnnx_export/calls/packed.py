"""Packed sequences, kept padded: torch's packing has data-dependent sizes, padding with lengths has none.

While a `Watch` is active, `pack_padded_sequence` leaves the padded tensor as it is (flattened, since the
layers check for two axes) and remembers the lengths; the layer runs with lengths; `pad_packed_sequence`
gives the padded tensor back with everything past each row's end set to the padding value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rnnx_export.calls.tracer import Watch


@dataclasses.dataclass(frozen=True)
class Sequence:
    """A packed sequence that was kept padded: x [batch, time, features], lengths int64 [batch]."""

    x: Tensor
    lengths: Tensor
    order: Tensor | None

    def close(self, y: Tensor) -> Tensor:
        """Return a layer's output as a packed sequence's data: [batch * time, features]."""
        return y.flatten(0, 1)


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


def _pack(watch: Watch, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return watch.packing.pack(*args, **kwargs)


def _unpack(watch: Watch, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    data, batch_sizes, batch_first, padding = args[:4]
    return watch.packing.unpack(data, batch_sizes, batch_first, padding)


def _select(watch: Watch, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = func(*args, **kwargs)
    return watch.packing.select(result, args[2]) if len(args) == 3 else result


def _sort(watch: Watch, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    values, order = result = func(*args, **kwargs)
    if values.dim() == 1:
        watch.packing.select(values, order)
    return result


HANDLERS: dict[str, Callable[..., Any]] = {
    "_pack_padded_sequence": _pack,
    "_pad_packed_sequence": _unpack,
    "index_select": _select,
    "sort": _sort,
}
