"""What handlers share: a recorded call, what it takes from states, and the tracer as they see it."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Visit:
    """One intercepted call, as seen in one run.

    Attributes:
        key: names the call in every run: module path, function, how often that pair was called before.
        kind: what it is, a key of `site_kinds.KINDS`.
        path: the calling module's path.
        start: tensors that the call begins from, empty where it begins from `fill`.
        like: shape and dtype stand for the tensor whose past is carried.
        axes: the axes that could be time, each with the frames of memory it would take.
        fill: the number a padding or running value starts from.
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


@dataclasses.dataclass(frozen=True)
class Lift:
    """A visit whose memory becomes states: their names, and the axis that is time."""

    key: str
    kind: str
    axis: int
    names: tuple[str, ...]


Call = tuple[Any, ...]
