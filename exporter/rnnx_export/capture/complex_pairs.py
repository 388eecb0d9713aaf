"""Complex numbers as pairs of real ones, since ONNX has none.

A captured program that computes with complex numbers is run again, operator by operator, with real and
imaginary part as two tensors. What is captured of that run has real numbers only.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from rnnx_export.capture.fourier import product_for

aten = torch.ops.aten
_REAL = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}


class ComplexError(NotImplementedError):
    """An operation on complex numbers that has no form as one on pairs."""


class Pair(NamedTuple):
    """A complex tensor: real and imaginary part, of one shape; the latter of a real is the number 0."""

    re: Any
    im: Any


def has_complex(exported: torch.export.ExportedProgram) -> bool:
    """Whether some value of a program is complex."""
    values = (node.meta.get("val") for node in exported.graph.nodes)
    return any(isinstance(value, Tensor) and value.is_complex() for value in values)


class RealProgram(nn.Module):
    """A captured program of real inputs and outputs, decomposed before, in real arithmetic throughout.

    When it is run, it raises NotImplementedError for an operator that has no rule here.
    """

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.program = exported.module()

    def forward(self, *flat: Tensor) -> Any:
        """Compute what the program does."""
        with fx.traceback.preserve_node_meta():
            return _Pairs(self.program).run(*flat)


class _Pairs(fx.Interpreter):
    """Runs a graph with each complex value as a pair."""

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        if isinstance(value, Tensor) and value.is_complex():
            return _from_last_axis(torch.view_as_real(value.resolve_conj()))
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        dtype = kwargs.get("dtype")
        if dtype in _REAL:
            kwargs = {**kwargs, "dtype": _REAL[dtype]}
        leaves = pytree.tree_leaves((args, kwargs), is_leaf=_is_pair)
        if target not in (*_MAKE, *_TRANSFORMS) and not any(
            isinstance(leaf, Pair | complex) for leaf in leaves
        ):
            value = super().call_function(target, args, kwargs)
            return Pair(value, torch.zeros_like(value)) if dtype in _REAL else value
        if target in _TRANSFORMS:
            product = product_for(target, args, kwargs)
            if product is not None:
                result = product()
                return result if isinstance(result, Tensor) else Pair(*result)
            result = target(*pytree.tree_map(_joined, args, is_leaf=_is_pair), **kwargs)
            return _from_last_axis(torch.view_as_real(result)) if result.is_complex() else result
        if target in _EACH:
            return Pair(target(*_parts(args, 0), **kwargs), target(*_parts(args, 1), **kwargs))
        if target in _SPLIT:
            both = zip(target(*_parts(args, 0), **kwargs), target(*_parts(args, 1), **kwargs), strict=True)
            return [Pair(re, im) for re, im in both]
        if target in _PRODUCTS:
            return _product(target, _pair(args[0]), _pair(args[1]))
        rule = _MAKE.get(target) or _RULES.get(target)
        if rule is None:
            name = target.name() if isinstance(target, torch._ops.OpOverload) else str(target)
            raise ComplexError(f"{name.replace('::', '.')} of complex numbers")
        return rule(*(_pair(value) if target in _OF_TWO else value for value in args), **kwargs)


def _is_pair(value: Any) -> bool:
    return isinstance(value, Pair)


def _pair(value: Any) -> Pair:
    if isinstance(value, Pair):
        return value
    return Pair(value.real, value.imag) if isinstance(value, complex) else Pair(value, 0)


def _parts(args: Any, place: int) -> Any:
    """Return arguments with the real or the imaginary parts of what is floating."""

    def part(value: Any) -> Any:
        if isinstance(value, Pair):
            return value[place]
        real = isinstance(value, Tensor) and value.is_floating_point()
        return torch.zeros_like(value) if real and place else value

    return pytree.tree_map(part, args, is_leaf=_is_pair)


def _joined(value: Any) -> Any:
    return torch.view_as_complex(torch.stack(value, -1)) if isinstance(value, Pair) else value


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Tensor) and value == 0


def _alike(re: Any, im: Any) -> Pair:
    """Return a pair of two parts, brought to one shape."""
    im = torch.zeros_like(re) if _is_zero(im) else im
    if re.shape == im.shape:
        return Pair(re, im)
    shape = torch.broadcast_shapes(re.shape, im.shape)
    return Pair(re.expand(shape), im.expand(shape))


def _product(target: Callable[[Any, Any], Any], a: Pair, b: Pair) -> Pair:
    """mul, matmul and all that multiplies alike: (a + ib)(c + id) = (ac - bd) + i(ad + bc)."""
    if _is_zero(a.im) or _is_zero(b.im):
        re = target(a.re, b.re)
        return _alike(re, target(a.re, b.im) if _is_zero(a.im) else target(a.im, b.re))
    return Pair(target(a.re, b.re) - target(a.im, b.im), target(a.re, b.im) + target(a.im, b.re))


def _einsum(equation: str, parts: list[Any], **_: Any) -> Pair:
    if len(parts) == 1:
        return Pair(*(torch.einsum(equation, *_parts(parts, place)) for place in (0, 1)))
    if len(parts) > 2:
        raise NotImplementedError("aten.einsum of three complex numbers; write it as two")
    return _product(lambda a, b: torch.einsum(equation, a, b), _pair(parts[0]), _pair(parts[1]))


def _linear(x: Any, weight: Any, bias: Any = None) -> Pair:
    product = _product(aten.linear.default, _pair(x), _pair(weight))
    return product if bias is None else _part_by_part(operator.add, product, _pair(bias))


def _part_by_part(target: Callable[[Any, Any], Any], a: Pair, b: Pair, *, alpha: Any = 1) -> Pair:
    """add and sub."""
    b = b if alpha == 1 else _product(aten.mul.Tensor, b, _pair(alpha))
    return _alike(target(a.re, b.re), target(a.im, b.im))


def _quotient(a: Pair, b: Pair) -> Pair:
    if _is_zero(b.im):
        return _alike(a.re / b.re, a.im / b.re)
    size = b.re * b.re + b.im * b.im
    over = _product(aten.mul.Tensor, a, Pair(b.re, -b.im))
    return Pair(over.re / size, over.im / size)


def _exp(x: Pair) -> Pair:
    size = torch.exp(x.re)
    return Pair(size * torch.cos(x.im), size * torch.sin(x.im))


def _power(x: Pair, exponent: Any) -> Pair:
    if not isinstance(exponent, int) or exponent < 1:
        raise ComplexError("aten.pow of complex numbers, but for whole exponents above 0")
    result = x
    for _ in range(exponent - 1):
        result = _product(aten.mul.Tensor, result, x)
    return result


def _from_last_axis(x: Tensor) -> Pair:
    return Pair(x.select(-1, 0), x.select(-1, 1))


def _polar(size: Tensor, angle: Tensor) -> Pair:
    return _alike(size * torch.cos(angle), size * torch.sin(angle))


def _copied(x: Pair, *, dtype: Any = None, **_: Any) -> Any:
    return x if dtype is None else Pair(x.re.to(dtype), x.im.to(dtype))


# These make complex values of real ones.
_MAKE: dict[Any, Callable[..., Any]] = {
    aten.view_as_complex.default: _from_last_axis,
    aten.complex.default: lambda re, im: _alike(re, im),
    aten.polar.default: _polar,
}
# These stay as they are: the converter knows them, with complex numbers as pairs along a last axis.
_TRANSFORMS = {
    aten._fft_r2c.default, aten._fft_c2r.default, aten._fft_c2c.default, aten.fft_rfft.default,
    aten.fft_irfft.default, aten.fft_fft.default, aten.fft_ifft.default, aten.stft.default, aten.stft.center,
}  # fmt: skip
# These treat both parts alike.
_EACH = {
    aten.alias.default, aten.cat.default, aten.clone.default, aten.copy.default, aten.cumsum.default,
    aten.detach.default, aten.diff.default, aten.expand.default, aten.flip.default, aten.gather.default,
    aten.index.Tensor, aten.index_select.default, aten.lift_fresh_copy.default, aten.mean.dim,
    aten.neg.default, aten.permute.default, aten.repeat.default, aten.reshape.default, aten.select.int,
    aten.select_scatter.default, aten.slice.Tensor, aten.slice_scatter.default, aten.squeeze.dim,
    aten.squeeze.dims, aten.stack.default, aten.sum.default, aten.sum.dim_IntList, aten.t.default,
    aten.transpose.int, aten.unsqueeze.default, aten.view.default, aten._unsafe_view.default,
    aten.where.self, aten.zeros_like.default,
}  # fmt: skip
_SPLIT = {aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int}
_PRODUCTS = {aten.mul.Tensor, aten.mm.default, aten.bmm.default, aten.matmul.default}
_OF_TWO = {aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor}
_RULES: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: functools.partial(_part_by_part, operator.add),
    aten.sub.Tensor: functools.partial(_part_by_part, operator.sub),
    aten.div.Tensor: _quotient,
    aten.reciprocal.default: lambda x: _quotient(Pair(1.0, 0), x),
    aten.einsum.default: _einsum,
    aten.linear.default: _linear,
    aten.exp.default: _exp,
    aten.pow.Tensor_Scalar: _power,
    aten.abs.default: lambda x: torch.sqrt(x.re * x.re + x.im * x.im),
    aten.angle.default: lambda x: torch.atan2(x.im, x.re),
    aten._conj.default: lambda x: Pair(x.re, -x.im),
    aten._conj_physical.default: lambda x: Pair(x.re, -x.im),
    aten.view_as_real.default: lambda x: torch.stack([x.re, x.im], -1),
    aten._to_copy.default: _copied,
}
