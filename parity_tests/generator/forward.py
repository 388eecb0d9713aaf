"""The code of forward: states are read, each part updates its own, they are put back and returned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from generator.axes import MEMORY, Network, Part, is_in_place, is_replaced
from generator.cells import CELLS
from generator.chunk_cells import ALL_CELLS
from generator.layout import (
    Entry,
    access,
    assigned,
    begins_as_none,
    entries,
    make,
    shape,
    shown_entry,
    start,
    state_parameters,
    words,
)


class Forward:
    """The lines of forward."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.given = entries(network, "argument")
        self.kept = entries(network, "attribute", "lazy")
        self.rows = f"x.shape[{int(network.time_first)}]"

    def lines(self) -> Iterator[str]:
        network = self.network
        yield from self._load()
        looped = [p for p, part in enumerate(network.parts) if network.has_time and part.cell in CELLS]
        value, last = "x", len(network.parts) - 1
        for place in range(len(network.parts) - len(looped)):
            out = "y" if place == last else f"y{place + 1}"
            yield from self._part(place, value, "x", out)
            value = out
        if looped:
            yield from self._loop(value, looped)
        yield from self._save()
        yield f"return {self._returned()}"

    def _loop(self, value: str, places: list[int]) -> Iterator[str]:
        network = self.network
        axis = words(network, 0)["t"]
        before = ":, " * axis
        kind = network.loop if value == "x" or network.loop != "unbind" else "index"
        yield f"ys = torch.zeros_like({value})" if kind == "preallocated" else "ys = []"
        if kind == "unbind":
            yield f"for frame in x.unbind({axis}):"
        else:
            yield f"for t in range({value}.shape[{axis}]):"
            yield f"    frame = {value}[{before}t]"
        raw = "frame" if value == "x" else f"x[{before}t]"
        inner, last = "frame", places[-1]
        for place in places:
            out = "out" if place == last else f"out{place + 1}"
            yield from (f"    {line}" for line in self._part(place, inner, raw, out))
            inner = out
        yield f"    ys[{before}t] = out" if kind == "preallocated" else "    ys.append(out)"
        yield "y = ys" if kind == "preallocated" else f"y = torch.stack(ys, {axis})"

    def _part(self, place: int, z: str, x: str, out: str) -> Iterator[str]:
        part = self.network.parts[place]
        cell = ALL_CELLS[part.cell]
        known = words(self.network, place, z=z, x=x, o=out)
        if part.home == "implied":
            yield from (line.format(**known) for line in cell.implied)
            return
        yield from (line.format(**known) for line in cell.before)
        unused = out == "y" and self.given and self.network.result in ("state only", "h, state")
        output = [] if unused else [f"{out} = {cell.output.format(**known)}"]
        if cell.early:
            yield from output
        for entry in entries(self.network):
            if entry.place == place:
                yield from self._update(part, entry, known)
        if not cell.early:
            yield from output

    def _update(self, part: Part, entry: Entry, known: dict[str, Any]) -> Iterator[str]:
        cell, name = ALL_CELLS[part.cell], entry.name
        special = cell.special.get(entry.slot.name, {}).get(entry.update)
        new = cell.new[entry.slot.name].format(**known)
        if special is not None:
            lines = [line.format(**known) for line in special]
        else:
            whole = new if re.fullmatch(r"[\w.]+|\w+\([^()]*\)", new) else f"({new})"
            flat = "flatten(1)" if len(shape(self.network, entry.slot, "rows")) > 1 else "view(-1)"
            lines = {
                "replaced": [f"{name} = {new}"],
                "copy_": [f"{name}.copy_({new})"],
                "index": [f"{name}[...] = {new}"],
                "columns": [
                    f"for old, new in zip({name}.unbind(-1), {whole}.unbind(-1)):",
                    "    old.copy_(new)",
                ],
                "flat view": [f"{name}.{flat}.copy_({whole}.{flat})"],
                "slices": [
                    f"new = {new}",
                    *(f"{name}[..., {cut}] = new[..., {cut}]" for cut in (":1", "1:")),
                ],
                "transposed": [f"{name}.transpose(0, -1).copy_({whole}.transpose(0, -1))"],
            }[entry.update]
        if part.home in ("parameter", "trained parameter", "data") and is_in_place(entry.update):
            yield "with torch.no_grad():"
            lines = [f"    {line}" for line in lines]
        yield from lines

    def _load(self) -> Iterator[str]:
        network, given = self.network, self.given
        made = {entry.name: start(network, entry, self.rows, named=True) for entry in entries(network)}
        if given and network.container == "flat":
            for entry in given if network.none != "given" else []:
                yield f"if {entry.name} is None:"
                yield f"    {entry.name} = {made[entry.name]}"
        elif given:
            if network.none in ("None", "None, spec given"):
                yield "if state is None:"
                yield f"    state = {make(network.container, given, made, 'State', idle=network.idle)}"
            for entry in given:
                yield f"{entry.name} = {access(network.container, given, entry, 'state', idle=network.idle)}"
            for entry in begins_as_none(network, given):
                yield f"if {entry.name} is None:"
                yield f"    {entry.name} = {made[entry.name]}"
        for entry in entries(network, "local"):
            yield f"{entry.name} = {made[entry.name]}"
        for entry in entries(network, *MEMORY):
            yield from self._fetch(entry, made[entry.name])

    def _fetch(self, entry: Entry, made: str) -> Iterator[str]:
        """Read what is kept into a variable."""
        network, place = self.network, self._place(entry)
        if network.parts[entry.place].home == "lazy":
            if self._rebuilt():
                yield f"{entry.name} = {place}"
                yield f"if {entry.name} is None:"
                yield f"    {entry.name} = {made}"
            else:
                yield f"if {place} is None:"
                yield f"    {place} = {made}"
                yield f"{entry.name} = {place}"
        elif self._one_row(entry):
            sizes = ", ".join(map(str, shape(network, entry.slot, self.rows)))
            copied = ".clone()" if is_in_place(entry.update) else ""
            yield f"{entry.name} = {place}.expand({sizes}){copied}"
        else:
            yield f"{entry.name} = {place}"

    def _one_row(self, entry: Entry) -> bool:
        return self.network.batched and entry.slot.rows and self.network.parts[entry.place].home != "lazy"

    def _place(self, entry: Entry) -> str:
        if entry in self.kept and self.network.keeper != "separate":
            return access(self.network.keeper, self.kept, entry, "self.kept")
        home = self.network.parts[entry.place].home
        return f"self.held.{entry.name}" if home == "child" else f"self.{entry.name}"

    def _rebuilt(self) -> bool:
        """Whether the container of the attributes is made anew at each call."""
        keeper = self.network.keeper
        return keeper in ("tuple", "named tuple") or (
            keeper != "separate" and self.network.store == "rebuilt"
        )

    def _save(self) -> Iterator[str]:
        network = self.network
        for entry in entries(network, *MEMORY):
            together = entry in self.kept and self._rebuilt()
            if together or not (is_replaced(entry.update) or self._one_row(entry)):
                continue
            home = network.parts[entry.place].home
            if home in ("parameter", "trained parameter"):
                yield "with torch.no_grad():"
                yield f"    {self._place(entry)}.copy_({entry.name})"
            else:
                yield f"{self._place(entry)}{'.data' if home == 'data' else ''} = {entry.name}"
        if self.kept and self._rebuilt():
            values = {entry.name: entry.name for entry in self.kept}
            yield f"self.kept = {make(network.keeper, self.kept, values, 'Kept')}"
        if not self.given or network.container == "flat":
            return
        if assigned(network):
            fresh = begins_as_none(network, self.given)
            for entry in self.given:
                if is_replaced(entry.update) or entry in fresh:
                    place = access(network.container, self.given, entry, "state", idle=network.idle)
                    yield f"{place} = {entry.name}"
        elif network.result != "changed only":
            values = {entry.name: entry.name for entry in self.given}
            made = make(network.container, self.given, values, "State", idle=network.idle)
            yield f"{self._state()} = {made}"

    def _state(self) -> str:
        return "new_state" if self.network.new_name and not assigned(self.network) else "state"

    def _returned(self) -> str:
        network = self.network
        if not self.given:
            return "y"
        flat, keys = network.container == "flat", state_parameters(network)
        names = keys if flat else [self._state()]
        if network.result == "state only":
            return names[0]
        if network.result == "changed only":
            changed = [e.name for e in self.given if is_replaced(e.update)] if flat else []
            return ", ".join(["y", *changed])
        if network.result == "state, y":
            return ", ".join([*names, "y"])
        if network.result == "dict":
            pairs = zip(["y", *keys], ["y", *names], strict=True)
            return "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"
        if network.result == "record":
            return f"Result({', '.join(['y', *names])})"
        shown = {"h, state": [shown_entry(network).name], "y, h, state": ["y", shown_entry(network).name]}
        return ", ".join([*shown.get(network.result, ["y"]), *names])
