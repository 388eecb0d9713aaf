"""What plain PyTorch gives for a case, with nothing of the exporter in between."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import cases
from cases.registry import CASES as _CASES
from cases.registry import Case
from rnnx.model.contract import Contract, InputSpec, OutputSpec
from rnnx.session import Session
from rnnx.tolerance import error_beyond, level_of, relative_error

for _module in pkgutil.iter_modules(cases.__path__):
    importlib.import_module(f"cases.{_module.name}")  # each registers its cases
FAMILIES = [
    "layers",
    "lengths",
    "cells",
    "loops",
    "memory",
    "causal",
    "overlaps",
    "matrices",
    "whole",
    "decoders",
    "audio",
    "refused",
]
CASES = {case.name: case for case in sorted(_CASES.values(), key=lambda case: FAMILIES.index(case.family))}
Array = np.ndarray[Any, Any]
Parts = tuple[list[Any], dict[str, Any]]

# Where in forward's result the outputs and the next states lie, if the states are not its last parts.
PARTS: dict[str, Callable[[Any, Mapping[str, Any]], Parts]] = {
    "conv_lstm": lambda r, given: ([r[0]], {"h": r[1][0], "c": r[1][1]}),
    "state_in_dict_result": lambda r, given: ([r["logits"], r["value"]], {"h": r["h"]}),
    "state_is_the_output": lambda r, given: ([r], {"hx": r}),
    "state_in_place": lambda r, given: ([r], {"h": given["h"]}),
    "state_first_then_output": lambda r, given: ([r[1]], {"h": r[0]}),
    "two_states_by_flow": lambda r, given: ([r[0]], {"a": r[2], "b": r[1]}),
    "two_states_alike": lambda r, given: ([r[0]], {"a": r[2], "b": r[1]}),
}
FREE_SIZE = 5


class _Fed(nn.Module):
    """A cell that PyTorch starts from nothing at each call, fed its own last state."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.state = net, None

    def forward(self, x: Any) -> Any:
        self.state = self.net.cell(x, self.state)
        return self.state[0]


# Called step after step, these modules forget: what the exported model gives is what they mean.
MEANT: dict[str, Callable[[nn.Module], nn.Module]] = {"lstm_cell_hidden_start": _Fed}


def build(case: Case) -> nn.Module:
    """Return the case's module, the same weights each time."""
    torch.manual_seed(0)
    return case.build()


