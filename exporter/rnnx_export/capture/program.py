"""Capturing a program with torch.export, all named sizes free."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config

from rnnx.model.contract import Axis, Dimension
from rnnx_export.capture.complex_pairs import RealProgram, has_complex
from rnnx_export.module.subject import quiet

_TORCH = os.path.dirname(torch.__file__)
_HERE = os.path.dirname(os.path.dirname(__file__))  # of the package


class CaptureError(Exception):
    """The program cannot be captured in this way; the message is one line, fit for a contract."""


def capture(
    program: nn.Module,
    examples: Sequence[Tensor],
    shapes: Sequence[Sequence[Dimension]],
    names: Sequence[str],
) -> torch.export.ExportedProgram:
    """Return `program` as a graph in which each named axis of its arguments is free.

    Args:
        program: a pure function of flat tensors.
        examples: one tensor an argument.
        shapes: the arguments' shapes in dimension names.
        names: what to call the arguments in messages.

    Raises:
        CaptureError: the program depends on a value or on a size in a way that a graph cannot hold.
    """
    dynamic = tuple(
        {axis: torch.export.Dim.AUTO for axis, dimension in enumerate(shape) if Axis.parse(dimension).name}
        for shape in shapes
    )
    exported = _export(program, examples, dynamic)
    if has_complex(exported):
        exported = _export(RealProgram(exported), examples, dynamic)
    _check_free(exported, shapes, names)
    return exported


def _export(
    program: nn.Module, examples: Sequence[Tensor], dynamic: tuple[dict[int, Any], ...]
) -> torch.export.ExportedProgram:
    with (
        quiet(),
        _silent(),
        contextlib.redirect_stderr(io.StringIO()),
        _config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
    ):
        try:
            return torch.export.export(
                program,
                tuple(examples),
                dynamic_shapes=(dynamic,),
                strict=False,
            )
        except NotImplementedError as error:
            raise CaptureError(f"no ONNX form: {first_line(error)}{recorded_line(str(error))}") from error
        except Exception as error:  # torch.export raises many kinds; all mean the same here
            raise CaptureError(first_line(error) + user_line(error)) from error


def _check_free(
    exported: torch.export.ExportedProgram, shapes: Sequence[Sequence[Dimension]], names: Sequence[str]
) -> None:
    user = set(exported.graph_signature.user_inputs)
    placeholders = [n for n in exported.graph.nodes if n.op == "placeholder" and n.name in user]
    for node, shape, name in zip(placeholders, shapes, names, strict=True):
        for axis, dimension in enumerate(shape):
            size = node.meta["val"].shape[axis]
            # A size that was frozen can be a SymInt that prints as a number.
            if Axis.parse(dimension).name and str(size).isdigit():
                raise CaptureError(f"{dimension} of {name!r} was frozen to the example's size {size}")


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
def _silent() -> Iterator[None]:
    """Keep torch's loggers quiet: what they say is in the error, or does not concern the user."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
