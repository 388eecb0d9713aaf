"""A call that has no form in ONNX is computed from calls that have one, to the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx_export.calls import decompositions
from rnnx_export.calls.tracer import CallTracer
from support.chunks import FEW, Some, calls_of, normal, some_of

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def sizes(some: Some) -> list[int]:
    return [some(1, 3) for _ in range(some(1, 3))]


def two(some: Some) -> Arguments:
    """The second broadcast or not."""
    shape = sizes(some)
    return (normal(*shape), normal(*(shape if some(0, 1) else shape[-1:]))), {}


def distances(some: Some) -> Arguments:
    batch, width = some(1, 3), some(1, 4)
    p = (1.0, 2.0, 3.0, float("inf"))[some(0, 3)]
    return (normal(batch, some(1, 4), width), normal(batch, some(1, 4), width)), {"p": p}


def smallest(some: Some) -> Arguments:
    shape = sizes(some)
    axis = some(-len(shape), len(shape) - 1)
    return (normal(*shape), some(1, shape[axis]), axis), {"keepdim": bool(some(0, 1))}


def middle(some: Some) -> Arguments:
    shape = sizes(some)
    return (normal(*shape), some(-len(shape), len(shape) - 1)), {"keepdim": bool(some(0, 1))}


def places(some: Some) -> Arguments:
    """Values that stand in the line too; one line, or a line for each row."""
    rows, count = some(1, 3), some(1, 5)
    line = torch.randint(0, 6, (rows, count) if some(0, 1) else (count,)).sort().values
    way = ({}, {"right": True}, {"side": "right"}, {"side": "left"}, {"out_int32": True})[some(0, 4)]
    return (line, torch.randint(-1, 7, (rows, some(1, 4)))), way


def members(some: Some) -> Arguments:
    return (torch.randint(0, 5, sizes(some)), torch.randint(0, 5, sizes(some))), {"invert": bool(some(0, 1))}


def along(some: Some) -> Arguments:
    """The two have the same sizes beside that axis, or the indices one entry."""
    shape = [some(2, 3) for _ in range(3)]
    axis = some(-3, 2)
    picked = [1 if some(0, 1) else size for size in shape]
    picked[axis] = some(1, 4)
    return (normal(*shape), torch.randint(0, shape[axis], picked), axis), {}


def bags(some: Some) -> Arguments:
    mode = ("mean", "sum", "max")[some(0, 2)]
    ids, weight = torch.randint(0, 5, (some(1, 3), some(1, 4))), normal(5, some(1, 3))
    weights = {"per_sample_weights": normal(*ids.shape)} if mode == "sum" and some(0, 1) else {}
    return (ids, weight), {"mode": mode, **weights}


def frequencies(some: Some) -> Arguments:
    return (some(1, 9),), {"d": (1.0, 0.5)[some(0, 1)]}


def levels(some: Some) -> Arguments:
    return (normal(*sizes(some)).float() * 3, 0.1 * some(1, 9), some(-3, 3), -8, 7), {}


def levels_by_channel(some: Some) -> Arguments:
    shape = sizes(some)
    axis = some(0, len(shape) - 1)
    scale, zero = 0.1 + torch.rand(shape[axis]), torch.randint(-3, 3, (shape[axis],), dtype=torch.int32)
    return (normal(*shape).float() * 3, scale, zero, axis, -8, 7), {}


def matrix(some: Some) -> Tensor:
    """Square matrices, far from singular, with rows that have to be swapped."""
    size, batch = some(1, 5), [some(1, 3)] if some(0, 1) else []
    return normal(*batch, size, size) + 4 * torch.eye(size, dtype=torch.float64)[torch.randperm(size)]


def square(some: Some) -> Arguments:
    return (matrix(some),), {}


def positive(some: Some) -> Tensor:
    a = matrix(some)
    return a @ a.mT


def definite(some: Some) -> Arguments:
    return (positive(some),), {}


def factorised(some: Some) -> Arguments:
    return (positive(some),), {"upper": bool(some(0, 1))}


def equations(some: Some) -> Arguments:
    """With one right side or several, from the left or from the right."""
    a, count = matrix(some), some(1, 3)
    if some(0, 1):
        return (a, normal(*a.shape[:-1])), {}
    if some(0, 1):
        return (a, normal(*a.shape[:-2], count, a.shape[-1])), {"left": False}
    return (a, normal(*a.shape[:-1], count)), {}


def triangular(some: Some) -> Arguments:
    a, left = positive(some), bool(some(0, 1))
    count = some(1, 3)
    b = normal(*a.shape[:-1], count) if left else normal(*a.shape[:-2], count, a.shape[-1])
    return (a, b), {"upper": bool(some(0, 1)), "left": left}


def factor(some: Some) -> Arguments:
    a, upper = positive(some), bool(some(0, 1))
    return (normal(*a.shape[:-1], some(1, 3)), torch.linalg.cholesky(a, upper=upper)), {"upper": upper}


def slices(some: Some) -> Arguments:
    shape = sizes(some)
    return (normal(*shape), some(-len(shape), len(shape) - 1)), {}


def cholesky(a: Tensor, upper: bool = False) -> Tensor:
    """What the call was before PyTorch took it out."""
    return torch.linalg.cholesky(a, upper=upper)


# By the name that the call has where it is intercepted: PyTorch's function, and arguments of random sizes.
ROWS: dict[str, tuple[Callable[..., Any], Callable[[Some], Arguments]]] = {
    "hypot": (torch.hypot, two),
    "copysign": (torch.copysign, two),
    "cdist": (torch.cdist, distances),
    "kthvalue": (torch.kthvalue, smallest),
    "median": (torch.median, middle),
    "searchsorted": (torch.searchsorted, places),
    "isin": (torch.isin, members),
    "take_along_dim": (torch.take_along_dim, along),
    "embedding_bag": (F.embedding_bag, bags),
    "fft_fftfreq": (torch.fft.fftfreq, frequencies),
    "fake_quantize_per_tensor_affine": (torch.fake_quantize_per_tensor_affine, levels),
    "fake_quantize_per_channel_affine": (torch.fake_quantize_per_channel_affine, levels_by_channel),
    "linalg_solve": (torch.linalg.solve, equations),
    "cholesky_solve": (torch.cholesky_solve, factor),
    "linalg_solve_triangular": (torch.linalg.solve_triangular, triangular),
    "logdet": (torch.logdet, definite),
    "linalg_inv": (torch.linalg.inv, square),
    "inverse": (torch.inverse, square),
    "linalg_det": (torch.linalg.det, square),
    "det": (torch.det, square),
    "linalg_slogdet": (torch.linalg.slogdet, square),
    "slogdet": (torch.slogdet, square),
    "linalg_cholesky": (torch.linalg.cholesky, factorised),
    "cholesky": (cholesky, factorised),
    "unbind": (torch.unbind, slices),
    "rrelu": (F.rrelu, lambda some: ((normal(*sizes(some)),), {"lower": 0.1, "upper": 0.3})),
}


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("PyTorch's own call was made")


def test_every_call_of_the_module_has_a_row() -> None:
    assert set(ROWS) == calls_of(decompositions)


@pytest.mark.parametrize("call", ROWS)
@FEW
@given(st.data())
def test_the_values_are_pytorchs(call: str, data: st.DataObject) -> None:
    function, draw = ROWS[call]
    some = some_of(data)
    torch.manual_seed(some(0, 1000))
    arguments, options = draw(some)
    assert function.__name__ == call
    with CallTracer(nn.Identity()) as tracer:
        got = decompositions.HANDLERS[call](tracer, refuse, arguments, options)
    close = 1e-6 if arguments and getattr(arguments[0], "dtype", None) == torch.float32 else 1e-9
    torch.testing.assert_close(got, function(*arguments, **options), rtol=close, atol=close, equal_nan=True)


@pytest.mark.parametrize("function", [torch.hypot, torch.copysign])
def test_numbers_at_the_ends_of_the_range_are_pytorchs(function: Callable[..., Any]) -> None:
    ends = torch.tensor([0.0, -0.0, 1e200, -1e-200, float("inf"), -float("inf"), 1.0], dtype=torch.float64)
    x, y = torch.meshgrid(ends, ends, indexing="ij")
    with CallTracer(nn.Identity()):
        got = function(x, y)
    expected = function(x, y)
    torch.testing.assert_close(got, expected)
    assert torch.equal(torch.signbit(got), torch.signbit(expected))


A, B = torch.eye(2), torch.ones(2, 3)
BEYOND: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("unbind", (torch.ones(65, 2),), {}),
    ("copysign", (A, 2.0), {}),
    ("kthvalue", (torch.tensor(1.0), 1), {}),
    ("median", (A,), {}),
    ("median", (torch.tensor(1.0), 0), {}),
    ("searchsorted", (torch.arange(3), 2), {}),
    ("searchsorted", (torch.arange(3), torch.arange(2)), {"sorter": torch.arange(3)}),
    ("isin", (A, 1.0), {}),
    ("take_along_dim", (A, torch.ones(2, dtype=torch.int64)), {}),
    ("take_along_dim", (torch.ones(1, 2), torch.ones(3, 1, dtype=torch.int64), 1), {}),
    ("embedding_bag", (torch.ones(4, dtype=torch.int64), B, torch.tensor([0, 2])), {}),
    ("embedding_bag", (torch.ones(2, 2, dtype=torch.int64), B), {"padding_idx": 0}),
    ("linalg_inv", (torch.eye(33),), {}),
    ("linalg_det", (torch.eye(33),), {}),
    ("linalg_solve", (torch.eye(33), torch.ones(33, 1)), {}),
    ("linalg_solve", (A, torch.ones(2)), {"left": False}),
    ("linalg_cholesky", (torch.eye(33),), {}),
    ("cholesky_solve", (torch.ones(33, 1), torch.eye(33)), {}),
    ("linalg_solve_triangular", (A, A), {"upper": True, "unitriangular": True}),
    ("hypot", (A,), {}),
    ("hypot", (A, A), {"out": A}),
]


@pytest.mark.parametrize(
    ("call", "arguments", "options"), BEYOND, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_a_rule_does_not_take_goes_through(
    call: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Too large, of another form than the rule's, or with an option it does not know."""
    with CallTracer(nn.Identity()) as tracer:
        assert decompositions.HANDLERS[call](tracer, refuse, arguments, options) is NotImplemented


def test_a_slope_that_is_drawn_is_recorded_as_random() -> None:
    x = torch.randn(3, 4)
    with CallTracer(nn.Identity()) as tracer:
        torch.manual_seed(1)
        got = F.rrelu(x, training=True)
    assert [one.kind for one in tracer.recordings] == ["random"]
    torch.manual_seed(1)
    torch.testing.assert_close(got, F.rrelu(x, training=True))


def test_a_singular_matrix_has_the_determinant_0() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 1.0, 0.0]])
    with CallTracer(nn.Identity()):
        assert torch.linalg.det(a) == 0
        assert torch.slogdet(a).logabsdet == -float("inf")
