"""Packed sequences, kept padded: torch's packing has data-dependent sizes, padding with lengths has none.

While a `CallTracer` is active, `pack_padded_sequence` leaves the padded tensor as it is (flattened, since the
layers check for two axes) and remembers the lengths; the layer runs with lengths; `pad_packed_sequence`
gives the padded tensor back with everything past each row's end set to the padding value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rnnx_export.calls.types import Tracer


def pack(tracer: Tracer, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch._C._VariableFunctions._pack_padded_sequence. Raises RuntimeError for unsorted lengths."""
    lengths = args[1]
    if not torch.compiler.is_exporting() and bool((lengths[:-1] < lengths[1:]).any()):
        raise RuntimeError(
            "lengths that are not sorted are packed with enforce_sorted=False, or sorted before"
        )
    return tracer.packing.pack(*args, **kwargs)


def unpack(tracer: Tracer, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch._C._VariableFunctions._pad_packed_sequence."""
    data, batch_sizes, batch_first, padding = args[:4]
    return tracer.packing.unpack(data, batch_sizes, batch_first, padding)


def select(tracer: Tracer, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.index_select(axis, order): a sequence in the order of its lengths, or in its own again."""
    result = func(*args, **kwargs)
    return tracer.packing.select(result, args[2]) if len(args) == 3 else result


def sort(tracer: Tracer, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.sort of lengths."""
    values, order = result = func(*args, **kwargs)
    if values.dim() == 1:
        tracer.packing.select(values, order)
    return result
