"""Decisions on a tensor's value, such as `if mask.any():`: the side they took, and the one they are to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rnnx_export.calls.types import Call, Decision, Tracer
from rnnx_export.diagnostics import calling_frame


def decide(tracer: Tracer, func: Callable[..., Any], args: Call, kwargs: dict[str, Any]) -> Any:
    """bool(tensor): in a captured graph, and where the tracer says so, the side that was settled."""
    frame = calling_frame()
    if frame is None:
        return NotImplemented
    key = f"{frame.f_code.co_filename}:{frame.f_lineno}:{frame.f_lasti}"
    if torch.compiler.is_exporting():
        tracer.conditions.setdefault(key, args[0])
        return tracer.sides.get(key, NotImplemented)
    value = func(*args, **kwargs)
    tracer.decisions.append(Decision(key, frame.f_code.co_filename, frame.f_lineno, value))
    return tracer.sides.get(key, value) if tracer.forced else value
