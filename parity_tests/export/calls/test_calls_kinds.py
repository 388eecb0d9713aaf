"""Kinds of recorded calls: each that carries something is lifted in the tests beside this one."""

from __future__ import annotations

import importlib

from rnnx_export.calls import kinds
from rnnx_export.calls.table import HANDLERS
from support.chunks import Made, Row

FILES = ("cumulative", "mirrors", "overlap_add", "packed", "padding", "positions", "recurrent", "shifts")


def made() -> list[Made]:
    """Return a module for each row of the tests of handlers that carry something."""
    rows: list[Row] = []
    for name in FILES:
        rows += importlib.import_module(f"test_calls_{name}").ROWS
    return [make(lambda low, high: high) for _, make in rows]


def test_every_kind_that_carries_something_is_lifted_in_a_row() -> None:
    lifted = {kind for one in made() for kind in one.kinds}
    assert lifted == set(kinds.SLOTS)


def test_a_kind_carries_a_past_if_and_only_if_it_is_listed_so() -> None:
    assert {kind for kind, slots in kinds.SLOTS.items() if "past" in slots} == set(kinds.PASTS)


def test_kinds_of_calls_that_carry_their_own_values_are_named_as_the_calls() -> None:
    for names in (kinds.RECURRENT, kinds.RUNNING):
        assert set(names) <= set(HANDLERS) & set(kinds.SLOTS)
    assert {len(set(slots)) - len(slots) for slots in kinds.SLOTS.values()} == {0}


def test_no_kind_is_of_two_minds() -> None:
    """What is lifted where it is met, what only as a fallback, what needs all steps, and what draws."""
    fallbacks = {*kinds.POSITIONS, *kinds.SHIFTS}
    at_once = set(kinds.SLOTS) - fallbacks
    assert fallbacks <= set(kinds.SLOTS)
    groups = [at_once, fallbacks, set(kinds.LOOKS_EVERYWHERE), {"random"}]
    assert sum(map(len, groups)) == len(set().union(*groups))
