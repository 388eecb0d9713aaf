"""Text to symbol ids and back, in one place for every part that needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rnnx.errors import InputError

IdArray = np.ndarray[Any, np.dtype[np.int64]]


def encode(symbols: Sequence[str], text: str, *, what: str = "text") -> IdArray:
    """Return the ids of the characters of `text`, int64 [characters].

    Args:
        symbols: the vocabulary; an id is an index into it, a symbol is one code point.
        text: what to encode.
        what: what the text is, for the error message ("prompt").

    Raises:
        InputError: `character-outside-vocabulary`, naming the first such character and its position.
    """
    points = code_points(text)
    known = code_points("".join(symbols))
    table = np.full(max(int(points.max(initial=0)), int(known.max(initial=0))) + 1, -1, np.int64)
    table[known] = np.arange(len(known))
    ids: IdArray = table[points]
    if (ids < 0).any():
        position = int((ids < 0).argmax())
        raise InputError(
            "character-outside-vocabulary",
            expected=f"a {what} of the vocabulary's {len(symbols)} characters",
            found=f"{text[position]!r} (U+{ord(text[position]):04X}) at character {position} (from 0)",
            fix="leave it out or replace it; 'rnnx inspect MODEL --json' lists the vocabulary",
        )
    return ids


def decode(symbols: Sequence[str], ids: Iterable[int]) -> str:
    """Return the text that `ids` stand for.

    Raises:
        InputError: `id-outside-vocabulary`, naming the first such id and its position.
    """
    text = []
    for position, index in enumerate(ids):
        if not 0 <= index < len(symbols):
            raise InputError(
                "id-outside-vocabulary",
                expected=f"ids in 0..{len(symbols) - 1}",
                found=f"{index} at position {position} (from 0)",
                fix="use the ids of the vocabulary this model was trained with",
            )
        text.append(symbols[index])
    return "".join(text)


def code_points(text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Return the code points of `text`, uint32 [characters]."""
    # Lone surrogates come in through undecodable command line arguments; they must reach the error above.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4")).astype(np.uint32)
