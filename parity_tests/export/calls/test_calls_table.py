"""THE table of intercepted calls: its handlers are tested beside this, and their order counts."""

from __future__ import annotations

from pathlib import Path

from rnnx_export.calls import mirrors, padding, shifts
from rnnx_export.calls.table import HANDLERS

FOLDER = Path(__file__).parent


def test_every_handler_lies_in_a_module_whose_tests_have_a_row_for_each_of_its_calls() -> None:
    """Each of those files asks that its rows are the calls that its module takes."""
    modules = {handler.__module__ for handlers in HANDLERS.values() for handler in handlers}
    for module in modules:
        name = module.rpartition(".")[2]
        source = (FOLDER / f"test_calls_{name}.py").read_text()
        assert "def test_every_call_of_the_module_has_a_row()" in source, name
        assert f"calls_of({name})" in source, name


def test_shifts_look_at_joins_and_paddings_before_those_take_them() -> None:
    """A shift gives back what is none; a padding keeps everything."""
    for call in ("cat", "concat", "concatenate"):
        assert HANDLERS[call] == (shifts.join, padding.cat)
    assert HANDLERS["pad"] == (mirrors.pad, shifts.pad, padding.pad)


def test_only_joins_paddings_maxima_and_slopes_have_more_than_one_taker() -> None:
    several = {call for call, handlers in HANDLERS.items() if len(handlers) > 1}
    assert several == {"cat", "concat", "concatenate", "pad", "max", "amax", "rrelu"}
    slopes = [handler.__module__.rpartition(".")[2] for handler in HANDLERS["rrelu"]]
    assert slopes == ["decompositions", "random"]
