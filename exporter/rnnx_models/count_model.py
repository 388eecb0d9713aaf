"""A character count model with Witten-Bell smoothing: what a network must beat to have learned anything.

Witten and Bell (1991), "The zero-frequency problem", method C, interpolated. With N(h) how often context h
was seen, N(h c) how often c followed it, T(h) how many different symbols followed it, and h' the context
without its oldest symbol:

    P(c | h) = (N(h c) + T(h) P(c | h')) / (N(h) + T(h)),    P(c | h) = P(c | h') if N(h) = 0

Below the empty context lies the uniform distribution, 1 / symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnx.errors import UsageError
from rnnx.text.vocabulary import IdArray

_FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class _Counts:
    """Counts for contexts of one length. Keys are ascending; a key is the digits of its ids."""

    pairs: IdArray  # context and symbol, [different pairs]
    pair_counts: IdArray  # N(h c), [different pairs]
    contexts: IdArray  # [different contexts]
    context_counts: IdArray  # N(h), [different contexts]
    followers: IdArray  # T(h), [different contexts]


class CountModel:
    """Counts of a text, for contexts of 0 to `order` characters.

    Args:
        ids: the text, int64 [characters] in 0..symbols-1.
        symbols: how many symbols the vocabulary has.
        order: characters of context.

    Raises:
        UsageError: `order-invalid` for a negative order, or one whose contexts do not fit 63 bits.
    """

    def __init__(self, ids: IdArray, symbols: int, order: int = 3) -> None:
        if order < 0 or symbols ** (order + 1) >= 1 << 63:
            raise UsageError(
                "order-invalid",
                expected=f"an order of 0 or more with {symbols}^(order+1) below 2^63",
                found=str(order),
                fix="use order 3",
            )
        self.symbols = symbols
        self.order = order
        self._counts = [_count(_keys(ids, length, symbols), symbols) for length in range(order + 1)]

    def probabilities(self, ids: IdArray) -> _FloatArray:
        """Return P(id | the ids before it) for each position of a text: float64 [characters].

        The first characters have the shorter context that there is.
        """
        result = np.full(len(ids), 1 / self.symbols)
        for length, counts in enumerate(self._counts):
            if len(ids) <= length:
                break
            result[length:] = self._refine(result[length:], _keys(ids, length, self.symbols), counts)
        return result

    def nats_per_character(self, ids: IdArray) -> float:
        """Return the mean of -log P over a text of at least one character."""
        return float(-np.log(self.probabilities(ids)).mean())

    def _refine(self, shorter: _FloatArray, keys: IdArray, counts: _Counts) -> _FloatArray:
        contexts = keys // self.symbols
        seen = _look_up(counts.contexts, counts.context_counts, contexts)  # N(h)
        kinds = _look_up(counts.contexts, counts.followers, contexts)  # T(h)
        together = _look_up(counts.pairs, counts.pair_counts, keys)  # N(h c)
        mixed = (together + kinds * shorter) / np.maximum(seen + kinds, 1)
        return np.where(seen > 0, mixed, shorter)


def _keys(ids: IdArray, length: int, symbols: int) -> IdArray:
    """Return context and symbol as one number for each position with `length` ids before it."""
    keys = np.zeros(max(len(ids) - length, 0), np.int64)
    for offset in range(length + 1):
        keys = keys * symbols + ids[offset : offset + len(keys)]
    return keys


def _count(keys: IdArray, symbols: int) -> _Counts:
    pairs, pair_counts = np.unique(keys, return_counts=True)
    contexts, first = np.unique(pairs // symbols, return_index=True)
    followers = np.diff(np.append(first, len(pairs)))
    context_counts = np.add.reduceat(pair_counts, first) if len(first) else pair_counts
    return _Counts(pairs, pair_counts, contexts, context_counts, followers)


def _look_up(keys: IdArray, values: IdArray, wanted: IdArray) -> IdArray:
    """Return the value of each wanted key, 0 where there is none."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: IdArray = np.where(keys[places] == wanted, values[places], 0)
    return found
