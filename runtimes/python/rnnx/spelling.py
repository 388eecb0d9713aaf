"""How the caller writes an argument of `rnnx.export`: in Python, or as flags of the command line."""

from __future__ import annotations

import contextlib
import contextvars
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_AS_FLAGS = contextvars.ContextVar("rnnx_as_flags", default=False)


@contextlib.contextmanager
def as_flags() -> Iterator[None]:
    """Spell arguments as flags within the block: the caller is the command line."""
    token = _AS_FLAGS.set(True)
    try:
        yield
    finally:
        _AS_FLAGS.reset(token)


def spelled(name: str, value: Any) -> str:
    """Return an argument as the caller writes it.

    Args:
        name: of the argument: "state", "returns".
        value: specs by parameter, nested as the parameter is; or names, nested as a result is.

    Returns:
        In Python `state={'h': 'float32[batch, 32]'}`, on the command line `--state 'h=float32[batch, 32]'`;
        `returns=('y', 'h')`, or `--returns 'y, h'`.
    """
    if not _AS_FLAGS.get():
        return f"{name}={value!r}"
    flag = f"--{name.replace('_', '-')}"
    if not isinstance(value, Mapping):
        return f"{flag} {shlex.quote(', '.join(map(_plain, value)))}"
    return " ".join(f"{flag} {shlex.quote(f'{key}={_plain(part)}')}" for key, part in value.items())


def _plain(value: Any) -> str:
    """Return specs or names as `--state` and `--returns` read them: nested, and without quotes."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_plain(part)}' for key, part in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_plain, value))})"
    return str(value)
