"""The module under export: a private copy, and how it is called with named tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rnnx.arguments import mapping
from rnnx.errors import UsageError
from rnnx.spelling import spelled
from rnnx_export.module import attributes, slots
from rnnx_export.module.copies import copy_module
from rnnx_export.module.free_sizes import free_sizes
from rnnx_export.module.opaque import refuse_opaque
from rnnx_export.module.parts import parts, unregistered
from rnnx_export.module.plain_loops import plain_loops
from rnnx_export.module.slots import Slot
from rnnx_export.module.spec import TensorSpec, parse_leaves
from rnnx_export.module.spec_hint import spec_hint
from rnnx_export.module.structure import Path, flatten, part_at, replace


class _Parameter(NamedTuple):
    """What matters of a parameter; unlike inspect's, its name may be any text."""

    kind: Any
    default: Any


class Subject:
    """A copy of the caller's module in eval mode, with the specs of its arguments.

    Args:
        module: the caller's module; never touched.
        inputs: specs by parameter name, nested where the argument is.
        state: the same for arguments that carry memory; None for "measure what forward makes of None".
        method: which method is exported.
        constants: values of further parameters.

    Attributes:
        inputs, states: flat specs by name ("x", "state.h"), in the order of forward's parameters.
        slots: states that lie in a container of inputs; each counts as a parameter.
        empty: those parts of states that hold nothing, an axis of theirs having size 0. They are made anew
            in each call, and are no states of the model.
        bfloat16: whether the module is bfloat16; it is then exported, and fed, in float32.

    Raises:
        UsageError: `not-a-module`, `unknown-parameter`, `missing-parameter`, `bad-spec`, `no-inputs`.
        RefusedError: `not-exported`, for TorchScript and what PyTorch has quantised.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
        method: str = "forward",
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        module = self.original = _uncompiled(require_module(module))
        refuse_opaque(module)
        self.bfloat16 = any(
            isinstance(value, Tensor) and value.dtype == torch.bfloat16
            for value in module.state_dict().values()
        )
        self.method = method
        self.trees = {
            "input": mapping("inputs", inputs, "specs by parameter"),
            "state": mapping("state", state, "specs by parameter"),
        }
        self.constants = mapping("constants", constants, "values by parameter")
        named = inspect.signature(require_method(module, method)).parameters
        given, carried = self.trees["input"], self.trees["state"]
        self.trees["input"], self.trees["state"], self.slots = slots.split(given, carried, named)
        self.order = self._parameters(module)
        self.inputs: dict[str, TensorSpec] = {}
        self.states: dict[str, TensorSpec | None] = {}
        self.empty: dict[str, TensorSpec] = {}
        self._places: dict[str, tuple[str, Path]] = {}
        self._none_states: set[str] = set()
        self._none_inside = {
            name
            for name, tree in self.trees["state"].items()
            if tree is not None and any(leaf is None for _, leaf in flatten(tree))
        }
        self._remembering: list[str] = []
        self._shared: dict[torch.dtype | None, dict[str, tuple[nn.Parameter, int]]] = {}
        for parameter in self.order:
            for kind in ("input", "state"):
                if parameter in self.trees[kind]:
                    self._add(kind, parameter)
        if not self.inputs:
            raise UsageError(
                "no-inputs",
                expected="at least one input",
                found="none",
                fix=f"pass {spelled('inputs', {'x': 'float32[batch, 8]'})}",
            )

    def fresh(self, dtype: torch.dtype | None = None) -> nn.Module:
        """Return a new copy of the module in eval mode, its floats as `dtype` where one is given.

        Copies share their parameters, which no call is known to write to.
        """
        if dtype is None and self.bfloat16:
            # Computed in float32: engines have few bfloat16 kernels, and float32 holds every bfloat16.
            dtype = torch.float32
        module = copy_module(self.original, self._shared_parameters(dtype))
        module.eval()  # which may be the author's own, and return nothing
        for part in list(module.modules()):
            for name, child in part.named_children():
                setattr(part, name, _uncompiled(child))
        for parameter in (each for part in parts(module).values() for each in part._parameters.values()):
            if parameter is not None:
                parameter.requires_grad_(False)
        for name in self._remembering:
            attributes.as_buffer(module, name)
        if dtype is not None:
            cast = functools.partial(in_precision, dtype)
            for part in (module, *unregistered(module)):
                part._apply(cast)
            attributes.cast(module, cast)
        for part in parts(module).values():
            if isinstance(part, nn.RNNBase):
                part.check_forward_args = functools.partial(_check_call, part)  # type: ignore[method-assign]
        return module

    def _shared_parameters(self, dtype: torch.dtype | None) -> dict[int, nn.Parameter]:
        """Return what stands for each of the original's parameters, by its id.

        One that was written to is made anew.
        """
        shared = self._shared.setdefault(dtype, {})
        found = {}
        for name, own in self.original.named_parameters():
            if name in self._remembering or type(own) is not nn.Parameter:
                continue
            kept, version = shared.get(name, (None, -1))
            if kept is None or kept._version != version:
                value = own.detach().clone()
                kept = nn.Parameter(value if dtype is None else in_precision(dtype, value), False)
                shared[name] = (kept, kept._version)
            found[id(own)] = kept
        return found

    def note_remembering(self, written: Iterable[str]) -> bool:
        """Note parameters that calls wrote to: they hold memory, and are buffers from now on.

        Returns:
            Whether there are any that were not known yet.
        """
        new = [name for name in written if name not in self._remembering]
        self._remembering += new
        return bool(new)

    def call(
        self,
        module: nn.Module,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor | None],
        whole: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the method of `module` with arguments built from named tensors; return its result.

        Args:
            module: a copy of the module.
            inputs, states: tensors by flat name; forward may write to the states.
            whole: arguments by parameter, taken as they are, in place of what `states` has for them.
        """
        return self.invoke(module, self.arguments(inputs, states) | dict(whole or {}))

    def arguments(self, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor | None]) -> dict[str, Any]:
        """Return the arguments by parameter that named tensors stand for."""
        leaves: dict[str, dict[Path, Any]] = {}
        given = {**inputs, **states}
        for name, value in given.items():
            parameter, path = self._places[name]
            leaves.setdefault(parameter, {})[path] = value
        values = dict(self.constants)
        for parameter, found in leaves.items():
            tree = self.trees["input"].get(parameter, self.trees["state"].get(parameter))
            none = parameter not in self._none_inside and all(value is None for value in found.values())
            default = self.order[parameter].default
            # It begins as what forward takes when it is not given, such as an empty tensor.
            nothing = default.clone() if isinstance(default, Tensor) else None
            values[parameter] = nothing if none else replace(tree, found | self._nothing(parameter, given))
        return values

    def restrict_lengths(self, *, descending: bool, full: bool) -> bool:
        """Have lengths drawn longest first, or one as long as the chunk; return whether there are any."""
        lengths = [name for name, spec in self.inputs.items() if spec.is_length and spec.shape]
        for name in lengths:
            self.inputs[name] = dataclasses.replace(self.inputs[name], descending=descending, full=full)
        return bool(lengths)

    def settle(self, name: str, spec: TensorSpec) -> None:
        """Say what a state is that was to be measured."""
        if 0 in spec.shape:
            del self.states[name]
            self.empty[name] = spec
        else:
            self.states[name] = spec

    def _nothing(self, parameter: str, given: Mapping[str, Tensor | None]) -> dict[Path, Tensor]:
        """Return the empty parts of a state argument by path, of the sizes that the given tensors have."""
        specs = {**self.inputs, **self.states}
        sizes = {
            axis.name: value.shape[index] // axis.factor
            for name, value in given.items()
            if value is not None and (spec := specs[name]) is not None
            for index, axis in enumerate(spec.axes())
            if axis.name
        }
        floats = [v.dtype for v in given.values() if v is not None and v.is_floating_point()]
        return {
            self._places[name][1]: torch.zeros(
                spec.sizes(sizes), dtype=floats[0] if spec.dtype.is_floating_point and floats else spec.dtype
            )
            for name, spec in self.empty.items()
            if self._places[name][0] == parameter
        }

    def invoke(self, module: nn.Module, values: MutableMapping[str, Any]) -> Any:
        """Call the method of `module` with arguments by parameter, each taken as it is.

        What the call leaves in the slots of a container is put into `values`.
        """
        positional, keyword = [], {}
        gap = False
        arguments = slots.filled(values, self.slots)
        for name in self.order:
            kind = self.order[name].kind
            if name in self.slots:
                continue
            if name not in arguments:
                gap = True
            elif kind is inspect.Parameter.KEYWORD_ONLY or (
                gap and kind is not inspect.Parameter.POSITIONAL_ONLY
            ):
                keyword[name] = arguments[name]
            else:
                positional.append(arguments[name])
        function = module if self.method == "forward" else getattr(module, self.method)
        capturing = torch.compiler.is_exporting()
        with plain_loops(), free_sizes(module) if capturing else contextlib.nullcontext():
            result = function(*positional, **keyword)
        slots.take_back(values, arguments, self.slots)
        return result

    def place(self, name: str) -> tuple[str, Path]:
        """Return the parameter that a named tensor belongs to, and its path inside."""
        return self._places[name]

    def state_trees(self) -> dict[str, Any]:
        """Return the structures of the declared states by parameter name."""
        return self.trees["state"]

    def state_names(self, parameter: str) -> list[str]:
        """Return the flat names of the states that `parameter` carries, in order."""
        return [name for name in self.states if self._places[name][0] == parameter]

    def default(self, name: str) -> float | None:
        """Return the number that forward takes for an input it is not given, None where there is none."""
        parameter, path = self._places[name]
        value = self.order[parameter].default
        return value if not path and isinstance(value, int | float) else None

    def starts_as_none(self, name: str) -> bool:
        """Whether a declared state begins as None: its spec says so, or its parameter's default does."""
        parameter = self._places[name][0]
        return name in self._none_states or self.order[parameter].default is None

    def adopt_structure(self, parameter: str, result: Any, path: Path, inside: list[Path]) -> None:
        """Give a state that was declared as None the structure of its next value in `result`.

        Args:
            parameter: the state's parameter.
            result: what forward returned.
            path: where in it the state's next value is.
            inside: paths of its tensors below that.
        """
        self.trees["state"][parameter] = part_at(result, path)
        for name in self.state_names(parameter):
            del self.states[name], self._places[name]
        for leaf in inside:
            name = ".".join((parameter, *leaf))
            self._places[name] = (parameter, leaf)
            self.states[name] = None
            self._none_states.add(name)

    def _add(self, kind: str, parameter: str) -> None:
        tree = self.trees[kind][parameter]
        leaves = {
            path: leaf
            for path, leaf in flatten(tree)
            # A number beside tensors is what it is: a size that a state object carries along.
            if not isinstance(leaf, Slot) and not (path and isinstance(leaf, int | float))
        }
        for path, spec in parse_leaves(leaves, parameter).items():
            name = ".".join((parameter, *path))
            self._places[name] = (parameter, path)
            if spec is not None and spec.dtype == torch.bfloat16:
                self.bfloat16 = True
                spec = dataclasses.replace(spec, dtype=torch.float32)
            if kind == "state" and spec is not None and 0 in spec.shape:
                self.empty[name] = spec
            elif kind == "state":
                self.states[name] = spec
                if spec is None:
                    self._none_states.add(name)
            elif spec is None:
                raise UsageError(
                    "bad-spec",
                    expected=f"a spec for input {name}",
                    found="None",
                    fix="write 'float32[batch, 8]'",
                )
            elif 0 in spec.shape:
                raise UsageError(
                    "bad-spec",
                    expected=f"an input {name} that holds something",
                    found=f"{spec.text!r}, which holds nothing",
                    fix="leave it out, or give it as a constant of forward: constants=",
                )
            else:
                self._check_default(name, spec)
                self.inputs[name] = spec

    def _check_default(self, name: str, spec: TensorSpec) -> None:
        """Refuse a range of integers that leaves out what forward takes for an input it is not given."""
        default = self.default(name)
        if default is None or spec.range is None or spec.dtype.is_floating_point:
            return
        if not spec.range[0] <= default <= spec.range[1]:
            raise UsageError(
                "bad-spec",
                expected=f"a range of {name!r} with its default {default} in it",
                found=spec.text,
                fix="widen the range, or give forward another default",
            )

    def _parameters(self, module: nn.Module) -> dict[str, _Parameter]:
        parameters = dict(inspect.signature(require_method(module, self.method)).parameters)
        named = {
            name: _Parameter(p.kind, p.default)
            for name, p in parameters.items()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        }
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        kinds = {"inputs": self.trees["input"], "state": self.trees["state"], "constants": self.constants}
        kind_of = {name: kind for kind, values in kinds.items() for name in values}
        for kind, values in kinds.items():
            for name in values:
                if kind_of[name] != kind:
                    raise UsageError(
                        "parameter-given-twice",
                        expected="each parameter in one of inputs, state and constants",
                        found=f"{name!r} in {kind} and in {kind_of[name]}",
                        fix="leave it out of one of them",
                    )
        for name in kind_of:
            if name in self.slots:
                named[name] = _Parameter(inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty)
            elif name not in named:
                if not open_ended:
                    raise UsageError(
                        "unknown-parameter",
                        expected=f"parameters {', '.join(named) or '(none)'} of "
                        f"{type(module).__name__}.{self.method}",
                        found=repr(name),
                        fix="use forward's own parameter names",
                    )
                named[name] = _Parameter(inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty)
        for name, parameter in named.items():
            if parameter.default is inspect.Parameter.empty and name not in kind_of:
                raise UsageError(
                    "missing-parameter",
                    expected=f"a spec for parameter {name!r} of {type(module).__name__}.{self.method}",
                    found="none",
                    fix=spec_hint(module, self.method, name, self.trees["input"], self.constants),
                )
        return named


