"""Values that are late: what a look-ahead costs, counted in steps, call by call.

A call that looks some steps ahead gives its result that many steps late instead. Whatever meets it must be
as late, so it waits in a line of its own. Each value so belongs to a step of the stream that began some
steps ago; whether that step exists, before the stream's first or after its last, is known by a line of
flags that all of them share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# What gives new values of a tensor's shape, none of its own.
_MADE_LIKE = ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full",
              "new_empty", "new_tensor")  # fmt: skip
_NO_ASSIGNMENT = ("__int__", "__index__", "__invert__", "__iter__")


@dataclasses.dataclass(frozen=True)
class Ahead:
    """How a call looks ahead: by `steps`, of which `spare` frames at the end of its window are too many.

    Attributes:
        steps: by how many steps its result is late.
        spare: frames beyond those it looks at; the steps of a stream may have several.
        frames: how many frames a step has there.
        batch: the axis of its tensor that is the batch, None if there is none.
    """

    steps: int
    spare: int
    frames: int
    batch: int | None


@dataclasses.dataclass(frozen=True)
class Delay:
    """An export whose outputs come late.

    Attributes:
        steps: by how many steps.
        live: the state with flags of the last steps, [batch, memory]: whether each was one of the sequence.
        memory: of how many steps there are flags.
        ended: the state that says that the sequence is over, [batch], None where nothing can be said then.
        lines: the states in which values wait, in the order of the calls.
    """

    steps: int
    live: str
    ended: str | None
    lines: tuple[str, ...]
    memory: int = 1


class Delays:
    """Which values of one step are late, and by how many steps.

    Args:
        delay: the names of the states it takes; lines that it does not name begin as zeros.
        states: by name.
        next_states: where the next values of lines and flags go.
        batch: shape of the flags of one step: [batch] or [].

    Attributes:
        now: how late the call is that is running, None if it takes nothing that belongs to a step.
        at: by name of a state, how late its call was.
        waiting: steps and value of each line, in order.
        latest: how late the latest output is.
        oldest: how late the oldest step is whose flag was read.
    """

    def __init__(
        self,
        delay: Delay,
        states: Mapping[str, Tensor],
        next_states: dict[str, Tensor],
        batch: Sequence[int | torch.SymInt],
    ) -> None:
        self.now: int | None = None
        self.at: dict[str, int] = {}
        self.waiting: list[tuple[int, Tensor]] = []
        self.latest = 0
        self.oldest = 1
        self._late: dict[int, tuple[Tensor, int]] = {}
        self._lines: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._delay, self._states, self._next = delay, states, next_states
        ended = states.get(delay.ended or "")
        first = torch.ones(list(batch)) if ended is None else 1 - ended
        past = states.get(delay.live)
        if past is None:
            past = torch.zeros([*batch, delay.memory])
        self._live = torch.cat([first.unsqueeze(-1), past], -1)
        next_states[delay.live] = self._live[..., :-1]
        if ended is not None and delay.ended is not None:
            next_states[delay.ended] = ended.clone()

    def begin(self, value: Tensor) -> None:
        """Note an input: it is not late."""
        self._late[id(value)] = (value, 0)

    def late(self, value: Any) -> int | None:
        """Return how late a value is, None if it belongs to no step."""
        return self._late[id(value)][1] if id(value) in self._late else None

    def exists(self, late: int, axis: int | None, rank: int) -> Tensor:
        """Return whether the step that is so late is one of the sequence: bool, its batch along `axis`."""
        live = self.flags(late, 0)[..., 0] > 0
        if axis is None:
            return live.any()
        return live.reshape([-1 if place == axis else 1 for place in range(rank)])

    def flags(self, late: int, steps: int) -> Tensor:
        """Return flags of a step that is so late and of some before it: [batch, steps + 1].

        The oldest comes first.
        """
        self.oldest = max(self.oldest, late + steps)
        last = self._live.shape[-1] - 1
        chosen = [self._live[..., min(late + back, last)] for back in reversed(range(steps + 1))]
        return (torch.stack(chosen, -1) > 0.5).long()

    def together(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the arguments of a call, all as late as the latest of them."""
        found = [late for leaf in pytree.tree_leaves((args, kwargs)) if (late := self.late(leaf)) is not None]
        self.now = None if func.__name__ in _MADE_LIKE else max(found, default=None)
        if self.now is None or min(found) == self.now:
            return args, kwargs
        changed = args[0] if args and _assigns(func) else None
        if changed is not None and self.late(changed) is not None:
            changed.copy_(self.waited(changed, self.now))
            self._late[id(changed)] = (changed, self.now)
        late = self.now
        args, kwargs = pytree.tree_map(lambda leaf: self._as_late(leaf, late), (args, kwargs))
        return args, kwargs

    def mark(self, func: Callable[..., Any], args: Any, result: Any) -> Any:
        """Note how late the results of a call are; return them."""
        if isinstance(result, Iterator):
            return iter([self.mark(func, args, part) for part in result])
        if self.now is not None:
            changed = [args[0]] if args and _assigns(func) else []
            for leaf in [*pytree.tree_leaves(result), *changed]:
                if isinstance(leaf, Tensor):
                    self._late[id(leaf)] = (leaf, self.now)
        return result

    def waited(self, value: Tensor, late: int) -> Tensor:
        """Return a value as late as that, out of a line that it waits in."""
        steps = late - (self.late(value) or 0)
        if steps <= 0:
            return value
        key = (id(value), steps)
        if key not in self._lines:
            index = len(self.waiting)
            self.waiting.append((steps, value))
            name = self._delay.lines[index] if index < len(self._delay.lines) else ""
            line = self._states.get(name)
            if line is None:
                line = torch.zeros([steps, *value.shape], dtype=value.dtype)
            self._next[name] = torch.cat([line[1:], value.unsqueeze(0)])
            self._lines[key] = (value, line[0].clone())
        return self._lines[key][1]

    def _as_late(self, leaf: Any, late: int) -> Any:
        if not isinstance(leaf, Tensor) or self.late(leaf) is None:
            return leaf
        return self.waited(leaf, late)


def _assigns(func: Callable[..., Any]) -> bool:
    """Whether a function changes its first argument."""
    name = func.__name__
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in _NO_ASSIGNMENT)
    return name.endswith("_")
