"""What is said of the user's own code: its line, one line of an error; and torch kept quiet meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TORCH = os.path.dirname(torch.__file__)


_HERE = os.path.dirname(__file__)


class CaptureError(Exception):
    """The program cannot be captured in this way; the message is one line, fit for a contract."""


def user_line(error: Exception) -> str:
    """Return " at file.py:12" for the innermost line of the user's own code that led to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((_TORCH, _HERE)) and frame.line]
    return f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}: `{own[-1].line}`" if own else ""


def recorded_line(trace: str) -> str:
    """Return the same for a trace in text, as a captured node has it."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in .*\n +(.+)', trace)
    own = [frame for frame in frames if not frame[0].startswith((_TORCH, _HERE))]
    return f" at {os.path.basename(own[-1][0])}:{own[-1][1]}: `{own[-1][2].strip()}`" if own else ""


def one_line(text: str) -> str:
    """Return a message of many lines as one of at most 200 characters."""
    joined = " ".join(text.split())
    return joined if len(joined) <= 200 else joined[:197] + "..."


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, as one of at most 200 characters."""
    if "data-dependent" in str(error):
        return "a decision that depends on a tensor's value (data-dependent)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(lines[0] if lines else type(error).__name__)


@contextmanager
def silent() -> Iterator[None]:
    """Keep torch's loggers quiet: what they say is in the error, or does not concern the user."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def caller() -> str:
    """Return "file:line" of the innermost frame that is neither torch's nor ours."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_TORCH, _HERE)):
            return f"{os.path.basename(name)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run PyTorch without gradients and without its warnings."""
    import warnings

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