@dataclasses.dataclass(frozen=True)
class PlainRun:
    """What PyTorch gave.

    Attributes:
        inputs: whole chunks by name, with a time axis wherever the contract has one or a chunk of it does.
        outputs: the same, in the order of the contract.
        states: the declared states at the end, by contract name.
        steps, batch: sizes.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    states: dict[str, Array]
    steps: int
    batch: int


def run_plain(case: Case, module: nn.Module, contract: Contract, *, steps: int, batch: int) -> PlainRun:
    """Call a fresh copy of the module in eval mode: once on the whole sequence, or step after step."""
    module = MEANT.get(case.name, lambda net: net)(copy.deepcopy(module)).eval()
    if any(value.dtype == torch.bfloat16 for value in module.state_dict().values()):
        module = module.float()
    inputs = draw(case, contract, steps=steps, batch=batch)
    function = getattr(module, case.arguments.get("method", "forward"))
    states = _starts(case, function, batch)
    constants = case.arguments.get("constants", {})
    with torch.no_grad():
        if any("time" in text for text in case.arguments["inputs"].values()):
            tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
            outputs, states = _parts(case, function(**tensors, **states, **constants), states)
            rows = [[value.numpy() for value in outputs]]
        else:
            rows = []
            for step in range(steps):
                row = {
                    spec.name: one_step(contract, spec, inputs[spec.name], step) for spec in contract.inputs
                }
                tensors = {name: torch.from_numpy(np.array(value)) for name, value in row.items()}
                outputs, states = _parts(case, function(**tensors, **states, **constants), states)
                rows.append([value.numpy().copy() for value in outputs])
    joined = {
        spec.name: rows[0][index] if len(rows) == 1 else _stack(contract, spec, [row[index] for row in rows])
        for index, spec in enumerate(contract.outputs)
    }
    ends = {
        name: value.numpy()
        for parameter in states
        for name, value in _leaves(states[parameter], parameter)
        if value.numel()  # what holds nothing is no state
    }
    return PlainRun(inputs, joined, ends, steps, batch)


def draw(case: Case, contract: Contract, *, steps: int, batch: int, seed: int = 7) -> dict[str, Array]:
    """Return random inputs for a whole run, from the ranges that the case gives."""
    random = np.random.default_rng(seed)
    sizes = {"batch": batch, "time": steps}
    drawn = {}
    for spec in contract.inputs:
        text = case.arguments["inputs"].get(spec.name, "")
        shape = [_size(dimension, sizes) for dimension in chunk_shape(contract, spec)]
        span = re.search(r" in (\S+)\.\.(\S+)", text)
        low, high = (
            (steps if bound == "time" else float(bound) for bound in span.groups()) if span else (None, None)
        )
        if spec.dtype.startswith("int"):
            drawn[spec.name] = random.integers(int(low or 0), int(1 if high is None else high) + 1, shape)
        elif low is None:
            drawn[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        else:
            drawn[spec.name] = random.uniform(low, high, shape).astype(spec.dtype)
    return drawn


# What a session gives for the same inputs, in three ways.


def by_steps(session: Session, run: PlainRun) -> tuple[dict[str, Array], dict[str, Array]]:
    """Step through a run; outputs are chunks again."""
    contract = session.contract
    rows: list[Mapping[str, Array]] = []
    with session.stream(batch=run.batch, dims=_dims(contract)) as stream:
        for step in range(run.steps):
            rows.append(
                stream.step(
                    {s.name: one_step(contract, s, run.inputs[s.name], step) for s in contract.inputs}
                )
            )
        states = dict(stream.state)
    return {s.name: _stack(contract, s, [row[s.name] for row in rows]) for s in contract.outputs}, states


def by_chunks(
    session: Session, run: PlainRun, cuts: Sequence[int]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run in chunks that begin at `cuts`; outputs are joined."""
    contract = session.contract
    edges = [0, *cuts, run.steps]
    chunks: list[Mapping[str, Array]] = []
    with session.stream(batch=run.batch, dims=_dims(contract)) as stream:
        for begin, end in itertools.pairwise(edges):
            part = {s.name: _cut(contract, s, run.inputs[s.name], begin, end) for s in contract.inputs}
            chunks.append(stream.run(part))
        states = dict(stream.state)
    joined = {}
    for spec in contract.outputs:
        axis, _ = time_axis(chunk_shape(contract, spec))
        parts = [chunk[spec.name] for chunk in chunks]
        joined[spec.name] = parts[-1] if axis is None else np.concatenate(parts, axis)
    return joined, states


def assert_agrees(
    contract: Contract, run: PlainRun, got: tuple[Mapping[str, Array], Mapping[str, Array]], how: str
) -> None:
    """Hold outputs, and the declared states at the end, to the tolerance of a single step: runs are short."""
    lengths = next((run.inputs[spec.name] for spec in contract.inputs if spec.role), None)
    for spec in contract.outputs:
        expected, value = run.outputs[spec.name], got[0][spec.name]
        axis, _ = time_axis(chunk_shape(contract, spec))
        if lengths is not None and axis is not None:
            expected, value = _valid(expected, value, lengths, axis, run.steps)
        _assert_close(f"{how}: output {spec.name}", expected, value)
    for name, expected in run.states.items():
        _assert_close(f"{how}: state {name}", expected, got[1][name])


def _assert_close(what: str, expected: Array, got: Array) -> None:
    assert expected.shape == got.shape, f"{what}: {expected.shape} in PyTorch, {got.shape}"
    beyond = error_beyond(level_of(got.dtype).step, expected, got)
    assert (beyond <= 0).all(), f"{what}: error {relative_error(expected, got):.2g}"


def _valid(expected: Array, got: Array, lengths: Array, axis: int, steps: int) -> tuple[Array, Array]:
    """Blank what stands behind the end of each row; PyTorch ends the whole chunk with the longest row."""
    missing = [(0, steps - expected.shape[axis] if index == axis else 0) for index in range(expected.ndim)]
    expected = np.moveaxis(np.pad(expected, missing), axis, 0)
    got = np.moveaxis(got, axis, 0)
    inside = (np.arange(steps)[:, None] < lengths).reshape(steps, -1, *(1 for _ in range(expected.ndim - 2)))
    return np.where(inside, expected, 0), np.where(inside, got, 0)


