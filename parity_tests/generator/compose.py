"""From the description of a network to a module, as its author would write it down."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from generator.axes import Network
from generator.cells import Array
from generator.chunk_cells import ALL_CELLS
from generator.forward import Forward
from generator.layout import entries, is_vector, make, shape, start, state_parameters, vector, words

HEAD = """import dataclasses
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import nn
"""


def build(network: Network) -> nn.Module:
    """Return the network as a module, in eval mode, with the weights of its seed."""
    text = source(network)
    name = f"<network {network.seed:x} {hash(network) & 0xFFFFFFFF:08x}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    # A module of its own would have to be imported: what is written down here is read from linecache.
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, name, "exec"), space)
    module: nn.Module = space["Net"]()
    with torch.no_grad():
        for key, value in weights(network, module).items():
            dict(module.named_parameters())[key].copy_(torch.from_numpy(value))
    return module.eval()


def weights(network: Network, module: nn.Module) -> dict[str, Array]:
    """Return the weights by name: drawn from the seed; parameters that are states or starts are none."""
    states = {entry.name for entry in entries(network)}
    found = {}
    for index, (name, value) in enumerate(sorted(module.named_parameters())):
        if name.rpartition(".")[2] not in states and not name.endswith("_start"):
            random = np.random.default_rng((network.seed, index))
            bound = 1 / np.sqrt(max(value.shape[-1], 2))
            found[name] = random.uniform(-bound, bound, tuple(value.shape)).astype(np.float32)
    return found


def source(network: Network) -> str:
    """Return the code of the network."""
    return "".join(f"{line}\n".replace("    \n", "\n") for line in (HEAD, *_classes(network), *_net(network)))


def _classes(network: Network) -> Iterator[str]:
    given = [entry.name for entry in entries(network, "argument")]
    kept = [entry.name for entry in entries(network, "attribute", "lazy")]
    for name, container, fields in (("State", network.container, given), ("Kept", network.keeper, kept)):
        if fields and container == "named tuple":
            yield from _class(f"{name}(NamedTuple)", fields)
        if fields and container == "dataclass":
            yield from _class(name, fields, "@dataclasses.dataclass")
    if given and network.result == "record":
        yield from _class("Result(NamedTuple)", ["y", *state_parameters(network)])


def _class(name: str, fields: list[str], *above: str) -> Iterator[str]:
    yield from ("", *above, f"class {name}:", *(f"    {field}: Any" for field in fields), "")


def _net(network: Network) -> Iterator[str]:
    yield from ("", "class Net(nn.Module):", "    def __init__(self):", "        super().__init__()")
    yield from (f"        {line}" for line in _constructor(network))
    parameters = ["self", "x"]
    if network.of("argument"):
        maybe = network.none in ("None", "None, spec given")
        parameters += [f"{name}=None" if maybe else name for name in state_parameters(network)]
    yield from ("", f"    def forward({', '.join(parameters)}):")
    yield from (f"        {line}" for line in Forward(network).lines())


def _constructor(network: Network) -> Iterator[str]:
    for place, part in enumerate(network.parts):
        for line in ALL_CELLS[part.cell].init:
            yield line.format(**words(network, place))
    if network.start == "vector":
        homes = ("lazy", "local") if network.none == "given" else ("lazy", "local", "argument")
        for entry in entries(network, *homes):
            if is_vector(network, entry):
                yield f"self.{entry.name}_start = nn.Parameter({vector(shape(network, entry.slot, 1))})"
    if network.of("child"):
        yield "self.held = nn.Module()"
    for entry in entries(network, "buffer", "child", "parameter", "trained parameter", "data"):
        made, home = start(network, entry, "1"), network.parts[entry.place].home
        if home in ("buffer", "child"):
            yield f'self.{"held." if home == "child" else ""}register_buffer("{entry.name}", {made})'
        else:
            trained = home == "trained parameter" and entry.slot.dtype == "float32"
            yield f"self.{entry.name} = nn.Parameter({made}, requires_grad={trained})"
    kept = entries(network, "attribute", "lazy")
    lazy = entries(network, "lazy")
    begin = {entry.name: "None" if entry in lazy else start(network, entry, "1") for entry in kept}
    if kept and network.keeper == "separate":
        yield from (f"self.{name} = {value}" for name, value in begin.items())
    elif kept:
        yield f"self.kept = {make(network.keeper, kept, begin, 'Kept')}"
