"""Why something cannot be done and where in the user's code, in one line; and torch kept quiet meanwhile."""

from __future__ import annotations

import contextlib
import enum
import linecache
import logging
import os
import re
import sys
import traceback
import types
import warnings
from collections.abc import Iterator

import torch

_TORCH = os.path.dirname(torch.__file__)
_HERE = os.path.dirname(__file__)


class Reason(enum.Enum):
    """What stands in the way of an export, as far as there is advice on it: `refusals.ADVICE`."""

    DATA_DEPENDENT = enum.auto()
    SIZE_BY_VALUE = enum.auto()
    NO_TENSOR = enum.auto()
    COMPLEX = enum.auto()
    NO_ONNX_FORM = enum.auto()
    STARTS_FROM_INPUT = enum.auto()
    UNCARRIED = enum.auto()
    OUTSIDE_TABLE = enum.auto()
    NO_KERNEL = enum.auto()
    SIZE_FOLLOWS = enum.auto()
    SINGLE_STEP = enum.auto()
    FROZEN = enum.auto()
    OUTSIDE_TORCH = enum.auto()
    FIXED_SIZES = enum.auto()


class Because(str):
    """A line for people that carries the reason it is said for, if it is one of those.

    Attributes:
        reason: for programs; the text is for people alone.
        where: the user's line that led to it, for a refusal; files say nothing of it.
    """

    reason: Reason | None
    where: str

    def __new__(cls, text: str, reason: Reason | None = None, where: str = "") -> Because:
        """Return the text with its reason."""
        made = super().__new__(cls, text)
        made.reason = reason
        made.where = where
        return made


class Caution(str):
    """A note of what may have gone wrong: the command line warns of it behind everything else."""


def reason_of(text: object) -> Reason | None:
    """Return the reason that a text carries, None if it carries none."""
    return text.reason if isinstance(text, Because) else None


def with_line(text: object) -> str:
    """Return a text behind which the user's line stands that led to it, if it carries one."""
    return f"{text}{text.where}" if isinstance(text, Because) else str(text)


class CaptureError(Exception):
    """The program cannot be captured in this way; its one argument is a line, fit for a contract."""


def is_own(file: str) -> bool:
    """Return whether a source file is neither torch's nor ours."""
    return not file.startswith((_TORCH, _HERE))


def user_line(error: Exception) -> str:
    """Return " at file.py:12" for the innermost line of the user's own code that led to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_own(frame.filename) and frame.line]
    return _at(own[-1].filename, own[-1].lineno, own[-1].line) if own else ""


def calling_line() -> str:
    """Return " at file.py:12: `code`" of the innermost frame that is neither torch's nor ours, if one is."""
    frame = calling_frame()
    if frame is None:
        return ""
    file, line = frame.f_code.co_filename, frame.f_lineno
    return _at(file, line, linecache.getline(file, line))


def recorded_line(trace: str) -> str:
    """Return the same for a trace in text, as a captured node has it."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in .*\n +(.+)', trace)
    own = [frame for frame in frames if is_own(frame[0])]
    return _at(*own[-1]) if own else ""


def _at(file: str, line: int | str | None, code: str | None) -> str:
    return f" at {os.path.basename(file)}:{line}: `{(code or '').strip()}`"


def one_line(text: str) -> str:
    """Return a message of many lines as one of at most 200 characters."""
    joined = " ".join(text.split())
    return joined if len(joined) <= 200 else joined[:197] + "..."


# What torch says of a trace in words of its own, and what it means.
_TRACING = (
    (
        re.compile(r"data is not allocated yet|data pointer|data_ptr|numpy\(\) is not supported"),
        "code outside of torch reads a tensor's memory, which is not there while torch traces",
        Reason.OUTSIDE_TORCH,
    ),
    (
        re.compile(r"Cannot call \w+\(\) on tensor with symbolic sizes"),
        "a call of torch that takes no free sizes",
        Reason.FIXED_SIZES,
    ),
)


def first_line(error: Exception) -> Because:
    """Return the first line of what an error says, as one of at most 200 characters."""
    said = str(error)
    if "data-dependent" in said:
        return Because("a decision that depends on a tensor's value (data-dependent)", Reason.DATA_DEPENDENT)
    for words, text, reason in _TRACING:
        if words.search(said):
            return Because(text, reason)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    outside = Reason.OUTSIDE_TABLE if "index out of range" in said else None
    return Because(one_line(lines[0] if lines else type(error).__name__), outside)


def user_error(error: Exception, what: str = "") -> Because:
    """Return what an error says, behind what was tried, and the user's line that led to it."""
    said, line = first_line(error), user_line(error)
    if said.reason is Reason.DATA_DEPENDENT and not _DECIDES.search(line) and _SIZES.search(line):
        said = Because("a size that depends on a tensor's value (data-dependent)", Reason.SIZE_BY_VALUE)
    return Because(f"{what}{said}{line}", said.reason)


_DECIDES = re.compile(r"\b(if|elif|while|assert|and|or|not|bool)\b")
_SIZES = re.compile(r"\[[^]]*:|\b(range|arange|zeros|ones|full|empty|expand|repeat|narrow|split)\(")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep torch's loggers quiet: what they say is in the error, or does not concern the user."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def calling_frame() -> types.FrameType | None:
    """Return the innermost frame that is neither torch's nor ours."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and not is_own(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def caller() -> str:
    """Return "file:line" of the innermost frame that is neither torch's nor ours."""
    frame = calling_frame()
    return "" if frame is None else f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


@contextlib.contextmanager
def levels_restored() -> Iterator[None]:
    """Leave as many levels of `torch.vmap` as there were.

    A captured graph enters and leaves them by nodes of its own. What cuts or changes it may leave one open,
    and then every tensor that is made afterwards, anywhere in the process, belongs to it.
    """
    functorch = torch._C._functorch
    depth = functorch.get_dynamic_layer_stack_depth()
    try:
        yield
    finally:
        if functorch.get_dynamic_layer_stack_depth() > depth:
            functorch.pop_dynamic_layer_stack_and_undo_to_depth(depth)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run PyTorch without gradients and without its warnings."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
