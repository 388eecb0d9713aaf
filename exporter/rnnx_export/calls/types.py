"""What handlers share: a recorded call, what it takes from states, and the tracer as they see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from rnnx_export.calls.delays import Ahead, Delays
from rnnx_export.calls.packing import Packing

Call = tuple[Any, ...]
# (tracer, function, args, kwargs) -> what the call gives, NotImplemented where another handler may take it.
Handler = Callable[["Tracer", Callable[..., Any], Call, dict[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class RecordedCall:
    """One intercepted call, as seen in one run.

    Attributes:
        key: names the call in every run: module path, function, how often that pair was called before.
        kind: what it is, a key of `kinds.SLOTS`.
        path: the calling module's path.
        start: tensors that the call begins from, empty where it begins from `fill`.
        like: shape and dtype stand for the tensor whose past is carried.
        axes: the axes that could be time, each with the frames of memory it would take.
        fill: the number a padding or running value starts from.
        after: by axis, the frames behind the end that it looks at.
        where: "file:line" of the call outside torch.
    """

    key: str
    kind: str
    path: str
    start: tuple[Tensor, ...]
    like: Tensor
    axes: dict[int, int]
    fill: float
    where: str
    after: Mapping[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Decision:
    """A tensor whose value decided something.

    Attributes:
        key: the place in the code, the same in every run.
        file, line: the user's.
        value: what it was.
    """

    key: str
    file: str
    line: int
    value: bool


@dataclasses.dataclass(frozen=True)
class Lift:
    """A recorded call whose memory becomes states: their names, and the axis that is time.

    `ahead` is how it looks ahead, where its result is to be late for that.
    """

    key: str
    kind: str
    axis: int
    names: tuple[str, ...]
    ahead: Ahead | None = None


@dataclasses.dataclass(frozen=True)
class Counted:
    """A tensor of lengths, and the size that it has in a row as long as the chunk.

    Attributes:
        tensor: one for each row, or the largest of them.
        size: a number, symbolic where a graph is captured.
        is_largest: whether it is the largest, which is that size.
    """

    tensor: Tensor
    size: Any
    is_largest: bool = False


class Tracer(Protocol):
    """What a handler sees of the tracer that runs a module.

    Attributes:
        lifts: by key, which calls take their memory from `states`; none while calls are only recorded.
        states: the states by name, with the shapes that their calls use.
        next_states: where a handler leaves what its call hands on.
        packing: packed sequences that are open.
        firsts: by identity, (result, tensor, axis) of what is the first step of a tensor.
        lates: by identity, (result, tensor) of what is a tensor delayed.
        counted: by identity, lengths of rows, and what was computed from them.
        sides: by key, what decisions on values are settled to be.
        forced: whether they are so outside of a capture too.
        decisions: those that were made; in a capture only `conditions`, the tensors that decide, by key.
        delays: which values are late, where outputs are to be.
    """

    lifts: dict[str, Lift]
    states: dict[str, Tensor]
    next_states: dict[str, Tensor]
    packing: Packing
    cuts: dict[int, tuple[Tensor, Tensor, int, int]]
    firsts: dict[int, tuple[Tensor, Tensor, int]]
    lates: dict[int, tuple[Tensor, Tensor]]
    counted: dict[int, Counted]
    sides: Mapping[str, bool]
    forced: bool
    decisions: list[Decision]
    conditions: dict[str, Tensor]
    delays: Delays | None

    def record(
        self,
        kind: str,
        *,
        start: tuple[Tensor, ...] = ...,
        like: Tensor,
        axes: Mapping[int, int],
        fill: float = ...,
        after: Mapping[int, int] = ...,
    ) -> Lift | None:
        """Record one call; return its lift if it has one."""

    def ended(self, ends: Sequence[Tensor]) -> None:
        """Note what the call that was recorded last ended with, in the order of its start."""

    def uncut(self, x: Tensor) -> tuple[Tensor, int, int]:
        """Return (source, axis, n) if x is source[..., :-n, ...], else (x, -1, 0)."""
