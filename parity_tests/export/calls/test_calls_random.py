"""What draws random numbers is recorded, to say where, and draws what it would have drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_export.calls import random
from rnnx_export.calls.kinds import RANDOM
from rnnx_export.calls.tracer import CallTracer
from support.chunks import Calling, calls_of

CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "rand": lambda x: torch.rand(x.shape),
    "randn": lambda x: torch.randn(x.shape),
    "randint": lambda x: torch.randint(0, 9, x.shape),
    "randperm": lambda x: torch.randperm(x.shape[0]),
    "rand_like": lambda x: torch.rand_like(x),
    "randn_like": lambda x: torch.randn_like(x),
    "randint_like": lambda x: torch.randint_like(x, 9),
    "normal": lambda x: torch.normal(x, 1.0),
    "bernoulli": lambda x: torch.bernoulli(x),
    "multinomial": lambda x: torch.multinomial(x, 2),
    "poisson": lambda x: torch.poisson(x),
    "normal_": lambda x: x.clone().normal_(),
    "uniform_": lambda x: x.clone().uniform_(),
    "bernoulli_": lambda x: x.clone().bernoulli_(),
    "exponential_": lambda x: x.clone().exponential_(),
    "random_": lambda x: x.clone().random_(),
    "dropout": lambda x: F.dropout(x, training=True),
    "alpha_dropout": lambda x: F.alpha_dropout(x, training=True),
    "feature_dropout": lambda x: torch.feature_dropout(x.unsqueeze(-1), 0.5, True),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x),
    "rrelu": lambda x: F.rrelu(x - 0.5, training=True),
}


def test_every_call_of_the_module_has_a_row() -> None:
    assert set(CALLS) == set(RANDOM) == calls_of(random)


@pytest.mark.parametrize("call", CALLS)
def test_a_draw_is_recorded_with_its_place_and_gives_the_same_numbers(call: str) -> None:
    x = torch.rand(40, 5)
    module = Calling(CALLS[call])
    torch.manual_seed(3)
    with CallTracer(module) as tracer:
        got = module(x)
    assert "random" in [one.kind for one in tracer.recordings]
    assert all(one.where.startswith("test_calls_random.py:") for one in tracer.recordings)
    torch.manual_seed(3)
    torch.testing.assert_close(got, CALLS[call](x), rtol=0, atol=0)
