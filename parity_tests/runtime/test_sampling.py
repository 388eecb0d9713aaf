"""Drawing symbols: bit for bit on integer weights, and what the scores say otherwise."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx.errors import InputError, UsageError
from rnnx.text.sampling import Sampler

SEEDS = st.integers(0, 2**64 - 1)


def by_the_book(state: int) -> tuple[int, int]:
    """splitmix64 as published, in integers of any length: the next state and the number it gives."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    z = state
    z = (z ^ z // 2**30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z // 2**27) * 0x94D049BB133111EB % 2**64
    return state, z ^ z // 2**31


@pytest.mark.parametrize(
    ("seed", "numbers"),
    [
        (0, [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]),
        (1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]),
    ],
)
def test_published_numbers_of_splitmix64(seed: int, numbers: list[int]) -> None:
    sampler = Sampler(seed)
    assert [sampler.next_uint64() for _ in numbers] == numbers


@given(SEEDS)
def test_uniform_is_the_upper_53_bits(seed: int) -> None:
    sampler = Sampler(seed)
    state, number = by_the_book(seed)
    assert Fraction(sampler.uniform()) == Fraction(number >> 11, 2**53)
    assert sampler.state == state


@given(SEEDS, st.lists(st.integers(0, 2**40), min_size=1, max_size=40).filter(any))
def test_integer_weights_are_exact(seed: int, weights: list[int]) -> None:
    _, number = by_the_book(seed)
    # u * total is rounded once, to float64, as every language does; all else is integers.
    threshold = Fraction(float(Fraction(number >> 11, 2**53) * sum(weights)))
    running, expected = 0, -1
    for index, weight in enumerate(weights):
        running += weight
        if running > threshold:
            expected = index
            break
    assert Sampler(seed).sample_weights(weights) == expected


class Fixed(Sampler):
    """A sampler whose numbers are given."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def next_uint64(self) -> int:
        return self.numbers.pop(0)


LARGEST = 2**64 - 1


def test_the_ends_of_the_interval() -> None:
    assert Fixed(0).sample_weights([0, 0, 3, 1]) == 2, "u = 0 is not drawn from weights of zero"
    assert Fixed(LARGEST).sample_weights([1, 3, 0, 0]) == 1, "nor is the largest u"
    assert Fixed(1 << 62).sample_weights([1, 3]) == 1, "u = 1/4 is the first that is beyond 1 of 4"
    assert Fixed((1 << 62) - (1 << 11)).sample_weights([1, 3]) == 0


@given(st.lists(st.just(0.0) | st.floats(2.0**-1000, 1e300), min_size=1, max_size=20).filter(any))
def test_a_symbol_is_found_for_the_largest_number(weights: list[float]) -> None:
    drawn = Fixed(LARGEST).sample_weights(weights)
    assert weights[drawn] > 0
    running = 0.0
    for weight in weights:
        running += weight
    before = 0.0
    for weight in weights[:drawn]:
        before += weight
    assert before <= (1 - 2**-53) * running < before + weights[drawn]


def test_sums_are_taken_in_index_order() -> None:
    # After 2^53 each 1.0 is lost one by one; added in pairs or last first they would count.
    weights = [2.0**53] + [1.0] * 1000 + [0.0]
    assert Fixed(LARGEST).sample_weights(weights) == 0


def test_scores_are_weighed_as_the_definition_says() -> None:
    scores = np.array([0.5, -1.25, 3.0, 2.875, -np.inf], dtype=np.float32)
    for temperature in (0.5, 1.0, 3.0):
        weights = [math.exp((float(score) - 3.0) / temperature) for score in scores]
        sampler, reference = Sampler(7, temperature), Sampler(7)
        drawn = [sampler.sample(scores) for _ in range(300)]
        assert drawn == [reference.sample_weights(weights) for _ in range(300)]
        assert 4 not in drawn


def test_frequencies_follow_the_softmax() -> None:
    sampler = Sampler(1)
    counts = np.bincount([sampler.sample([0.0, math.log(2), math.log(5)]) for _ in range(20_000)]) / 20_000
    # One standard deviation is at most sqrt(5/8 * 3/8 / 20,000) = 0.0035.
    np.testing.assert_allclose(counts, [1 / 8, 2 / 8, 5 / 8], atol=0.014)


@pytest.mark.parametrize("highest", [1e4, -1e4, 3e38])
def test_scores_may_be_large(highest: float) -> None:
    scores = np.array([highest, -np.inf, highest], dtype=np.float32)
    sampler = Sampler(7)
    assert {sampler.sample(scores) for _ in range(50)} == {0, 2}


def test_the_numbers_in_the_contracts_page() -> None:
    sampler = Sampler(7)
    assert [sampler.next_uint64() for _ in range(3)] == [
        0x63CBE1E459320DD7,
        0x044C3CD7F43C661C,
        0xE6984080BAB12A02,
    ]
    sampler = Sampler(7)
    assert [sampler.uniform() for _ in range(3)] == [
        0.3898297483912715,
        0.01678829452815611,
        0.9007606806068834,
    ]
    sampler = Sampler(7)
    assert [sampler.sample_weights([1, 2, 3, 4]) for _ in range(8)] == [2, 0, 3, 2, 2, 1, 2, 2]


def test_temperature_zero_takes_the_first_maximum_and_draws_nothing() -> None:
    sampler = Sampler(5, temperature=0)
    assert sampler.sample([1.0, 4.0, 4.0, -np.inf]) == 1
    assert sampler.state == 5


def test_a_tiny_temperature_is_no_error() -> None:
    assert Sampler(0, temperature=1e-310).sample([0.0, 7.0, 1.0]) == 1


def test_the_state_can_be_kept_and_restored() -> None:
    sampler = Sampler(2**64 - 1)
    for _ in range(5):
        sampler.uniform()
    saved = np.uint64(sampler.state)
    following = [sampler.uniform() for _ in range(5)]
    other = Sampler()
    other.state = int(saved)
    assert [other.uniform() for _ in range(5)] == following


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_outside_64_bits_are_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="unsigned 64") as caught:
        Sampler(seed)
    assert caught.value.code == "seed-invalid"


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf])
def test_impossible_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(UsageError) as caught:
        Sampler(0, temperature)
    assert caught.value.code == "temperature-invalid"


@pytest.mark.parametrize(
    "weights", [[], [0, 0], [1, -1], [1, math.nan], [1, math.inf], [[1, 2]], [1e308, 1e308], [2.0**-1022, 0]]
)
def test_impossible_weights_are_refused(weights: Any) -> None:
    sampler = Sampler(3)
    with pytest.raises(InputError) as caught:
        sampler.sample_weights(weights)
    assert caught.value.code == "weights-invalid"
    assert sampler.state == 3


@pytest.mark.parametrize("scores", [[], [1, math.nan], [math.inf, 0], [-math.inf, -math.inf], [[1, 2]]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_impossible_scores_are_refused(scores: Any, temperature: float) -> None:
    sampler = Sampler(3, temperature)
    with pytest.raises(InputError) as caught:
        sampler.sample(scores)
    assert caught.value.code == "scores-invalid"
    assert sampler.state == 3
