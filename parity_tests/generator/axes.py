"""What networks vary in: a network as a small description, and how one is drawn."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from generator.cells import CELLS, Slot
from generator.chunk_cells import ALL_CELLS, CHUNK_CELLS

T = TypeVar("T")
Choose = Callable[[Sequence[T]], T]

# The simplest first: that is where shrinking ends. What stands twice is drawn twice as often.
TIMES = ("step", "step", "step", "loop", "chunk", "chunk then loop")
QUICK = (
    *("step",) * 7,
    "loop",
    "chunk",
    "chunk then loop",
)  # a step is captured once, a loop again and again
CONTAINERS = ("flat", "tuple", "list", "dict", "named tuple", "dataclass", "nested", "deque")
RESULTS = (
    "y, state",
    "y, state",
    "state, y",
    "dict",
    "record",
    "changed only",
    "h, state",
    "y, h, state",
    "state only",
)
CHANGEABLE = ("list", "dict", "dataclass", "nested", "deque")  # containers whose entries can be assigned
STORES = ("rebuilt", "assigned")
STARTS = ("zeros", "number", "vector")
NONES = ("given", "given", "given", "None", "None, spec given", "None entries", "one None entry")
OF_ROWS = ("buffer", "attribute", "lazy", "child")
MEMORY = (*OF_ROWS, "parameter", "trained parameter", "data")  # parameters are written in place: no batch
REPLACED = ("replaced",)
GENERIC = ("copy_", "index", "columns", "flat view", "slices", "transposed")
SIZES = ((3, 4, 3), (2, 2, 2), (4, 4, 4), (3, 1, 2), (1, 3, 3))
LOOPS = ("index", "unbind", "preallocated")


@dataclasses.dataclass(frozen=True)
class Part:
    """A cell in a network.

    Attributes:
        cell: its name.
        home: where its state lives: "argument", one of MEMORY, "local" (made by forward, ahead of a loop) or
            "implied".
        updates: how each slot is written.
    """

    cell: str
    home: str
    updates: tuple[str, ...]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The tensors of its state."""
        return ALL_CELLS[self.cell].slots


@dataclasses.dataclass(frozen=True)
class Network:
    """A network: its parts one behind the other, and how their state goes in and out.

    Attributes:
        parts: the cells.
        time: "step", "loop", "chunk" or "chunk then loop".
        batched: whether there is a batch axis.
        sizes: F, H and K: features, units, and frames of a window.
        container: what holds the states of the argument.
        keeper: what holds the states of attributes: "separate" or a container.
        store: whether a container is rebuilt or its entries are assigned.
        result: what forward returns.
        none: what the caller gives for the state at the start.
        start: what states start as that forward or the constructor makes.
        idle: whether the container has an entry that stays None.
        loop: how a loop over time is written.
        time_first: whether chunks are [time, batch, F].
        new_name: whether the state that is returned has a name of its own.
        seed: of the weights and inputs.
    """

    parts: tuple[Part, ...]
    time: str = "step"
    batched: bool = True
    sizes: tuple[int, int, int] = (3, 4, 3)
    container: str = "flat"
    keeper: str = "separate"
    store: str = "rebuilt"
    result: str = "y, state"
    none: str = "given"
    start: str = "zeros"
    idle: bool = False
    loop: str = "index"
    time_first: bool = False
    new_name: bool = False
    seed: int = 0

    def of(self, *homes: str) -> list[int]:
        """Return the places of the parts that live there."""
        return [index for index, part in enumerate(self.parts) if part.home in homes]

    @property
    def has_time(self) -> bool:
        """Whether forward takes chunks."""
        return self.time != "step"

    @property
    def whole(self) -> bool:
        """Whether a call means one whole sequence: some of what it keeps does not outlast the call."""
        return bool(self.of("implied", "local"))


