"""torch's `scan` and `while_loop`, run as the Python loops they stand for; and distributions without checks.

Called eagerly, these operators compile their body first, which no other mode survives, and captured they
stay closed. As plain loops they are seen through like any loop over time. A distribution checks its
parameters with decisions on their values, which no graph has.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor


@contextlib.contextmanager
def plain_loops() -> Iterator[None]:
    """Replace the operators behind `torch._higher_order_ops.scan` and `while_loop` while the block runs.

    Distributions check nothing meanwhile, and what `torch.compile` decorates runs as it is written.
    """
    # By module path, since the package gives its functions the names of its modules.
    home = {
        name: importlib.import_module(f"torch._higher_order_ops.{name}")
        for name in ("utils", "scan", "while_loop")
    }
    with (
        torch.compiler.set_stance("force_eager"),
        mock.patch.object(home["utils"], "_hop_compile_and_call", _call),
        mock.patch.object(home["scan"], "scan_op", _scan),
        mock.patch.object(home["while_loop"], "while_loop_op", _while),
        mock.patch.object(torch.distributions.Distribution, "_validate_args", False),
    ):
        yield


def _call(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Any:
    return function(*args, **(kwargs or {}))


def _scan(
    combine: Callable[..., Sequence[Tensor]],
    init: Sequence[Tensor],
    xs: Sequence[Tensor],
    more: Sequence[Any] = (),
) -> tuple[Tensor, ...]:
    carry, rows = list(init), []
    for step in range(xs[0].shape[0]):
        result = combine(*carry, *(x[step] for x in xs), *more)
        carry = list(result[: len(carry)])
        rows.append(result[len(carry) :])
    return (*carry, *(torch.stack(list(column)) for column in zip(*rows, strict=True)))


def _while(
    condition: Callable[..., Any],
    body: Callable[..., Any],
    carried: Sequence[Any],
    more: Sequence[Any] = (),
    **_: Any,
) -> tuple[Any, ...]:
    values = tuple(carried)
    while bool(condition(*values, *more)):
        values = tuple(body(*values, *more))
    return values
