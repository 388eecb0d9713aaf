"""F.pad with mode "reflect" or "replicate": what stands around a sequence is made of its own frames.

Where outputs come late, the frames that are mirrored at the start have come before they are needed, and
flags say where in the window the sequence begins and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_export.calls.helpers import named, with_past
from rnnx_export.calls.types import Call, Lift, Tracer


def pad(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """F.pad(x, pad, mode): along time from flags, along other axes as it is."""
    x, pad, mode = named(args, kwargs, ("input", "pad", "mode"), (None, None, "constant"))
    if mode not in ("reflect", "replicate") or not isinstance(x, Tensor):
        return NotImplemented
    sides = {x.dim() - 1 - pair: (pad[2 * pair], pad[2 * pair + 1]) for pair in range(len(pad) // 2)}
    mirrors = mode == "reflect"
    after = {axis: max(left, right) if mirrors else right for axis, (left, right) in sides.items()}
    before = {axis: left for axis, (left, right) in sides.items() if left > 0 or right > 0}
    lift = tracer.record("mirror", like=x, axes=before, after=after) if before else None
    if lift is None or tracer.delays is None:
        return NotImplemented
    left, right = sides[lift.axis]
    result = _around(tracer, lift, x, left, right, mirrors=mirrors)
    rest = [
        0 if axis == lift.axis else side
        for axis in reversed(range(x.dim()))
        for side in sides.get(axis, (0, 0))
    ]
    return F.pad(result, rest, mode) if any(rest) else result


def _around(tracer: Tracer, lift: Lift, x: Tensor, left: int, right: int, *, mirrors: bool) -> Tensor:
    """Return a step's frames with those around them: [.., left + frames + right, ..]."""
    ahead, delays = lift.ahead, tracer.delays
    assert ahead is not None
    assert delays is not None
    late = delays.now or 0
    delays.now = late + ahead.steps
    frames = ahead.frames
    more = x.shape[lift.axis] - frames  # a module may add some to a short call, and cut them off again
    joined = x.narrow(lift.axis, 0, frames)
    steps = 0
    if lift.names:
        steps = tracer.states[lift.names[0]].shape[lift.axis] // frames
        joined = with_past(tracer, lift, joined, steps * frames)
    exists = delays.flags(late, steps)  # [batch, steps + 1], the oldest first
    first = frames * (exists.cumsum(-1) == 0).sum(-1, keepdim=True)
    last = frames * (steps + 1 - (exists.flip(-1).cumsum(-1) == 0).sum(-1, keepdim=True)) - 1
    index = torch.arange(left + frames + right) + (steps - ahead.steps) * frames - left
    if mirrors:
        index = first + (index - first).abs()
        index = last - (last - index).abs()
    else:
        index = torch.minimum(torch.maximum(index, first), last)
    index = index.clamp(0, (steps + 1) * frames - 1)
    shape = [1] * x.dim()
    shape[lift.axis] = index.shape[-1]
    if ahead.batch is None:
        index = index.reshape(-1, index.shape[-1])[0]
    else:
        shape[ahead.batch] = -1
        if ahead.batch > lift.axis:
            index = index.transpose(0, 1)
    wanted = [index.shape[-1] if axis == lift.axis else size for axis, size in enumerate(joined.shape)]
    if ahead.batch is not None and ahead.batch > lift.axis:
        wanted[lift.axis] = index.shape[0]
    result = joined.gather(lift.axis, index.reshape(shape).expand(wanted))
    if more <= 0:
        return result
    return torch.cat([result, torch.zeros_like(x.narrow(lift.axis, 0, more))], lift.axis)
