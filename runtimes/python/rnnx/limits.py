"""How much memory a file may ask for: a bound, so that a small file costs no more than it is worth."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Iterator

from rnnx.errors import InputError

_FALLBACK = 4 * 2**30  # bytes, where the system does not tell
_CHOSEN: contextvars.ContextVar[int | None] = contextvars.ContextVar("max_bytes", default=None)


def max_bytes() -> int:
    """Return how many bytes a file, stream or pool may take: half of the machine's, or what was chosen."""
    chosen = _CHOSEN.get()
    if chosen is not None:
        return chosen
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _FALLBACK


@contextlib.contextmanager
def bounded(size: int | None) -> Iterator[None]:
    """Let files, streams and pools take up to `size` bytes each within the block; None changes nothing.

    Example:
        `with rnnx.limits.bounded(2**30): stream = session.stream(batch=1000)`
    """
    token = _CHOSEN.set(_CHOSEN.get() if size is None else size)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def check_bytes(what: str, size: int, limit: int | None = None) -> None:
    """Refuse what takes more than `limit` bytes, or than `max_bytes()`.

    Raises:
        InputError: `out-of-memory`, with the figures.
    """
    limit = max_bytes() if limit is None else limit
    if size > limit:
        raise InputError(
            "out-of-memory",
            expected=f"{what} to take at most {limit} bytes",
            found=f"{size}",
            fix="choose smaller sizes, or allow more with --max-bytes or rnnx.limits.bounded",
        )
