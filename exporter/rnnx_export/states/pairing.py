"""Evidence of which part of the result a state goes on as, where neither names nor structure say.

Flow: a recurrent layer or cell starts from the state, seen through views, casts and reorderings by the values
themselves, and what the same call ends with lies in that part of the result. Time: of the pairings that fit
there is one under which two chunks give what the whole sequence gives, which a wrong one cannot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rnnx_export.module.structure import Path, flatten, part_at
from rnnx_export.states.arguments import Part
from rnnx_export.states.observations import Exploration

_MOST_PAIRINGS = 120
_CLOSE = 1e-4  # two ways through one module in its own precision, relative to 1 + |value|


class ShownByRuns:
    """What the runs of a subject show about its state arguments.

    Args:
        seen: the runs.
    """

    def __init__(self, seen: Exploration) -> None:
        self._seen = seen

    def flow(self, part: Part, choices: Sequence[Path]) -> Path | None:
        """Return the one of `choices` in which lies what a recurrent call ends with that `part` starts.

        None where no call starts from it, or where what it ends with is in no choice or in several.
        """
        parameter, inside = part
        call = self._seen.base.first
        passed = self._passed(parameter, inside)
        if passed is None or _is_constant(passed):
            return None
        reached: list[Tensor] = [passed]
        for starts, ends in call.flows:
            for start, end in zip(starts, ends, strict=True):
                if not _is_constant(start) and any(_lies_in(start, value) for value in reached):
                    reached.append(end)
        found = [
            path
            for path in choices
            if any(not _is_constant(end) and _lies_in(end, call.leaf(path)) for end in reached[1:])
        ]
        return found[0] if len(found) == 1 else None

    def time(
        self, choices: Mapping[Part, Sequence[Path]], fixed: Mapping[Part, Path]
    ) -> dict[Part, Path] | None:
        """Return the one pairing under which two chunks give what the whole gives, None if not one does.

        Args:
            choices: by part, what it may go on as.
            fixed: what is known of other parts.
        """
        seen = self._seen
        if "time" not in seen.sizes or math.prod(map(len, choices.values())) > _MOST_PAIRINGS:
            return None
        held = []
        for paths in itertools.product(*choices.values()):
            pairing = dict(zip(choices, paths, strict=True))
            if len(set(paths)) == len(paths) and self._holds({**fixed, **pairing}):
                held.append(pairing)
        return held[0] if len(held) == 1 else None

    def note(self, part: Part, path: Path, evidence: str) -> None:
        """Tell the user by what a pairing was settled."""
        name = ".".join((part[0], *(part[1] or ())))
        place = "".join(f"[{index}]" for index in path)
        self._seen.notes.append(f"state {name!r} goes on as result{place}: {evidence}")

    def _passed(self, parameter: str, inside: Path | None) -> Tensor | None:
        subject = self._seen.subject
        for name in subject.state_names(parameter):
            if subject.place(name)[1] == inside:
                return self._seen.base.passed[name]
        return None

    def _holds(self, pairing: Mapping[Part, Path]) -> bool:
        """Whether a sequence in two calls, states handed on by a pairing, is the sequence in one."""
        seen = self._seen
        subject, time = seen.subject, seen.sizes["time"]
        inputs, states = seen.draw(0)
        cut = time // 2
        halves: list[dict[str, Tensor]] = [{}, {}]
        for name, spec in subject.inputs.items():
            value = inputs[name]
            if spec.is_length:
                halves[0][name], halves[1][name] = value.clamp(max=cut), (value - cut).clamp(min=0)
            else:
                axis = list(spec.shape).index("time") if "time" in spec.shape else None
                if spec.has("time") and axis is None:
                    return False  # an axis that time is a part of
                for half, begin, end in ((halves[0], 0, cut), (halves[1], cut, time)):
                    half[name] = value if axis is None else value.narrow(axis, begin, end - begin).clone()
        try:
            whole = dict(flatten(subject.call(subject.fresh(), inputs, _clones(states))))
            module = subject.fresh()
            first = subject.call(module, halves[0], _clones(states))
            handed = {name: self._next(name, states[name], first, pairing) for name in states}
            given = {
                parameter: part_at(first, path)
                for (parameter, inside), path in pairing.items()
                if inside is None
            }
            second = dict(flatten(subject.call(module, halves[1], handed, given)))
        except Exception:  # the user's own code may refuse what it does not take in any way it likes
            return False
        return _agree(whole, dict(flatten(first)), second)

    def _next(
        self, name: str, value: Tensor | None, result: Any, pairing: Mapping[Part, Path]
    ) -> Tensor | None:
        parameter, inside = self._seen.subject.place(name)
        path = pairing.get((parameter, inside))
        found: Tensor | None = value if path is None else part_at(result, path)
        return found


def _agree(whole: Mapping[Path, Any], first: Mapping[Path, Any], second: Mapping[Path, Any]) -> bool:
    """Whether two results, one after the other, are the whole: joined where that is longer, else the last."""
    if not whole.keys() == first.keys() == second.keys():
        return False
    for path, expected in whole.items():
        if not isinstance(expected, Tensor):
            continue
        got = second[path]
        if got.shape != expected.shape:
            axes = [
                axis
                for axis, size in enumerate(expected.shape)
                if got.dim() == expected.dim() and first[path].shape[axis] + got.shape[axis] == size
            ]
            if len(axes) != 1:
                return False
            got = torch.cat([first[path], got], axes[0])
        if not torch.allclose(
            got.to(torch.float64), expected.to(torch.float64), _CLOSE, _CLOSE, equal_nan=True
        ):
            return False
    return True


def _clones(values: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if value is None else value.clone() for name, value in values.items()}


def _is_constant(value: Tensor) -> bool:
    return value.numel() < 2 or bool((value == value.flatten()[0]).all())


def _lies_in(part: Tensor, whole: Any) -> bool:
    """Whether all values of a tensor are values of another, whatever their order and precision."""
    if not isinstance(whole, Tensor) or part.numel() > whole.numel():
        return False
    coarser = min(part.dtype, whole.dtype, key=lambda dtype: dtype.itemsize)
    return bool(torch.isin(part.to(coarser).float(), whole.to(coarser).float()).all())
