"""Capturing a program with torch.export, all named sizes free."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from rnnx.model.contract import Axis, Dimension
from rnnx_export.capture.complex_pairs import ComplexError, RealProgram, has_complex
from rnnx_export.diagnostics import (
    Because,
    CaptureError,
    Reason,
    calling_line,
    first_line,
    levels_restored,
    quiet,
    recorded_line,
    silent,
    user_error,
)


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
    with _lines_that_freeze() as lines:
        exported = _export(program, examples, dynamic)
    if has_complex(exported):
        exported = _export(RealProgram(decomposed(exported)), examples, dynamic)
    _check_free(exported, shapes, names, lines)
    _share_constants(exported)
    return exported


def decomposed(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a captured graph of simpler operators. Raises CaptureError where torch cannot take it apart."""
    try:
        simple: torch.export.ExportedProgram = exported.run_decompositions({})
    except Exception as error:  # torch raises many kinds about a graph that it does not expect
        raise CaptureError(user_error(error)) from error
    return simple


@contextlib.contextmanager
def _lines_that_freeze() -> Iterator[dict[int, str]]:
    """Note the line of the user's code at which a free size was found to be a number, by that number."""
    lines: dict[int, str] = {}
    replace = ShapeEnv._set_replacement

    def noting(env: ShapeEnv, symbol: Any, value: Any, why: str) -> None:
        if getattr(value, "is_number", False):
            lines.setdefault(int(value), calling_line())
        replace(env, symbol, value, why)

    ShapeEnv._set_replacement = noting  # type: ignore[assignment, method-assign]
    try:
        yield lines
    finally:
        ShapeEnv._set_replacement = replace  # type: ignore[method-assign]


def _export(
    program: nn.Module, examples: Sequence[Tensor], dynamic: tuple[dict[int, Any], ...]
) -> torch.export.ExportedProgram:
    with (
        quiet(),
        silent(),
        levels_restored(),
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
            said = f"no ONNX form: {first_line(error)}{recorded_line(str(error))}"
            reason = Reason.COMPLEX if isinstance(error, ComplexError) else Reason.NO_ONNX_FORM
            raise CaptureError(Because(said, reason)) from error
        except Exception as error:  # torch.export raises many kinds; all mean the same here
            raise CaptureError(user_error(error)) from error


def _share_constants(exported: torch.export.ExportedProgram) -> None:
    """Let equal constants be one: they are captured anew at each use.

    Such are `torch.tensor(0.0)` in a loop, and weights that a plain dict hands out.
    """
    first: dict[tuple[torch.dtype, torch.Size, bytes], torch.fx.Node] = {}
    names = exported.graph_signature.inputs_to_lifted_tensor_constants
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            value = exported.constants[names[node.name]]
            key = (value.dtype, value.shape, value.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
            if first.setdefault(key, node) is not node:
                node.replace_all_uses_with(first[key])


def _check_free(
    exported: torch.export.ExportedProgram,
    shapes: Sequence[Sequence[Dimension]],
    names: Sequence[str],
    lines: Mapping[int, str],
) -> None:
    user = set(exported.graph_signature.user_inputs)
    placeholders = [n for n in exported.graph.nodes if n.op == "placeholder" and n.name in user]
    for node, shape, name in zip(placeholders, shapes, names, strict=True):
        for axis, dimension in enumerate(shape):
            size = node.meta["val"].shape[axis]
            # A size that was frozen can be a SymInt that prints as a number.
            if Axis.parse(dimension).name and str(size).isdigit():
                said = f"{dimension} of {name!r} was frozen to the example's size {size}"
                raise CaptureError(Because(said, Reason.FROZEN, lines.get(int(str(size)), "")))