def draw(choose: Choose[Any], seed: int, times: Sequence[str] = TIMES) -> Network:
    """Return a network; `choose` picks one of several, the first being the simplest."""
    time = choose(times)
    batched = choose((True, True, True, False))
    count = choose((2, 2, 3) if time == "chunk then loop" else (1, 2, 2, 3))
    taken = choose(("argument", "argument", "memory", "both"))
    # Forward makes all states of a loop anew at each call, or none: no author keeps one and forgets another.
    afresh = "loop" in time and choose((False, False, True))
    parts = []
    for index in range(count):
        chunked = time == "chunk" or (time == "chunk then loop" and index < (count + 1) // 2)
        cells = (
            [name for name, cell in CHUNK_CELLS.items() if cell.implied or not afresh] if chunked else CELLS
        )
        cell = choose(tuple(cells))
        usual = "argument" if taken == "argument" or (taken == "both" and index % 2 == 0) else "memory"
        home = _home(choose, usual, cell, afresh=afresh, batched=batched)
        updates = tuple(_update(choose, cell, slot, home) for slot in ALL_CELLS[cell].slots)
        parts.append(Part(cell, home, updates))
    return _arranged(choose, Network(tuple(parts), time, batched, choose(SIZES), seed=seed))


def from_seed(seed: int, times: Sequence[str] = TIMES) -> Network:
    """Return the network of a seed, of one of these kinds."""
    return draw(random.Random(seed).choice, seed, times)


def _home(choose: Choose[Any], usual: str, cell: str, *, afresh: bool, batched: bool) -> str:
    if ALL_CELLS[cell].implied and (afresh or choose((False, True, True))):
        return "implied"
    if afresh:
        return "local"
    return str(choose(OF_ROWS if batched else MEMORY)) if usual == "memory" else usual


def _update(choose: Choose[Any], cell: str, slot: Slot, home: str) -> str:
    special = tuple(ALL_CELLS[cell].special.get(slot.name, {}))
    if home == "implied":
        return "replaced"
    generic = GENERIC if slot.shape else GENERIC[:2]
    return str(choose(choose((REPLACED, special or generic, generic))))


def _arranged(choose: Choose[Any], network: Network) -> Network:
    """Return the network with the rest of what can be chosen for it."""
    early = any(
        part.cell in ("conv", "taps") for part in network.parts
    )  # they are written for the batch first
    changes: dict[str, Any] = {
        "loop": choose(LOOPS),
        "start": choose(STARTS),
        "new_name": choose((False, True)),
        "store": choose(STORES),
        "keeper": choose(("separate", "separate", *CONTAINERS[1:])),
        "time_first": network.has_time and network.batched and not early and choose((False, True)),
    }
    if network.of("argument"):
        changes["container"] = choose(CONTAINERS)
        changes["result"] = choose(RESULTS)
        changes["none"] = choose(NONES)
        can_idle = changes["none"] == "None" and changes["container"] in ("list", "tuple", "dict")
        changes["idle"] = can_idle and choose((False, True))
    return allowed(dataclasses.replace(network, **changes))


def allowed(network: Network) -> Network:
    """Return the network with what cannot be together put apart."""
    given = [part for part in network.parts if part.home == "argument"]
    slots = [slot for part in given for slot in part.slots]
    updates = [way for part in given for way in part.updates]
    shown = [slot.dtype == "float32" and slot.rows for slot in slots]
    flat, result, none = network.container == "flat", network.result, network.none
    if flat and "entr" in none:
        none = "None"
    if result == "changed only":
        kept = network.store == "assigned" and network.container in CHANGEABLE
        if not (flat or kept or not any(is_replaced(way) for way in updates)):
            result = "y, state"
        none = "given"  # what forward made of None would be lost
    if result == "state only" and not (not network.has_time and flat and shown == [True]):
        result = "y, state"
    if result == "h, state" and network.has_time:
        result = "y, h, state"
    if result in ("h, state", "y, h, state") and not any(shown):
        result = "y, state"
    idle = network.idle and none == "None"
    return dataclasses.replace(network, result=result, none=none, idle=idle)


def is_replaced(update: str) -> bool:
    """Whether an update leaves a new tensor in place of the old one."""
    return update.startswith("replaced")


def is_in_place(update: str) -> bool:
    """Whether an update writes into the old tensor, be it that a new one takes its place afterwards."""
    return not is_replaced(update) or update == "replaced after use"
