"""Errors of the compiler: what cannot be compiled names operator, node and PyTorch module."""

from __future__ import annotations

from typing import Any

from rnnx.errors import ModelError


def refuse(node: Any, reason: str, *, fix: str | None = None) -> ModelError:
    """Return the error for a node that the compiler does not know or cannot take as it is."""
    module = node.module or "(the model itself)"
    return ModelError(
        "cannot-compile",
        expected="operators that 'rnnx compile' knows (docs/native.md lists them)",
        found=f"{node.op} in node {node.name!r} of module {module}: {reason}",
        fix=fix or "run this model with provider cpu, or write that part of the network with other operators",
    )
