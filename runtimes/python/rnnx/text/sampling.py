"""Drawing symbols from scores, the same in every language.

The generator is splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
One draw takes one 64-bit number x and makes u = (x >> 11) * 2^-53, which lies in [0, 1).

From weights w[0..n-1] (float64, finite, not negative), with sums taken in index order:

    c[i] = c[i-1] + w[i];  threshold = u * c[n-1];  the draw is the first i with c[i] > threshold

With integer weights whose sum is at most 2^53 every sum is exact, so that the draw is the same bit for bit
everywhere. A weight of zero is never drawn. From scores s (logits) at temperature T > 0 the weights are
w[i] = exp((s[i] - max(s)) / T), in float64. Temperature 0 takes the lowest index of the maximum and draws
no number. Symbols of a prompt draw no number.

Past the last symbol: since u <= 1 - 2^-53, u * c[n-1] rounds to less than c[n-1], and the running sum that
ends at c[n-1] is the one compared against. So a symbol is always found. (At 2^-1022, where float64 loses
bits, the product could round up to the total; sums below 2^-1000 are refused. Scores have sums of 1 or more.)
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.arguments import number, shown
from rnnx.errors import InputError, UsageError

_MASK = (1 << 64) - 1
_SMALLEST_SUM = 2.0**-1000


class Sampler:
    """A generator and a temperature: draws one symbol after the other.

    Args:
        seed: 0..2^64-1; the generator's first state.
        temperature: 0 for the best symbol, 1 for the model's own probabilities, more for more variety.

    Raises:
        UsageError: `seed-invalid` or `temperature-invalid`.
    """

    def __init__(self, seed: int = 0, temperature: float = 1.0) -> None:
        is_number = isinstance(temperature, (int, float, np.number)) and not isinstance(temperature, bool)
        if not (is_number and 0 <= temperature <= sys.float_info.max):
            raise UsageError(
                "temperature-invalid",
                expected="a finite temperature of 0 or more",
                found=shown(temperature),
                fix="try 0.7; 0 always takes the best symbol",
            )
        self.temperature = float(temperature)
        self.state = seed

    @property
    def state(self) -> int:
        """The generator's state, an unsigned 64-bit integer; setting it continues where another stopped."""
        return self._state

    @state.setter
    def state(self, value: int) -> None:
        self._state = number(
            value,
            "a seed in 0..18446744073709551615 (unsigned 64 bit)",
            most=_MASK,
            code="seed-invalid",
            fix="choose a seed in that range",
        )

    def next_uint64(self) -> int:
        """Return the next number of splitmix64, 0..2^64-1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def uniform(self) -> float:
        """Return the next u in [0, 1), a multiple of 2^-53."""
        return (self.next_uint64() >> 11) * 2.0**-53

    def sample_weights(self, weights: npt.ArrayLike) -> int:
        """Draw an index with probability proportional to its weight; takes one number.

        Args:
            weights: float64 or integer [symbols], finite, not negative, with a sum of at least 2^-1000.

        Raises:
            InputError: `weights-invalid`; no number is drawn then.
        """
        values = np.asarray(weights, dtype=np.float64)
        valid = values.ndim == 1 and values.size > 0 and bool((values >= 0).all())
        running = _running_sum(values) if valid else values  # [symbols]
        if not valid or not _SMALLEST_SUM <= running[-1] < math.inf:
            raise InputError(
                "weights-invalid",
                expected="weights [symbols], none negative, with a finite sum of at least 2^-1000",
                found=f"shape {list(values.shape)} with {_offender(values)}",
                fix="check what the weights were computed from",
            )
        threshold = self.uniform() * float(running[-1])
        return int(np.searchsorted(running, threshold, side="right"))

    def sample(self, scores: npt.ArrayLike) -> int:
        """Draw a symbol from its logits; takes one number, or none at temperature 0.

        Args:
            scores: float [symbols]; -inf excludes a symbol.

        Raises:
            InputError: `scores-invalid` for NaN, +inf, or nothing to choose from.
        """
        values = np.asarray(scores, dtype=np.float64)
        highest = float(values.max()) if values.ndim == 1 and values.size else math.nan
        if not math.isfinite(highest):  # the maximum is NaN as soon as one element is
            raise InputError(
                "scores-invalid",
                expected="scores [symbols] below infinity with at least one finite",
                found=f"shape {list(values.shape)} with {_offender(values)}",
                fix="check the model's weights and inputs for NaN",
            )
        if self.temperature == 0:
            return int(values.argmax())  # the lowest index, where several are equal
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to -inf, as it should
            exponents = (values - highest) / self.temperature
        return self.sample_weights(np.exp(exponents))


def _running_sum(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    # accumulate adds one element after the other by definition; np.sum would add in pairs.
    with np.errstate(over="ignore"):  # a sum that overflows is refused by its value
        return np.add.accumulate(values)


def _offender(values: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    if values.ndim != 1 or not values.size:
        return f"{values.ndim} axes" if values.ndim != 1 else "no entries"
    for wrong in (np.isnan(values), np.isposinf(values), values < 0):
        if wrong.any():
            index = int(wrong.argmax())
            return f"{values[index]} at index {index}"
    return "all zero" if not values.any() else "a sum out of range"
