"""The state of a network: what its tensors are called, their starts, and the containers that hold them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from generator.axes import CHANGEABLE, Network
from generator.cells import Slot

ORDINALS = ("first_", "second_", "third_")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of the state of a network: its slot, its part's place, how it is written, its variable."""

    slot: Slot
    place: int
    update: str
    name: str


def entries(network: Network, *homes: str) -> list[Entry]:
    """Return the tensors that live in these homes, in order; all of them if none is named."""
    names = [slot.name for part in network.parts for slot in part.slots]
    return [
        Entry(slot, place, way, slot.name if names.count(slot.name) == 1 else f"{slot.name}{place + 1}")
        for place, part in enumerate(network.parts)
        for slot, way in zip(part.slots, part.updates, strict=True)
        if not homes or part.home in homes
    ]


def state_parameters(network: Network) -> list[str]:
    """Return the names of the parameters of forward that carry the state."""
    given = [entry.name for entry in entries(network, "argument")]
    return given if network.container == "flat" or not given else ["state"]


def prefix(network: Network, place: int) -> str:
    """Return what the weights of a part begin with."""
    return ORDINALS[place] if len(network.parts) > 1 else ""


def shape(network: Network, slot: Slot, rows: Any) -> tuple[Any, ...]:
    """Return the shape of a slot's tensor with `rows` rows."""
    features, units, frames = network.sizes
    sizes = {"F": features, "H": units, "K": frames, "K-1": frames - 1, "1": 1}
    own = tuple(sizes[name] for name in slot.shape)
    return (*(1 for _ in range(slot.lead)), *((rows,) if network.batched and slot.rows else ()), *own)


def is_vector(network: Network, entry: Entry) -> bool:
    """Whether the start of an entry has numbers of its own for each place of a row."""
    return network.start == "vector" and entry.slot.dtype == "float32" and entry.slot.shape != ()


def vector(sizes: tuple[int, ...]) -> str:
    """Return the code of numbers from -0.5 to 0.5 in a shape."""
    return f"torch.linspace(-0.5, 0.5, {int(np.prod(sizes))}).reshape({', '.join(map(str, sizes))})"


def start(network: Network, entry: Entry, rows: str, *, named: bool = False) -> str:
    """Return the code of an entry's start with `rows` rows; `named` if a vector lies in an attribute."""
    sizes = shape(network, entry.slot, rows)
    inside = ", ".join(map(str, sizes)) or "()"
    if entry.slot.dtype != "float32":
        return f"torch.zeros({inside}, dtype=torch.{entry.slot.dtype})"
    if is_vector(network, entry):
        held = f"self.{entry.name}_start.expand({inside}).clone()"
        return held if named else vector(shape(network, entry.slot, 1))
    value = 0.5 if network.start == "number" else entry.slot.start
    if value == 0:
        return f"torch.zeros({inside})"
    tupled = f"({inside},)" if len(sizes) == 1 else f"({inside})" if sizes else "()"
    return f"torch.full({tupled}, {value})" if np.isfinite(value) else f'torch.full({tupled}, -float("inf"))'


def access(container: str, group: list[Entry], entry: Entry, root: str, *, idle: bool = False) -> str:
    """Return the code that reads an entry from a container."""
    index = group.index(entry)
    if container in ("tuple", "list", "deque"):
        return f"{root}[{index + idle}]"
    if container == "dict":
        return f'{root}["{entry.name}"]'
    if container == "nested":
        places = sorted({other.place for other in group})
        return f'{root}[{places.index(entry.place)}]["{entry.slot.name}"]'
    return f"{root}.{entry.name}"


def make(container: str, group: list[Entry], values: dict[str, str], name: str, *, idle: bool = False) -> str:
    """Return the code that makes a container of values by entry name."""
    ordered = [*(["None"] if idle else []), *(values[entry.name] for entry in group)]
    if container == "tuple":
        return f"({', '.join(ordered)}{',' if len(ordered) == 1 else ''})"
    if container == "list":
        return f"[{', '.join(ordered)}]"
    if container == "deque":
        return f"deque([{', '.join(ordered)}])"
    if container == "dict":
        keys = [*(["idle"] if idle else []), *(entry.name for entry in group)]
        return "{" + ", ".join(f'"{key}": {value}' for key, value in zip(keys, ordered, strict=True)) + "}"
    if container == "nested":
        parts = [[e for e in group if e.place == place] for place in sorted({e.place for e in group})]
        dicts = [", ".join(f'"{e.slot.name}": {values[e.name]}' for e in part) for part in parts]
        return f"[{', '.join('{' + inside + '}' for inside in dicts)}]"
    return f"{name}({', '.join(ordered)})"


def words(network: Network, place: int, **more: str) -> dict[str, Any]:
    """Return what the names in the code of a part stand for."""
    features, units, frames = network.sizes
    axis = 1 if network.batched and not network.time_first else 0
    rnn = ", batch_first=True" if network.batched and not network.time_first else ""
    return {
        **{entry.slot.name: entry.name for entry in entries(network) if entry.place == place},
        "p": prefix(network, place),
        "r": ":, " if network.batched else "",
        "a": int(network.batched),
        "t": axis,
        "q": ":, " if axis else "",
        "deep": ":, None, None" if network.time_first else ":, None",
        "rnn": rnn,
        "F": features,
        "H": units,
        "K": frames,
        "K1": frames - 1,
        **more,
    }


def begins_as_none(network: Network, given: list[Entry]) -> list[Entry]:
    """Return the entries of the argument's container that the caller gives as None at the start."""
    if network.container == "flat":
        return []
    return {"None entries": given, "one None entry": given[:1]}.get(network.none, [])


def assigned(network: Network) -> bool:
    """Whether entries of the argument's container are assigned, so that the caller's own object changes."""
    return network.store == "assigned" and network.container in CHANGEABLE


def shown_entry(network: Network) -> Entry:
    """Return the state that is an output as well: the last one of floats with rows."""
    found = [e for e in entries(network, "argument") if e.slot.dtype == "float32" and e.slot.rows]
    return (found or entries(network, "argument"))[-1]