# Axes.


def chunk_shape(contract: Contract, spec: InputSpec | OutputSpec) -> list[int | str]:
    """Return the shape of a chunk: a step model's has time right after the batch."""
    shape = list(spec.shape)
    if any(time_axis(entry.shape)[0] is not None for entry in contract.inputs) or getattr(spec, "role", None):
        return shape
    return [*shape[:1], "time", *shape[1:]] if shape[:1] == ["batch"] else ["time", *shape]


def time_axis(shape: Sequence[int | str]) -> tuple[int | None, int]:
    """Return the axis along which time runs and its entries in a step."""
    for axis, dimension in enumerate(shape):
        factor, _, name = str(dimension).rpartition("*")
        if name == "time":
            return axis, int(factor or 1)
    return None, 1


def one_step(contract: Contract, spec: InputSpec, chunk: Array, step: int) -> Array:
    """Return what one step takes of a chunk."""
    shape = chunk_shape(contract, spec)
    part = _cut(contract, spec, chunk, step, step + 1)
    return np.squeeze(part, shape.index("time")) if "time" in shape else part


def _cut(contract: Contract, spec: InputSpec, chunk: Array, begin: int, end: int) -> Array:
    if spec.role == "length":
        return np.clip(chunk - begin, 0, end - begin)
    axis, width = time_axis(chunk_shape(contract, spec))
    return chunk if axis is None else chunk.take(range(begin * width, end * width), axis)


def _stack(contract: Contract, spec: OutputSpec, rows: list[Array]) -> Array:
    shape = chunk_shape(contract, spec)
    if "time" in shape:
        return np.stack(rows, shape.index("time"))
    axis, _ = time_axis(shape)
    return rows[-1] if axis is None else np.concatenate(rows, axis)


def _size(dimension: int | str, sizes: Mapping[str, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    factor, _, name = dimension.rpartition("*")
    return int(factor or 1) * sizes.get(name, FREE_SIZE)


def _dims(contract: Contract) -> dict[str, int]:
    return dict.fromkeys(contract.free_dimensions, FREE_SIZE)


# Structures.


def _parts(case: Case, result: Any, given: Mapping[str, Any]) -> Parts:
    if case.name in PARTS:
        return PARTS[case.name](result, given)
    if not given:
        return [leaf for _, leaf in _leaves(result)], {}
    outputs = [leaf for part in result[: -len(given)] for _, leaf in _leaves(part)]
    return outputs, dict(zip(given, result[-len(given) :], strict=True))


def _starts(case: Case, function: Any, batch: int) -> dict[str, Any]:
    """Return the start of each declared state: None where forward takes that, zeros otherwise."""
    parameters = inspect.signature(function).parameters
    return {
        name: None if spec is None or parameters[name].default is None else _zeros(spec, batch)
        for name, spec in case.arguments.get("state", {}).items()
    }


def _zeros(spec: Any, batch: int) -> Any:
    if isinstance(spec, str):
        dtype, _, rest = spec.partition("[")
        shape = [part.strip() for part in rest.partition("]")[0].split(",") if part.strip()]
        sizes = [int(part) if part.isdecimal() else _size(part, {"batch": batch}) for part in shape]
        return torch.zeros(sizes, dtype=getattr(torch, dtype))
    if isinstance(spec, dict):
        return {key: _zeros(part, batch) for key, part in spec.items()}
    if hasattr(spec, "__dict__"):  # a dataclass, or a cache object of such parts
        return type(spec)(**{name: _zeros(part, batch) for name, part in vars(spec).items()})
    parts = [_zeros(part, batch) for part in spec]
    return type(spec)(*parts) if hasattr(spec, "_fields") else type(spec)(parts)


def _leaves(value: Any, name: str = "") -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if isinstance(value, dict):
        parts = list(value.items())
    elif hasattr(value, "__dict__"):
        parts = list(vars(value).items())
    else:
        parts = list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    return [leaf for key, part in parts for leaf in _leaves(part, f"{name}.{key}".strip("."))]
