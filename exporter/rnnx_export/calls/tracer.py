"""Places inside forward where memory can hide, and how their memory is carried outside.

A `CallTracer` runs a module with every such call intercepted. Without lifts it only records what it saw: a
recurrent layer that starts from constants, a padding, a running sum. Given lifts it feeds the recorded
places with states from outside and keeps what they would hand to the next call.

The same calls are seen when the module runs in PyTorch and when `torch.export` captures it, so one
mechanism serves finding, capturing and checking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rnnx_export.calls.delays import Delays
from rnnx_export.calls.packing import Packing
from rnnx_export.calls.table import HANDLERS
from rnnx_export.calls.types import Counted, Decision, Lift, RecordedCall
from rnnx_export.diagnostics import caller
from rnnx_export.module.parts import parts

_NOTHING: Mapping[int, int] = {}


class CallTracer(TorchFunctionMode):
    """Intercepts the calls of `calls/table.py` while a module runs.

    Args:
        module: the module that will run; hooks on it tell which part of it is calling.
        lifts: which calls take their memory from `states`.
        states: the states by name, with the shapes their sites use.
        sides: by key, what decisions on a tensor's value are settled to be, where a graph is captured.
        forced: whether they are to be so in any case.
        lengths: tensors that hold lengths of rows.
    """

    def __init__(
        self,
        module: nn.Module,
        lifts: Mapping[str, Lift] | None = None,
        states: Mapping[str, Tensor] | None = None,
        sides: Mapping[str, bool] | None = None,
        *,
        forced: bool = False,
        lengths: Sequence[Counted] = (),
    ) -> None:
        super().__init__()
        self.lifts = dict(lifts or {})
        self.states = dict(states or {})
        self.sides: Mapping[str, bool] = dict(sides or {})
        self.forced = forced
        self.counted = {id(each.tensor): each for each in lengths}
        self.decisions: list[Decision] = []
        self.conditions: dict[str, Tensor] = {}
        self.delays: Delays | None = None
        self.next_states: dict[str, Tensor] = {}
        self.recordings: list[RecordedCall] = []
        self.packing = Packing()
        self.cuts: dict[int, tuple[Tensor, Tensor, int, int]] = {}
        self.firsts: dict[int, tuple[Tensor, Tensor, int]] = {}
        self.lates: dict[int, tuple[Tensor, Tensor]] = {}
        self.flows: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
        self._module = module
        self._paths = [""]
        self._counts: dict[str, int] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> CallTracer:
        for path, part in parts(self._module).items():
            self._handles.append(part.register_forward_pre_hook(self._entering(path)))
            self._handles.append(part.register_forward_hook(self._leaving, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Hand the call to the first handler that takes it, or through."""
        kwargs = kwargs or {}
        if self.delays is None:
            return self._handled(func, args, kwargs)
        args, kwargs = self.delays.together(func, args, kwargs)
        return self.delays.mark(func, args, self._handled(func, args, kwargs))

    def _handled(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        for handler in HANDLERS.get(getattr(func, "__name__", ""), ()):
            result = handler(self, func, args, kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)

    def record(
        self,
        kind: str,
        *,
        start: tuple[Tensor, ...] = (),
        like: Tensor,
        axes: Mapping[int, int],
        fill: float = 0.0,
        after: Mapping[int, int] = _NOTHING,
    ) -> Lift | None:
        """Record one call; return its lift if it has one."""
        if any(torch._C._functorch.is_batchedtensor(value) for value in start):
            return None  # rows of a `torch.vmap`, which nothing outside of it may look at
        path = self._paths[-1]
        pair = f"{path}:{kind}"
        count = self._counts[pair] = self._counts.get(pair, 0) + 1
        key = f"{pair}:{count}"
        if not self.lifts:
            start = tuple(value.clone() for value in start)  # forward may write to them later
        recorded = RecordedCall(key, kind, path, start, like, dict(axes), fill, caller(), after)
        self.recordings.append(recorded)
        lift = self.lifts.get(key)
        if lift is not None and self.delays is not None and lift.ahead is None:
            self.delays.at |= dict.fromkeys(lift.names, self.delays.now or 0)
        return lift

    def ended(self, ends: Sequence[Tensor]) -> None:
        """Note what the call that was recorded last ended with, in the order of its start."""
        if not self.lifts:
            self.flows.append((self.recordings[-1].start, tuple(value.clone() for value in ends)))

    def uncut(self, x: Tensor) -> tuple[Tensor, int, int]:
        """Return (source, axis, n) if x is source[..., :-n, ...], else (x, -1, 0)."""
        return self.cuts[id(x)][1:] if id(x) in self.cuts else (x, -1, 0)

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(part: nn.Module, args: Any) -> None:
            self._paths.append(path)

        return hook

    def _leaving(self, part: nn.Module, args: Any, result: Any) -> None:
        self._paths.pop()
