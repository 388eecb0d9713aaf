"""Interrupting a call at every place where it can happen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar
from unittest import mock

Subject = TypeVar("Subject")


class Interrupt(BaseException):
    """What a signal's handler raises."""


def interrupt_everywhere(
    make: Callable[[], Subject], call: Callable[[Subject], object], check: Callable[[Subject], None]
) -> int:
    """Interrupt `call(make())` at one place after the other; `check` what it leaves, the exception alive.

    Python runs handlers of signals where a function begins and where one of C has returned (and where a
    loop goes round, which is left out here). What is raised while a generator is thrown away is lost.

    Returns:
        The number of places.
    """
    place = 1
    with mock.patch.object(sys, "unraisablehook"):
        while _interrupt(make(), call, check, _Profile(place)):
            place += 1
    return place - 1


def _interrupt(
    subject: Subject, call: Callable[[Subject], object], check: Callable[[Subject], None], profile: _Profile
) -> bool:
    """Return whether the call has so many places."""
    caught = None
    try:
        sys.setprofile(profile)
        call(subject)
        sys.setprofile(None)
    except Interrupt as interrupt:
        caught = interrupt  # for as long as `check` runs: it holds on to all frames
    sys.setprofile(None)
    reached = profile.passed >= profile.place
    if reached:
        check(subject)
    del caught
    return reached


class _Profile:
    """Raises at the place with that number."""

    def __init__(self, place: int) -> None:
        self.place, self.passed = place, 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        self.passed += event in ("call", "c_return")
        if self.passed == self.place:
            self.passed += 1
            raise Interrupt
