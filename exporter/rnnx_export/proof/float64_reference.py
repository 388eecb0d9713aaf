"""The network in float64, which errors are measured against, and the same with rounding of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rnnx_export.capture.recurrent_ops import IMPLEMENTATIONS
from rnnx_export.proof.module_reference import Arrays, ModuleReference

# Functions that engines approximate; the others of a network are sums and products, whose rounding PyTorch
# has as well. The first are computed through a sigmoid or an exponential near 1, exact to the rounding of 1
# and not of their value: ONNX Runtime's sigmoid of -10 is off by 3e-8, a thousandth of it. The second are
# such a function times their argument.
_NEAR_ONE = ("sigmoid", "elu", "celu", "selu", "expm1", "log1p", "softplus", "log_sigmoid_forward")
_TIMES_ARGUMENT = ("silu", "gelu", "mish", "glu")
_TO_THEIR_VALUE = ("tanh", "exp", "log", "sin", "cos", "erf", "pow", "rsqrt", "_softmax", "_log_softmax")
_LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_COARSE = {*_NEAR_ONE, *_TIMES_ARGUMENT, *_TO_THEIR_VALUE}
_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}


def open_reference64(
    reference: ModuleReference, inputs: Mapping[str, Any], sizes: Mapping[str, int]
) -> ModuleReference64 | None:
    """Return a reference in float64, or None where the network has it already or does not run in it.

    Args:
        reference: the network in its own precision.
        inputs: as `StepReference.steps` takes them; one step of them is tried.
        sizes: of batch and the free dimensions.
    """
    specs = [state.spec for state in reference.plan.states]
    specs += [output.spec for output in reference.plan.outputs]
    floats = [spec.dtype for spec in specs if spec.dtype.is_floating_point]
    if torch.float64 in floats or not floats:
        return None
    try:
        reference64 = ModuleReference64(reference, max(torch.finfo(dtype).eps for dtype in floats))
        next(iter(reference64.steps(inputs, reference.start(sizes))))
    except Exception:  # not every module runs in float64, and it may say so in any way
        return None
    return reference64


class ModuleReference64(ModuleReference):
    """A module in float64 throughout, whatever precision it asks for on its way.

    Args:
        reference: the module in its own precision.
        epsilon: of that precision.
        seed: of the rounding; None for none.
    """

    def __init__(self, reference: ModuleReference, epsilon: float, seed: int | None = None) -> None:
        self._wide = type(reference)(reference.plan, torch.float64)
        super().__init__(reference.plan, torch.float64)
        self.resumes = reference.resumes
        self._epsilon = epsilon
        self._mode = _Float64(epsilon, seed)

    def rough(self, seed: int) -> ModuleReference64:
        """Return the same network with functions as coarse as an engine's."""
        return ModuleReference64(self._wide, self._epsilon, seed)

    def steps(self, inputs: Arrays, states: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs and next states after each step, as `rnnx.parity.reference.Reference` has it."""
        rows = iter(self._wide.steps(inputs, states))
        while True:
            with self._mode:
                row = next(rows, None)
            if row is None:
                return
            yield row


class _Float64(TorchDispatchMode):
    """Makes each conversion to a shorter float one to float64, and rounds functions if it has a seed.

    A cast in the middle of a network would otherwise give the reference the errors that it should measure.
    """

    def __init__(self, epsilon: float, seed: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._epsilon = epsilon
        self._random = None if seed is None else torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operator."""
        kwargs = dict(kwargs or {})
        asked = kwargs.get("dtype")
        kwargs |= {"dtype": _WIDE.get(asked, asked)} if asked is not None else {}
        if self._random is None:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__.rstrip("_")
        if func.namespace == "rnnx":  # a layer: what it does is rounded too
            with self:
                return IMPLEMENTATIONS[name](*args, **kwargs)  # type: ignore[operator]
        if name in _LAYERS:
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        if name in _COARSE:
            parts = result if isinstance(result, tuple) else (result,)
            for value in parts:
                if isinstance(value, Tensor) and value.dtype == torch.float64:
                    self._round(name, value, args[0])
        return result

    def _round(self, name: str, value: Tensor, argument: Tensor) -> None:
        """Put up to half an epsilon of noise on the result of a function, in place."""
        size = torch.ones_like(value) if name in _NEAR_ONE else value.abs()
        if name in _TIMES_ARGUMENT:
            size = argument.abs().amax() if name == "glu" else argument.abs()
        noise = torch.empty(value.shape, dtype=torch.float64).uniform_(-1, 1, generator=self._random)
        value.add_(noise * size * (self._epsilon / 2))
