"""What a network gives: its recurrences in float64; and the network itself, run as its author would."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from generator.axes import Network, is_replaced
from generator.cells import Array
from generator.chunk_cells import ALL_CELLS
from generator.compose import weights
from generator.layout import (
    Entry,
    begins_as_none,
    entries,
    make,
    prefix,
    shape,
    shown_entry,
    state_parameters,
)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a network gives for a sequence.

    Attributes:
        x: the inputs, [time, batch, F], or [time, F] without a batch.
        outputs: the outputs in the order of the result, [time, ...] each.
        states: the states of the argument at the end, by the place that the contract names.
    """

    x: Array
    outputs: list[Array]
    states: dict[str, Array]


def expected_of(network: Network, module: nn.Module, *, batch: int, steps: int, seed: int) -> Expected:
    """Run the recurrences. Only the weights are taken from the module."""
    random = np.random.default_rng((network.seed, seed))
    x = random.standard_normal((steps, batch, network.sizes[0])).astype(np.float32)
    held = {name: value.astype(np.float64) for name, value in weights(network, module).items()}
    own = [
        {key[len(start) :]: value for key, value in held.items() if key.startswith(start)}
        for start in (prefix(network, place) for place in range(len(network.parts)))
    ]
    values = [
        {e.slot.name: begin(network, e, batch) for e in entries(network) if e.place == place}
        for place in range(len(network.parts))
    ]
    rows: list[list[Array]] = []
    for frame in x.astype(np.float64):
        y = frame
        for place, part in enumerate(network.parts):
            y, values[place] = ALL_CELLS[part.cell].step(own[place], y, frame, values[place])
        rows.append(given_out(network, y, values))
    outputs = [np.stack(column) for column in zip(*rows, strict=True)]
    states = {
        path: as_tensor(network, entry, values[entry.place][entry.slot.name])
        for path, entry in paths(network).items()
    }
    if not network.batched:
        outputs, x = [value[:, 0] for value in outputs], x[:, 0]
    return Expected(x, outputs, states)


def given_out(network: Network, y: Array, values: list[dict[str, Array]]) -> list[Array]:
    """Return the outputs of a step in the order of the result, [batch, ...] each."""
    if not network.of("argument"):
        return [y]
    entry = shown_entry(network)
    held = values[entry.place][entry.slot.name]
    shown = np.expand_dims(held, 0 if network.batched else 1) if entry.slot.lead else held
    return {"state only": [shown], "h, state": [shown], "y, h, state": [y, shown]}.get(network.result, [y])


def begin(network: Network, entry: Entry, batch: int) -> Array:
    """Return the start of a state, [batch, ...] or ()."""
    slot, home = entry.slot, network.parts[entry.place].home
    own = shape(dataclasses.replace(network, batched=False), dataclasses.replace(slot, lead=0), None)
    sizes = (batch, *own) if slot.rows else own
    given = entries(network, "argument")
    whole = network.none in ("None", "None, spec given")
    made = home != "argument" or whole or entry in begins_as_none(network, given)
    if slot.dtype == "bool":
        return np.zeros(sizes, bool)
    if slot.dtype != "float32" or not made:
        return np.zeros(sizes)
    if home == "implied":
        return np.full(sizes, slot.start)
    if network.start == "vector" and slot.shape:
        return np.broadcast_to(np.linspace(-0.5, 0.5, int(np.prod(own))).reshape(own), sizes)
    return np.full(sizes, 0.5 if network.start == "number" else slot.start)


def as_tensor(network: Network, entry: Entry, value: Array) -> Array:
    """Return a state in the shape that the network has it in."""
    held = value if network.batched or not entry.slot.rows else value[0]
    return np.expand_dims(held, 0) if entry.slot.lead else held


def paths(network: Network) -> dict[str, Entry]:
    """Return the states of the argument by the names that the contract gives them."""
    given, found = entries(network, "argument"), {}
    places = sorted({entry.place for entry in given})
    for index, entry in enumerate(given):
        inside = {
            "flat": entry.name,
            "nested": f"state.{places.index(entry.place)}.{entry.slot.name}",
            **dict.fromkeys(("tuple", "list", "deque"), f"state.{index + network.idle}"),
        }
        found[inside.get(network.container, f"state.{entry.name}")] = entry
    return found


def arguments(network: Network, module: nn.Module, batch: int) -> dict[str, Any]:
    """Return the state that a caller begins with, by parameter."""
    given = entries(network, "argument")
    if not given or network.none in ("None", "None, spec given"):
        return dict.fromkeys(state_parameters(network))
    begins = {
        entry.name: torch.zeros(shape(network, entry.slot, batch), dtype=getattr(torch, entry.slot.dtype))
        for entry in given
    }
    nothing = dict.fromkeys(entry.name for entry in begins_as_none(network, given))
    return filled(network, module, {**begins, **nothing})


def filled(network: Network, module: nn.Module, values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that carry the state, made of values by entry name."""
    if network.container == "flat":
        return values
    space = {**type(module).__init__.__globals__, "_": values}
    texts = {name: f"_[{name!r}]" for name in values}
    code = make(network.container, entries(network, "argument"), texts, "State", idle=network.idle)
    return {"state": eval(code, space)}


def drive(network: Network, module: nn.Module, expected: Expected, cuts: Sequence[int]) -> Expected:
    """Run the module in calls that begin at `cuts`, and hand back to it what it returned, as it came."""
    module = copy.deepcopy(module)
    x = torch.from_numpy(expected.x)
    batch = x.shape[1] if network.batched else 1
    held = arguments(network, module, batch)
    outputs = [value.copy() for value in expected.outputs]
    for first, behind in zip([0, *cuts], [*cuts, len(x)], strict=True):
        chunk = x[first:behind] if network.has_time else x[first]
        swap = network.has_time and network.batched and not network.time_first
        with torch.no_grad():
            result = module(chunk.transpose(0, 1) if swap else chunk, **held)
        given, held = taken_apart(network, result, held)
        for index, value in enumerate(given):
            if network.has_time and index:
                outputs[index][behind - 1] = value.numpy()  # a state that is shown: that of the call's end
            else:
                outputs[index][first:behind] = (value.transpose(0, 1) if swap else value).numpy()
    return Expected(expected.x, outputs, ends(network, held))


def taken_apart(network: Network, result: Any, held: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the outputs in a result, and the state to hand back: what was returned, or what was given."""
    if not held:
        return [result], {}
    kind, parts = network.result, result
    if kind == "state only":
        return [result], dict(zip(held, [result], strict=True))
    if kind == "changed only":
        given = entries(network, "argument")
        changed = [e.name for e in given if is_replaced(e.update)] if network.container == "flat" else []
        y, *rest = result if isinstance(result, tuple) else (result,)
        return [y], {**held, **dict(zip(changed, rest, strict=True))}
    if kind == "dict":
        return [result["y"]], {name: result[name] for name in held}
    count = len(parts) - len(held)
    if kind == "state, y":
        return list(parts[len(held) :]), dict(zip(held, parts[: len(held)], strict=True))
    return list(parts[:count]), dict(zip(held, parts[count:], strict=True))


def ends(network: Network, held: dict[str, Any]) -> dict[str, Array]:
    """Return the states of the argument by the contract's names, from the objects that hold them."""
    found = {}
    for path in paths(network):
        value: Any = held
        for name in path.split("."):
            value = _part_of(value, name)
        found[path] = value.numpy().copy()
    return found


def _part_of(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value[name]
    return value[int(name)] if name.isdigit() else getattr(value, name)
