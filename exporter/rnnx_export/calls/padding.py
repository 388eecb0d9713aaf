"""The calls that can hide memory: what each one carries from one step to the next.

A handler takes (watch, function, args, kwargs). It records the call and, where the call is lifted, computes
it with the past taken from a state instead of zeros, and leaves the state's next value in the watch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_export.capture import recurrent_ops  # noqa: F401  (defines the operators)

if TYPE_CHECKING:
    from rnnx_export.calls.tracer import Lift, Watch

_TORCH = os.path.dirname(torch.__file__)
_HERE = os.path.dirname(os.path.dirname(__file__))  # of the package
Call = tuple[Any, ...]


def caller() -> str:
    """Return "file:line" of the innermost frame that is neither torch's nor ours."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_TORCH, _HERE)):
            return f"{os.path.basename(name)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _layer(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """nn.RNN, LSTM, GRU: (x, hx, weights, bias, layers, dropout, training, bidirectional, batch_first)."""
    name = func.__name__
    if isinstance(args[1], Tensor) and args[1].dim() == 1:
        data, batch_sizes, hx, weights, bias, layers, _, _, bidirectional = args
        sequence = watch.packing.open(data, batch_sizes)
        x, lengths, batch_first, order = sequence.x, sequence.lengths, True, sequence.order
    else:
        x, hx, weights, bias, layers, _, _, bidirectional, batch_first = args
        sequence, lengths, order = None, None, None
    start = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    axis = 1 if batch_first else 0
    lift = watch.visit("bidirectional" if bidirectional else name, start=start, like=x, axes={axis: 0})
    if lift is not None:
        start = tuple(watch.states[state] for state in lift.names)
        if order is not None:
            start = tuple(state.index_select(1, order) for state in start)
    y, *ends = _call_layer(name, x, start, list(weights), (bias, layers, bidirectional, batch_first, lengths))
    if lift is not None:
        back = ends if order is None else [end.index_select(1, torch.argsort(order)) for end in ends]
        watch.next_states.update(zip(lift.names, back, strict=True))
    return (y if sequence is None else sequence.close(y), *ends)


def _call_layer(name: str, x: Tensor, start: tuple[Tensor, ...], weights: list[Tensor], rest: Call) -> Any:
    if name == "lstm":
        return torch.ops.rnnx.lstm(x, *start, weights, *rest)
    if name == "gru":
        return torch.ops.rnnx.gru(x, *start, weights, *rest)
    return torch.ops.rnnx.rnn(x, *start, weights, *rest, name.removeprefix("rnn_"))


def _cell(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """nn.RNNCell, nn.LSTMCell, nn.GRUCell: (x, hx, weights...)."""
    x, hx, *weights = args
    start = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    lift = watch.visit(func.__name__, start=start, like=x, axes={})
    if lift is None:
        return func(*args, **kwargs)
    start = tuple(watch.states[state] for state in lift.names)
    result = func(x, start if isinstance(hx, tuple | list) else start[0], *weights, **kwargs)
    ends = result if isinstance(result, tuple) else (result,)
    watch.next_states.update(zip(lift.names, ends, strict=True))
    return result


def _pad(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """F.pad(x, pad, mode, value): frames added in front of time are the stream's last frames."""
    x, pad, mode, value = named(
        args, kwargs, ("input", "pad", "mode", "value"), (None, None, "constant", None)
    )
    if mode != "constant" or not isinstance(x, Tensor):
        return func(*args, **kwargs)
    fill = float(value or 0.0)
    axes = {x.dim() - 1 - pair: (pad[2 * pair], pad[2 * pair + 1]) for pair in range(len(pad) // 2)}
    source, cut_axis, cut = watch.uncut(x)
    before = {axis: left for axis, (left, _) in axes.items() if left > 0}
    lift = watch.visit("pad", like=source, axes=before, fill=fill) if before else None
    if lift is None:
        return func(*args, **kwargs)
    left, right = axes[lift.axis]
    rest = [
        0 if axis == lift.axis else side
        for axis in reversed(range(x.dim()))
        for side in axes.get(axis, (0, 0))
    ]
    if cut_axis == lift.axis:
        x, right = source, right - cut
    joined = with_past(watch, lift, x, left)
    if any(rest):
        joined = F.pad(joined, rest, "constant", fill)
    if right < 0:
        return joined[slices(joined, lift.axis, None, right)]
    return joined if right == 0 else F.pad(joined, _one_sided(joined, lift.axis, right), "constant", fill)


def _cat(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """torch.cat([constant, x], time): the constant stands where the stream's last frames belong."""
    tensors, dim = named(args, kwargs, ("tensors", "dim"), (None, kwargs.get("axis", 0)))
    parts = list(tensors)
    if not isinstance(dim, int) or len(parts) != 2 or any(part.dim() < 1 for part in parts):
        return func(*args, **kwargs)
    first, x = parts
    axis = dim % x.dim()
    source, cut_axis, cut = watch.uncut(x)
    if cut_axis != axis:
        source, cut = x, 0
    frames = first.shape[axis] if first.dim() == x.dim() else 0
    lift = watch.visit("cat", start=(first,), like=source, axes={axis: frames})
    if lift is None:
        return func(*args, **kwargs)
    joined = with_past(watch, lift, source, frames)
    return joined if cut == 0 else joined[slices(joined, axis, None, -cut)]


def _convolution(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """F.conv*(x, weight, bias, stride, padding, dilation, groups) padded with zeros on both sides."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    x, weight, bias, stride, padding, dilation, groups = named(
        args, kwargs, names, (None, None, None, 1, 0, 1, 1)
    )
    spatial = weight.dim() - 2
    if isinstance(padding, str):
        return func(*args, **kwargs)
    sides = each(padding, spatial)
    first = x.dim() - spatial
    amount = {first + index: side for index, side in enumerate(sides) if side > 0}
    lift = watch.visit("conv", like=x, axes=amount) if amount else None
    if lift is None:
        return func(*args, **kwargs)
    frames = amount[lift.axis]
    sides[lift.axis - first] = 0
    joined = with_past(watch, lift, x, frames)
    # The frames after the end stay: the model cuts them off, or looks ahead, which the proof finds.
    joined = F.pad(joined, _one_sided(joined, lift.axis, frames))
    return func(joined, weight, bias, stride, sides, dilation, groups)


def _cumulative(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """cumsum, cumprod, cummax, cummin, logcumsumexp along time: the last value runs on."""
    name = func.__name__
    x, dim = named(args, kwargs, ("input", "dim"), (None, kwargs.get("axis", 0)))
    axis = dim % x.dim() if x.dim() else 0
    fill = {"cumprod": 1.0, "cummax": -float("inf"), "cummin": float("inf"), "logcumsumexp": -float("inf")}
    lift = watch.visit(name, like=x, axes={axis: 0}, fill=fill.get(name, 0.0)) if x.dim() else None
    single = lift is not None and isinstance(x.shape[axis], int) and x.shape[axis] == 1
    if single and name in ("cummax", "cummin"):
        result: Any = torch.return_types.cummax((x, torch.zeros_like(x, dtype=torch.int64)))
    elif name in _SPELLED and x.dim() and isinstance(x.shape[axis], int) and x.shape[axis] <= _SPELLED_OUT:
        result = _SPELLED[name](x, axis)
    else:
        result = x if single else func(*args, **kwargs)
    if lift is None:
        return result
    past = watch.states[lift.names[0]].unsqueeze(axis)
    spelled_out = name != "cumsum" and isinstance(x.shape[axis], int) and x.shape[axis] <= _SPELLED_OUT
    if spelled_out:
        joined = _run_on(_RUNNING[name], x, past, axis)
    else:
        joined = _RUNNING[name](result if isinstance(result, Tensor) else result[0], past)
    watch.next_states[lift.names[0]] = joined.select(axis, -1)
    return joined if isinstance(result, Tensor) else type(result)((joined, result[1]))


_SPELLED_OUT = 64  # entries of an axis, at most


def _run_on(join: Callable[[Tensor, Tensor], Tensor], x: Tensor, past: Tensor, axis: int) -> Tensor:
    """Return what runs on from the past, entry by entry: each step says the same of the one before."""
    running: list[Tensor] = []
    for part in x.split(1, axis):
        running.append(join(part, running[-1] if running else past))
    return torch.cat(running, axis)


def _products(x: Tensor, axis: int) -> Tensor:
    running: list[Tensor] = []
    for part in x.split(1, axis):
        running.append(running[-1] * part if running else part)
    return torch.cat(running, axis)


def _extremes(wins: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, int], Any]:
    def rule(x: Tensor, axis: int) -> Any:
        first, *rest = x.split(1, axis)
        values, places = [first], [torch.zeros_like(first, dtype=torch.int64)]
        for place, part in enumerate(rest, 1):
            won = wins(part, values[-1])
            values.append(torch.where(won, part, values[-1]))
            places.append(torch.where(won, place, places[-1]))
        return torch.return_types.cummax((torch.cat(values, axis), torch.cat(places, axis)))

    return rule


# What ONNX has no operator for, as what it is: (x, axis) -> the same.
_SPELLED: dict[str, Callable[[Tensor, int], Any]] = {
    "cumprod": _products,
    "cummax": _extremes(torch.ge),
    "cummin": _extremes(torch.le),
}
_RUNNING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cumsum": torch.add,
    "cumprod": torch.mul,
    "cummax": torch.maximum,
    "cummin": torch.minimum,
    "logcumsumexp": lambda x, past: _logaddexp(x, past),
}


def _logaddexp(left: Tensor, right: Tensor) -> Tensor:
    """Return log(exp(left) + exp(right)), which does not overflow where ONNX would spell it out."""
    return torch.maximum(left, right) + torch.log1p(torch.exp(-torch.abs(left - right)))


def _whole(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """A reduction or attention: over time it needs all steps at once."""
    name = func.__name__
    x = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("input")
    if not isinstance(x, Tensor):
        return func(*args, **kwargs)
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if name == "scaled_dot_product_attention" or (name.endswith("_pool1d") and name.startswith("adaptive")):
        dims: Any = (-2,) if name.startswith("scaled") else (-1,)
    elif isinstance(dim, int) and not isinstance(dim, bool):
        dims = (dim,)
    else:
        dims = dim if isinstance(dim, tuple | list) else range(x.dim())
    if all(isinstance(entry, int) for entry in dims):
        watch.visit(name, like=x, axes={entry % x.dim(): 0 for entry in dims} if x.dim() else {})
    if name == "scaled_dot_product_attention" and x.dim() == 3:
        # torch's converter knows attention with heads only.
        heads = [value.unsqueeze(1) for value in args[:3]]
        mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
        if len(args) <= 3 and (mask is None or mask.dim() == 2):
            return func(*heads, **kwargs).squeeze(1)
    return func(*args, **kwargs)


def draws(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """A call that draws random numbers: recorded, to say where."""
    watch.visit("random", like=torch.empty(0), axes={})
    return func(*args, **kwargs)


RANDOM = (
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli",
    "multinomial", "poisson", "normal_", "uniform_", "bernoulli_", "exponential_", "random_", "dropout",
    "alpha_dropout", "feature_dropout", "gumbel_softmax", "rrelu",
)  # fmt: skip


def _index(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """x[..., :-n]: remember what was cut off, since a shift by padding needs it as its next past."""
    x, index = args
    if watch.packing.is_batch_sizes(x):
        return watch.packing.batch(x)
    result = func(x, index)
    parts = index if isinstance(index, tuple) else (index,)
    cuts = [
        (axis, -part.stop)
        for axis, part in enumerate(parts)
        if isinstance(part, slice) and part.start is None and part.step is None
        and isinstance(part.stop, int) and part.stop < 0
    ]  # fmt: skip
    whole = all(isinstance(part, slice) for part in parts)
    if not whole or sum(part != slice(None) for part in parts) != 1:
        return result
    if cuts:
        watch.cuts[id(result)] = (result, x, *cuts[0])
        return result
    axis = next(axis for axis, part in enumerate(parts) if part != slice(None))
    part = parts[axis]
    return _first(watch, x, axis, result) if part.start in (None, 0) and part.step is None else result


def _first(watch: Watch, x: Tensor, axis: int, result: Tensor) -> Tensor:
    """x[:n] of a table with n steps: the stream goes on in the table where it stopped."""
    lift = watch.visit("first", start=(x,), like=result, axes={axis: 0})
    if lift is None:
        return result
    count = result.shape[axis]
    return x.index_select(axis, torch.arange(count) + advance(watch, lift, count))


def _arange(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """torch.arange over the steps of a call: the stream goes on counting."""
    result = func(*args, **kwargs)
    lift = watch.visit("arange", like=result, axes={0: 0})
    if lift is None:
        return result
    stride = kwargs.get("step", args[2] if len(args) > 2 else 1)
    return result + advance(watch, lift, result.shape[0] * stride)


def advance(watch: Watch, lift: Lift, count: Any) -> Tensor:
    """Return the position, [], and leave the next one."""
    position = watch.states.get(lift.names[-1])
    if position is None:  # a call that starts where the stream does
        return torch.zeros((), dtype=torch.int64)
    watch.next_states[lift.names[-1]] = position + count
    return position


def with_past(watch: Watch, lift: Lift, x: Tensor, frames: int) -> Tensor:
    """Return [past, x] along time and leave its last `frames` frames as the next past."""
    joined = torch.cat([watch.states[lift.names[0]], x], dim=lift.axis)
    watch.next_states[lift.names[0]] = joined[slices(joined, lift.axis, -frames, None)]
    return joined


def delayed(watch: Watch, lift: Lift, x: Tensor) -> Tensor:
    """Return a chunk that is late by as many frames as its state holds."""
    frames = watch.states[lift.names[0]].shape[lift.axis]
    return with_past(watch, lift, x, frames)[slices(x, lift.axis, None, -frames)]


def _set(watch: Watch, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """`tensor.data = value`: capture does not see it, but a copy into the tensor."""
    tensor, value = args
    alike = func == Tensor.data.__set__ and (tensor.shape, tensor.dtype) == (value.shape, value.dtype)  # type: ignore[attr-defined]
    if not alike:
        return func(*args, **kwargs)
    with torch.no_grad():
        tensor.copy_(value)
    return None


def slices(x: Tensor, axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    """Return an index of `start:stop` along one axis."""
    return tuple(slice(start, stop) if index == axis else slice(None) for index in range(x.dim()))


def _one_sided(x: Tensor, axis: int, after: int) -> list[int]:
    """Return F.pad's list that adds `after` entries at the end of `axis`."""
    return [0, 0] * (x.dim() - 1 - axis) + [0, after]


def each(value: Any, count: int) -> list[int]:
    """Return one number for each axis, of which a call may give but one."""
    return [value] * count if isinstance(value, int) else list(value) * (count // len(value))


def named(args: Call, kwargs: dict[str, Any], names: tuple[str, ...], defaults: Call) -> Call:
    """Return arguments in the order of `names`, however they were passed."""
    given = dict(zip(names, args, strict=False)) | kwargs
    return tuple(given.get(name, default) for name, default in zip(names, defaults, strict=True))


RUNNING = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
HANDLERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _layer),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(RUNNING, _cumulative),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "pad": _pad,
    "arange": _arange,
    "__getitem__": _index,
    "__set__": _set,
}

LOOKS_EVERYWHERE: dict[str, str] = {
    "bidirectional": "a bidirectional layer",
    "mean": "a mean over time",
    "sum": "a sum over time",
    "amax": "a maximum over time",
    "max": "a maximum over time",
    "min": "a minimum over time",
    "std": "a deviation over time",
    "var": "a variance over time",
    "softmax": "a softmax over time",
    "flip": "a reversal of time",
    "adaptive_avg_pool1d": "a mean over time",
    "adaptive_max_pool1d": "a maximum over time",
    "scaled_dot_product_attention": "attention over all steps of a call",
}
HANDLERS |= dict.fromkeys(RANDOM, draws)
HANDLERS |= dict.fromkeys(set(LOOKS_EVERYWHERE) - {"bidirectional"}, _whole)

RECURRENT: dict[str, tuple[str, ...]] = {
    "lstm": ("h", "c"),
    "lstm_cell": ("h", "c"),
    **dict.fromkeys(("gru", "rnn_tanh", "rnn_relu", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), ("h",)),
}
# Which step it is. Within a call that may also be meant (a mask by length), so these are the last resort.
POSITIONS = ("arange", "first")
# Cuts and fills along time, which may also be meant within a call: see `shifts`.
SHIFTS = ("later", "earlier", "roll", "front", "repeat")
PASTS = ("pad", "cat", "conv", "conv_transpose", "fold", "earlier", "roll", "repeat")
SLOTS: dict[str, tuple[str, ...]] = {
    **RECURRENT,
    **dict.fromkeys((*POSITIONS, "front"), ("position",)),
    **dict.fromkeys(PASTS, ("past",)),
    "later": (),
    "repeat": ("past", "position"),
    "cumsum": ("sum",),
    "cumprod": ("product",),
    "cummax": ("max",),
    "cummin": ("min",),
    "logcumsumexp": ("logsumexp",),
}
