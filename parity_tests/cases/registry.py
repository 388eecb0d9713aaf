"""Cases: modules with memory as people write them, and what the exporter must make of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn


@dataclasses.dataclass(frozen=True)
class Case:
    """One module under export.

    Attributes:
        name, family: for the table in docs/support.md.
        build: makes the module; the caller seeds torch before.
        arguments: of `rnnx.export`.
        states: names of the states that must be found, in order.
        route: "direct", "scan" or None where either is good.
        whole: a part of the reason that must stand in `whole_only`, None if it must stream.
        refused: code of the refusal, None if it must be exported.
        mentions: text that the refusal must hold.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    arguments: dict[str, Any]
    states: list[str] | None = None
    route: str | None = None
    whole: str | None = None
    refused: str | None = None
    mentions: str = ""


CASES: dict[str, Case] = {}


def case(
    name: str,
    family: str,
    *,
    states: list[str] | None = None,
    route: str | None = None,
    whole: str | None = None,
    refused: str | None = None,
    mentions: str = "",
    **arguments: Any,
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a module class or factory as a case; other keywords are arguments of `rnnx.export`."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        assert name not in CASES, name
        CASES[name] = Case(name, family, build, arguments, states, route, whole, refused, mentions)
        return build

    return register