def require_module(module: Any) -> nn.Module:
    """Return `module` if it is one. Raises UsageError `not-a-module`."""
    if isinstance(module, nn.Module):
        return module
    raise UsageError(
        "not-a-module",
        expected="a torch.nn.Module",
        found=f"a {type(module).__name__}",
        fix="pass an instance, such as Net() and not Net",
    )


def _uncompiled(module: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` wrapped, which computes the same and can be looked into."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def require_method(module: nn.Module, name: Any) -> Any:
    """Return a method of `module` by name. Raises UsageError `unknown-method`."""
    function = getattr(module, name, None) if isinstance(name, str) else None
    if callable(function):
        return function
    raise UsageError(
        "unknown-method",
        expected=f"a method {name!r} of {type(module).__name__}",
        found="none",
        fix="name one that exists",
    )


def _check_call(layer: nn.RNNBase, input: Tensor, hidden: Any, batch_sizes: Tensor | None = None) -> None:
    """Refuse what PyTorch would read past its end, for it is only its own checks that look at the sizes.

    They turn sizes into plain numbers, which would freeze them in a captured graph. What is captured has run
    with plain numbers before. Precisions may differ: the layer may run in another one than it was made in.
    """
    width = input.shape[-1]
    if isinstance(width, int) and width != layer.input_size:
        raise RuntimeError(f"a recurrent layer for inputs of {layer.input_size} elements got {width}")
    if torch.compiler.is_exporting():
        return
    expected = layer.get_expected_hidden_size(input, batch_sizes)
    if isinstance(layer, nn.LSTM):
        cell = layer.get_expected_cell_size(input, batch_sizes)
        layer.check_hidden_size(hidden[0], expected, "Expected hidden[0] size {}, got {}")
        layer.check_hidden_size(hidden[1], cell, "Expected hidden[1] size {}, got {}")
    else:
        layer.check_hidden_size(hidden, expected, "Expected hidden size {}, got {}")


def in_precision(dtype: torch.dtype, value: Tensor) -> Tensor:
    """Return a tensor with its floats, or its complex numbers, in the precision of `dtype`."""
    if value.is_complex():  # module.to(dtype) would throw the imaginary part away
        return value.to(torch.complex128 if dtype == torch.float64 else torch.complex64)
    return value.to(dtype) if value.is_floating_point() else value


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that the same export gives the same figures in any process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def precision(dtype: torch.dtype | None) -> Iterator[None]:
    """Let tensors that forward makes, such as `torch.zeros(8)`, have the precision that is computed in."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
