"""Arguments that hold inputs and states in one container: the states' places are slots in it.

Each slot is a parameter of its own to the rest of the exporter, by its path: `batch.state_in`. It is put into
the container when the module is called, and taken out of it again when the call has returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from rnnx.errors import UsageError
from rnnx_export.module.structure import Leaf, Path, children, part_at, replace


@dataclasses.dataclass(frozen=True)
class Slot(Leaf):
    """Where in which parameter a state is kept."""

    parameter: str
    path: Path


def split(
    inputs: Mapping[str, Any], state: Mapping[str, Any], parameters: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Slot]]:
    """Return inputs with a slot wherever one of their containers holds a state, the states, and the slots.

    Args:
        inputs: specs by parameter.
        state: the same for states; a part of a container is called by its path (`{"batch.h": spec}`), or
            stands in a dict like it (`{"batch": {"h": spec}}`).
        parameters: names of the module's own.
    """
    containers, states, slots = dict(inputs), {}, {}
    for name, tree in state.items():
        parameter, *path = name.split(".")
        if name in parameters or not path or parameter not in inputs:
            found = _places(inputs.get(name), tree) if name in inputs else None
            if not found:
                states[name] = tree
                continue
            parameter = name
        else:
            found = {tuple(path): tree}
        for place, part in found.items():
            slot = Slot(parameter, place)
            _require_free(containers[parameter], slot)
            containers[parameter] = _with(containers[parameter], place, slot)
            name = ".".join((parameter, *place))
            states[name], slots[name] = part, slot
    return containers, states, slots


def _require_free(container: Any, slot: Slot) -> None:
    """Refuse a state where the inputs have something. Raises UsageError `parameter-given-twice`."""
    if _holds(container, slot.path) and part_at(container, slot.path) is not None:
        name = ".".join((slot.parameter, *slot.path))
        raise UsageError(
            "parameter-given-twice",
            expected="each part of a container in one of inputs and state",
            found=f"{name!r} in both",
            fix="leave it out of one of them",
        )


def _places(container: Any, tree: Any, path: Path = ()) -> dict[Path, Any]:
    """Return the parts of `tree` that `container` does not hold, by path; both are dicts."""
    if not isinstance(container, dict) or not isinstance(tree, dict):
        return {path: tree} if path else {}
    found: dict[Path, Any] = {}
    for key, part in tree.items():
        inner = (*path, str(key))
        found |= _places(container[key], part, inner) if key in container else {inner: part}
    return found


def _with(container: Any, path: Path, value: Any) -> Any:
    """Return a container with `value` at `path`; dicts need not have it yet."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(container, dict):
        return {**container, key: _with(container.get(key, {}), rest, value)}
    return replace(container, {path: value})


def filled(values: Mapping[str, Any], slots: Mapping[str, Slot]) -> dict[str, Any]:
    """Return arguments by parameter, with what their slots hold in its place."""
    found = dict(values)
    for name, slot in slots.items():
        if name in found:
            found[slot.parameter] = replace(found[slot.parameter], {slot.path: found.pop(name)})
    return found


def take_back(
    values: MutableMapping[str, Any], called_with: Mapping[str, Any], slots: Mapping[str, Slot]
) -> None:
    """Write what a call left in the slots of its containers over what they held."""
    for name, slot in slots.items():
        container = called_with[slot.parameter]
        if name in values and _holds(container, slot.path):
            values[name] = part_at(container, slot.path)


def _holds(container: Any, path: Path) -> bool:
    for key in path:
        parts = dict(children(container) or ())
        if key not in parts:
            return False
        container = parts[key]
    return True
