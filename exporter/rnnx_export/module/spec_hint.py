"""What a parameter that was given no spec may be: a state, if forward gives back what it took for it."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnnx.spelling import spelled
from rnnx_export.diagnostics import quiet
from rnnx_export.module.return_names import return_names, same_name
from rnnx_export.module.slots import Slot
from rnnx_export.module.spec import parse, parse_leaves
from rnnx_export.module.structure import every_part, flatten, replace, tensors

_MOST = 40  # calls that are tried
_SIZES = {"batch": 3, "time": 5}


def spec_hint(
    module: nn.Module, method: str, parameter: str, inputs: Mapping[str, Any], others: Mapping[str, Any]
) -> str:
    """Return how the caller says what a parameter is that was given no spec.

    Forward is called with zeros of the sizes that the module's layers have; what it takes and gives back, in
    the same shapes beside something else, may well be a state.

    Args:
        module, method: what is called.
        parameter: that has no spec.
        inputs: specs by parameter, nested.
        others: values of further parameters.
    """
    taken: list[str] = []
    for specs, called in _tried(module, method, parameter, inputs, others):
        if called:
            return (
                "it comes back in the result, so that it may be a state: "
                f"{_as_argument('state', parameter, specs)}"
            )
        taken = taken or specs
    if not taken:
        taken = ["float32[batch, 8]"]
    return (
        f"add it to inputs, state or constants: {_as_argument('inputs', parameter, taken)} if each step "
        f"brings a new one, {_as_argument('state', parameter, taken)} if forward gives its next value"
    )


def _as_argument(kind: str, parameter: str, specs: list[str]) -> str:
    return spelled(kind, {parameter: specs[0] if len(specs) == 1 else tuple(specs)})


def _tried(
    module: nn.Module, method: str, parameter: str, inputs: Mapping[str, Any], others: Mapping[str, Any]
) -> Iterator[tuple[list[str], bool]]:
    """Yield specs that forward takes for a parameter, and whether it gives back what is called like it."""
    if any(p.default is p.empty for p in _open(module, method, {parameter, *inputs, *others})):
        return
    generator = torch.Generator().manual_seed(0)
    try:
        values = {name: _drawn(tree, name, generator) for name, tree in inputs.items()}
    except Exception:  # specs that make no sense are told elsewhere
        return
    for specs in itertools.islice(_candidates(module), _MOST):
        called = _comes_back(module, method, {**values, **others}, parameter, specs)
        if called is not None:
            yield specs, called


def _open(module: nn.Module, method: str, known: set[str]) -> list[inspect.Parameter]:
    """Return the parameters that nobody gives a value."""
    parameters = inspect.signature(getattr(module, method)).parameters
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for name, p in parameters.items() if name not in known and p.kind not in rest]


def _drawn(tree: Any, name: str, generator: torch.Generator) -> Any:
    leaves = {path: leaf for path, leaf in flatten(tree) if not isinstance(leaf, Slot)}
    sizes = _Sizes(_SIZES)
    drawn = {path: spec.random(sizes, generator) for path, spec in parse_leaves(leaves, name).items() if spec}
    return replace(tree, drawn)


class _Sizes(dict[str, int]):
    """A size for any name."""

    def __missing__(self, name: str) -> int:
        return 4


def _candidates(module: nn.Module) -> Iterator[list[str]]:
    """Yield specs of a state's tensors, those of recurrent layers first."""
    for layer in (each for each in module.modules() if isinstance(each, nn.RNNBase)):
        rows = layer.num_layers * (2 if layer.bidirectional else 1)
        h = f"float32[{rows}, batch, {layer.proj_size or layer.hidden_size}]"
        yield [h, f"float32[{rows}, batch, {layer.hidden_size}]"] if layer.mode == "LSTM" else [h]
    widths = [each.hidden_size for each in module.modules() if isinstance(each, nn.RNNCellBase)]
    widths += [size for value in module.state_dict().values() for size in _shape(value)]
    for width in dict.fromkeys(size for size in widths if size > 1):
        yield [f"float32[batch, {width}]"]
        yield [f"float32[batch, {width}]"] * 2


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _comes_back(
    module: nn.Module, method: str, values: Mapping[str, Any], parameter: str, specs: list[str]
) -> bool | None:
    """Return whether a part of the result is the parameter by shape and name, None if forward refuses it."""
    zeros = [torch.zeros(parse(spec, parameter).sizes(_SIZES)) for spec in specs]
    given = zeros[0] if len(zeros) == 1 else tuple(zeros)
    try:
        with quiet(), torch.no_grad():
            copied = copy.deepcopy(module)
            copied.eval()
            result = getattr(copied, method)(**values, **{parameter: given})
    except Exception:  # forward refuses what it does not take in any way it likes
        return None
    called = return_names(getattr(type(module), method), result)
    parts = [(path, part) for path, part in every_part(result) if path]
    names = {path: called.get(path, path[-1] if not path[-1].isdigit() else None) for path, _ in parts}
    shapes = [tuple(value.shape) for value in zeros]
    fitting = [path for path, part in parts if _shapes(part) == shapes]
    named = [path for path in fitting if same_name(names[path], parameter)]
    return bool(named or (fitting and not any(names[path] for path in fitting)))


def _shapes(value: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for _, leaf in tensors(value)]
