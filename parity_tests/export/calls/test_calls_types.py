"""What handlers share is what the tracer gives them, and it does not change."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
from torch import nn

from rnnx_export.calls.table import HANDLERS
from rnnx_export.calls.tracer import CallTracer
from rnnx_export.calls.types import Lift, RecordedCall, Tracer


def test_the_tracer_has_all_that_handlers_see_of_it() -> None:
    tracer = CallTracer(nn.Identity())
    methods = [name for name, value in vars(Tracer).items() if inspect.isfunction(value) and name[0] != "_"]
    assert {"record", "uncut"} <= set(methods)
    for name in methods:
        wanted, found = (inspect.signature(getattr(kind, name)) for kind in (Tracer, CallTracer))
        assert list(found.parameters) == list(wanted.parameters)
    for name in inspect.get_annotations(Tracer):
        assert hasattr(tracer, name), name


def test_every_handler_takes_what_the_tracer_hands_over() -> None:
    for handlers in HANDLERS.values():
        for handler in handlers:
            assert len(inspect.signature(handler).parameters) == 4


def test_what_was_recorded_stays() -> None:
    like = torch.empty(2)
    recorded = RecordedCall("key", "pad", "", (), like, {0: 1}, 0.0, "here:1")
    lift = Lift("key", "pad", 0, ("past",))
    for value in (recorded, lift):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.kind = "cat"  # type: ignore[misc]
