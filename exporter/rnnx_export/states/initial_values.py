"""What a module makes of `None`: the start of a state, measured and never taken for zeros.

The module runs once with None and once with a known tensor. From some call on, both runs make the same
calls; the first of those that takes the known tensor takes, in the other run, the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from rnnx.errors import RefusedError

Run = Callable[[Mapping[str, Tensor | None], int], list[Tensor]]


def measure_start(run: Run, shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the start of each state that begins as None.

    Args:
        run: (state values or None by name, seed of the inputs) -> everything the module gives.
        shapes: a tensor of the right shape and dtype for each such state.

    Raises:
        RefusedError: `start-from-input` if the start depends on an input, `start-unknown` if it cannot
            be told.
    """
    nothing: dict[str, Tensor | None] = dict.fromkeys(shapes)
    zeros = {name: torch.zeros_like(value) for name, value in shapes.items()}
    if _same(run, nothing, zeros):
        return zeros
    starts = [_aligned(run, shapes, seed) for seed in (0, 1)]
    for name in shapes:
        if name not in starts[0] or name not in starts[1]:
            raise _refuse("start-unknown", name, "a start that no call of forward shows")
        starts = [{**start, name: _broadcast(start[name], shapes[name])} for start in starts]
        if starts[0][name].shape != shapes[name].shape:
            raise _refuse("start-unknown", name, f"a start of shape {tuple(starts[0][name].shape)}")
        if not torch.equal(starts[0][name], starts[1][name]):
            raise _refuse("start-from-input", name, "a start that forward computes from an input")
    if not _same(run, nothing, starts[0]):
        raise _refuse(
            "start-unknown", next(iter(shapes)), "a start that no tensor put in its place reproduces"
        )
    return starts[0]


def _broadcast(start: Tensor, like: Tensor) -> Tensor:
    """Return a start in the shape that it has from the first step on, as it is where that cannot be."""
    try:
        return start.expand(like.shape).clone()
    except RuntimeError:
        return start


def _same(run: Run, nothing: Mapping[str, Tensor | None], values: Mapping[str, Tensor]) -> bool:
    for seed in (0, 1):
        try:
            got = run({name: value.clone() for name, value in values.items()}, seed)
        except Exception:  # a module may refuse a tensor in this place in any way it likes
            return False
        expected = run(nothing, seed)
        if len(got) != len(expected):
            return False
        for left, right in zip(got, expected, strict=True):
            if left.shape != right.shape or not torch.allclose(
                left, right, rtol=1e-6, atol=1e-7, equal_nan=True
            ):
                return False
    return True


def _aligned(run: Run, shapes: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7 + seed)
    known = {
        name: torch.rand(value.shape, generator=generator).to(value.dtype)
        if value.is_floating_point()
        else value.clone()
        for name, value in shapes.items()
    }
    with _Log() as without:
        run(dict.fromkeys(shapes), seed)
    with _Log() as passed:
        run(known, seed)
    shift = len(without.calls) - len(passed.calls)
    first = len(passed.calls)
    while first > max(0, -shift) and passed.calls[first - 1][0] == without.calls[first - 1 + shift][0]:
        first -= 1
    starts: dict[str, Tensor] = {}
    for index in range(first, len(passed.calls)):
        mine, theirs = passed.calls[index][1], without.calls[index + shift][2]
        for value, start in zip(mine, theirs, strict=False):
            for name, tensor in known.items():
                if value is tensor and isinstance(start, Tensor):
                    starts.setdefault(name, start)
    return starts


class _Log(TorchFunctionMode):
    """Records the name and tensor arguments of every call, themselves and as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[Tensor], list[Tensor]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        copies = [leaf.clone() for leaf in leaves]  # forward may write to them later
        self.calls.append((getattr(func, "__name__", str(func)), leaves, copies))
        return func(*args, **kwargs)


def _refuse(code: str, name: str, found: str) -> RefusedError:
    return RefusedError(
        code,
        expected=f"state {name!r} to start from constants or parameters",
        found=found,
        fix="let the caller pass the start as a state of its own, computed before the first step",
    )
