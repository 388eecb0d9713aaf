"""THE table: each torch call that is intercepted, and who may take it, in order.

The first handler that does not return NotImplemented has the call. What no handler takes runs as it is.
"""

from __future__ import annotations

from rnnx_export.calls import (
    assignment,
    branches,
    cumulative,
    decompositions,
    lengths,
    mirrors,
    non_causal,
    overlap_add,
    packed,
    padding,
    positions,
    random,
    recurrent,
    shifts,
)
from rnnx_export.calls.kinds import LOOKS_EVERYWHERE, RANDOM, RUNNING
from rnnx_export.calls.types import Handler

_POOLS = tuple(f"{kind}_pool{axes}d" for kind in ("avg", "max") for axes in (1, 2, 3))
_JOINS = ("cat", "concat", "concatenate")
_FAMILIES: tuple[tuple[tuple[str, ...], tuple[Handler, ...]], ...] = (
    (("lstm", "gru", "rnn_tanh", "rnn_relu"), (recurrent.layer,)),
    (("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), (recurrent.cell,)),
    (("conv1d", "conv2d", "conv3d"), (padding.convolution,)),
    (("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (overlap_add.transposed_convolution,)),
    (_POOLS, (padding.pooling,)),
    (("fold",), (overlap_add.overlap_add,)),
    (RUNNING, (cumulative.cumulative,)),
    (_JOINS, (shifts.join, padding.cat)),
    (("pad",), (mirrors.pad, shifts.pad, padding.pad)),
    (("__getitem__",), (shifts.index,)),
    (("__setitem__",), (shifts.assign,)),
    (("roll",), (shifts.roll,)),
    (("diff",), (shifts.diff,)),
    (("arange",), (positions.arange,)),
    (lengths.ROWS, (lengths.rows,)),
    (lengths.LARGEST, (lengths.largest,)),
    (lengths.VALUES, (lengths.value,)),
    (("__bool__",), (branches.decide,)),
    (("__set__",), (assignment.set_data,)),
    (("_pack_padded_sequence",), (packed.pack,)),
    (("_pad_packed_sequence",), (packed.unpack,)),
    (("index_select",), (packed.select,)),
    (("sort",), (packed.sort,)),
    *(((name,), (handler,)) for name, handler in decompositions.HANDLERS.items()),
    (tuple(LOOKS_EVERYWHERE), (non_causal.whole,)),
    (RANDOM, (random.draws,)),
)


def _table() -> dict[str, tuple[Handler, ...]]:
    """Return the handlers by call, of each family in its turn."""
    found: dict[str, tuple[Handler, ...]] = {}
    for names, handlers in _FAMILIES:
        for name in names:
            found[name] = (*found.get(name, ()), *handlers)
    return found


HANDLERS = _table()
