"""What needs all steps at once is recorded with the axes that it goes over, and computed as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnnx_export.calls import non_causal
from rnnx_export.calls.kinds import LOOKS_EVERYWHERE
from rnnx_export.calls.tracer import CallTracer
from support.chunks import FEW, Calling, calls_of, some_of

# Over one axis: (x, axis) -> what it gives.
ALONG: dict[str, Callable[[Tensor, int], Any]] = {
    "mean": lambda x, axis: torch.mean(x, axis),
    "sum": lambda x, axis: x.sum(dim=axis, keepdim=True),
    "amax": lambda x, axis: torch.amax(x, axis),
    "max": lambda x, axis: x.max(axis).values,
    "min": lambda x, axis: torch.min(x, dim=axis)[0],
    "std": lambda x, axis: x.std(axis, correction=0),
    "var": lambda x, axis: torch.var(x, axis, correction=0),
    "softmax": lambda x, axis: F.softmax(x, dim=axis),
    "flip": lambda x, axis: x.flip([axis]),
}
# Over an axis that the call has by itself.
FIXED: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 1), 2),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 1), 2),
    "scaled_dot_product_attention": (lambda x: F.scaled_dot_product_attention(x, x * 0.5, x + 1), 1),
}
# Not called by that name: layers of both directions are recorded so.
KINDS_ALONE = {"bidirectional"}


def recorded(function: Callable[..., Any], x: Tensor) -> tuple[Any, list[tuple[str, dict[int, int]]]]:
    """Return what a function of x gives under a tracer, and the kinds and axes of what was recorded."""
    module = Calling(function)
    with CallTracer(module) as tracer:
        result = module(x)
    return result, [(one.kind, one.axes) for one in tracer.recordings]


def test_every_call_of_the_module_has_a_row() -> None:
    assert {*ALONG, *FIXED} | KINDS_ALONE == calls_of(non_causal) == set(LOOKS_EVERYWHERE)


@pytest.mark.parametrize("call", ALONG)
@FEW
@given(st.data())
def test_the_axis_is_recorded_and_the_values_are_pytorchs(call: str, data: st.DataObject) -> None:
    some = some_of(data)
    axis, sizes = some(-3, 2), [some(1, 4) for _ in range(3)]
    x = torch.randn(sizes)
    got, seen = recorded(lambda value: ALONG[call](value, axis), x)
    assert seen == [(call, {axis % 3: 0})]
    torch.testing.assert_close(got, ALONG[call](x, axis))


@pytest.mark.parametrize("call", ALONG)
@FEW
@given(st.data())
def test_over_features_a_whole_sequence_equals_any_chunking(call: str, data: st.DataObject) -> None:
    some = some_of(data)
    x = torch.randn(some(1, 3), some(1, 6), some(1, 4))
    steps = some(1, x.shape[1])
    parts = [recorded(lambda value: ALONG[call](value, -1), part)[0] for part in x.split(steps, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), ALONG[call](x, -1))


@pytest.mark.parametrize("call", FIXED)
@FEW
@given(st.data())
def test_calls_with_an_axis_of_their_own_are_recorded_with_it(call: str, data: st.DataObject) -> None:
    function, axis = FIXED[call]
    some = some_of(data)
    x = torch.randn(some(1, 3), some(2, 4), some(2, 4))
    got, seen = recorded(function, x)
    assert (call, {axis: 0}) in seen
    torch.testing.assert_close(got, function(x))


def test_a_call_that_names_no_axis_goes_over_all_of_them() -> None:
    x = torch.randn(2, 3, 4)
    for function in (torch.mean, torch.sum, lambda value: value.max()):
        got, seen = recorded(function, x)
        assert [axes for _, axes in seen] == [{0: 0, 1: 0, 2: 0}]
        torch.testing.assert_close(got, function(x))
    _, seen = recorded(lambda value: value.mean((0, -1)), x)
    assert seen == [("mean", {0: 0, 2: 0})]


@pytest.mark.parametrize("with_mask", [False, True])
def test_attention_without_heads_is_computed_with_one(with_mask: bool) -> None:
    x, mask = torch.randn(2, 4, 3), torch.ones(4, 4, dtype=torch.bool).tril()

    def function(value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(value, value, value, attn_mask=mask if with_mask else None)

    torch.testing.assert_close(recorded(function, x)[0], function(x))
