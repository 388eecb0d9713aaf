"""The simplest network that ends as a given one does."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from generator.axes import GENERIC, Network, Part, allowed
from generator.chunk_cells import CHUNK_CELLS
from generator.trial import Verdict, attempt

SIMPLE = Network(())


def shrink(network: Network, ended: Verdict, tries: int = 60) -> Network:
    """Return a simpler network with the same verdict, found step by step in at most `tries` exports."""
    wanted = kind_of(ended)
    progress = True
    while progress and tries > 0:
        progress = False
        for simpler in simpler_than(network):
            if tries == 0:
                break
            tries -= 1
            if ends_as(simpler, wanted):
                network, progress = simpler, True
                break
    return network


def kind_of(verdict: Verdict) -> tuple[str, str, str]:
    """Return what two verdicts share if they are of one kind: what they say up to names and numbers."""
    found = verdict.detail.partition("; found ")[2] or verdict.detail
    said = re.sub(r"'[^']*'|`[^`]*`|\S*\d\S*|<network [^>]*>", "_", found)
    return verdict.kind, verdict.code, said[:50]


def ends_as(network: Network, wanted: tuple[str, str, str]) -> bool:
    """Whether a network is one, and ends so."""
    try:
        return kind_of(attempt(network)) == wanted
    except Exception:  # no network that PyTorch runs, or none that gives what it should
        return False


def simpler_than(network: Network) -> Iterator[Network]:
    """Yield networks that differ in one thing, which is simpler."""
    for place in range(len(network.parts)):
        if len(network.parts) > 1:
            parts = network.parts[:place] + network.parts[place + 1 :]
            yield allowed(dataclasses.replace(network, parts=parts))
    for field in dataclasses.fields(Network):
        value = getattr(SIMPLE, field.name)
        if field.name not in ("parts", "time", "seed") and getattr(network, field.name) != value:
            changed = allowed(dataclasses.replace(network, **{field.name: value}))
            if changed != network:
                yield changed
    for place, part in enumerate(network.parts):
        for simple in _simpler_parts(part):
            parts = (*network.parts[:place], simple, *network.parts[place + 1 :])
            yield allowed(dataclasses.replace(network, parts=parts))


def _simpler_parts(part: Part) -> Iterator[Part]:
    plain = "cumsum" if part.cell in CHUNK_CELLS else "leak"
    if part.cell != plain:
        way = part.updates[0]
        yield Part(plain, part.home, (way if way in GENERIC else "replaced",))
    for index, way in enumerate(part.updates):
        if way != "replaced":
            updates = (*part.updates[:index], "replaced", *part.updates[index + 1 :])
            yield dataclasses.replace(part, updates=updates)
    if part.home not in ("argument", "buffer", "implied"):
        yield dataclasses.replace(part, home="buffer")
