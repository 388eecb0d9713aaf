"""What a module keeps between calls: buffers and attributes that forward changes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rnnx_export.module.parts import parts, submodule
from rnnx_export.module.structure import Path, children, flatten, replace

_PLAIN = (int, float, bool, str, type(None))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a value lies: submodule path, attribute, and the path inside the attribute."""

    module: str
    attribute: str
    inside: Path = ()

    @property
    def name(self) -> str:
        """The place as a state's name: `encoder.cache.0`."""
        return ".".join(part for part in (self.module, self.attribute, *self.inside) if part)


def snapshot(module: nn.Module) -> dict[Place, Any]:
    """Return every buffer, tensor attribute and plain attribute; tensors as copies."""
    found: dict[Place, Any] = {}
    for path, part in parts(module).items():
        own = {
            name: value for name, value in part.__dict__.items() if not name.startswith("_") or _mine(name)
        }
        for attribute, value in (*part._buffers.items(), *own.items()):
            for inside, leaf in _leaves(value):
                if isinstance(leaf, Tensor):
                    found[Place(path, attribute, inside)] = leaf.detach().clone()
                elif isinstance(leaf, _PLAIN):
                    found[Place(path, attribute, inside)] = leaf
    return found


def stamps(module: nn.Module) -> dict[Place, tuple[Tensor, int]]:
    """Return each kept tensor itself, and how often it was written."""
    return {
        place: (value, value._version)
        for place in snapshot(module)
        if isinstance(value := read(module, place), Tensor)
    }


def written(before: dict[Place, tuple[Tensor, int]], module: nn.Module) -> list[Place]:
    """Return the places that were written since `before`, be it with the values that they had."""
    after = stamps(module)
    return [
        place
        for place, (value, version) in before.items()
        if place in after and (after[place][0] is not value or after[place][1] != version)
    ]


def parameter_stamps(module: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Return by parameter what differs once it was written to or another was put in its place."""
    return {name: (id(value), value.data_ptr(), value._version) for name, value in module.named_parameters()}


def changed(before: dict[Place, Any], after: dict[Place, Any]) -> list[Place]:
    """Return the places whose value differs, in the order of `after`, then those that vanished."""
    places = [place for place, value in after.items() if place not in before or differ(before[place], value)]
    return places + [place for place in before if place not in after]


def read(module: nn.Module, place: Place) -> Any:
    """Return the value at `place`, None where there is none."""
    value = getattr(submodule(module, place.module), place.attribute, None)
    for name in place.inside:
        parts = dict(children(value) or ())
        value = parts.get(name)
    return value


Templates = dict[tuple[str, str], Any]


def templates(module: nn.Module, places: list[Place]) -> Templates:
    """Return what lies in the attributes that hold `places`; those that do not exist yet are left out."""
    found = {(place.module, place.attribute): submodule(module, place.module) for place in places}
    return {key: getattr(part, key[1]) for key, part in found.items() if hasattr(part, key[1])}


def put_back(module: nn.Module, places: list[Place], held: Templates) -> None:
    """Make the attributes that hold `places` what they were when `templates` returned `held`."""
    for path, attribute in {(place.module, place.attribute) for place in places}:
        part = submodule(module, path)
        if (path, attribute) in held:
            object.__setattr__(part, attribute, held[path, attribute])
        elif hasattr(part, attribute):
            object.__delattr__(part, attribute)


def write(module: nn.Module, values: dict[Place, Any], shapes: Templates) -> None:
    """Put values in their places; `shapes` tells the structure of attributes that hold several."""
    whole: dict[tuple[str, str], dict[Path, Any]] = {}
    for place, value in values.items():
        whole.setdefault((place.module, place.attribute), {})[place.inside] = value
    for (path, attribute), leaves in whole.items():
        part = submodule(module, path)
        value = leaves[()] if () in leaves else replace(shapes[path, attribute], leaves)
        if attribute in part._buffers:
            part._buffers[attribute] = value
        else:
            object.__setattr__(part, attribute, value)


def cast(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
    """Convert the tensors of attributes, which `nn.Module._apply` leaves as they are."""
    found = {
        place: convert(value)
        for place in snapshot(module)
        if place.attribute not in submodule(module, place.module)._buffers
        and isinstance(value := read(module, place), Tensor)
    }
    write(module, found, templates(module, list(found)))


def unregister(module: nn.Module, places: list[Place]) -> list[Place]:
    """Make the buffers among `places` plain attributes, so that capture sees them as values; return them."""
    found = []
    for place in places:
        part = submodule(module, place.module)
        if place.attribute in part._buffers:
            value = part._buffers.pop(place.attribute)
            part._non_persistent_buffers_set.discard(place.attribute)
            object.__setattr__(part, place.attribute, value)
            found.append(place)
    return found


@contextlib.contextmanager
def registered(module: nn.Module, places: list[Place]) -> Iterator[None]:
    """Let the attributes at `places` be buffers while the block runs: forward may look for them there."""
    for place in places:
        part = submodule(module, place.module)
        part._buffers[place.attribute] = part.__dict__.pop(place.attribute)
    try:
        yield
    finally:
        for place in places:
            part = submodule(module, place.module)
            if place.attribute in part._buffers:
                object.__setattr__(part, place.attribute, part._buffers.pop(place.attribute))


def as_buffer(module: nn.Module, name: str) -> None:
    """Make a parameter a buffer, which may change."""
    path, _, attribute = name.rpartition(".")
    part = submodule(module, path)
    value = part._parameters.pop(attribute)
    assert value is not None
    part.register_buffer(attribute, value.detach())


def _mine(name: str) -> bool:
    """Whether an attribute with a leading underscore belongs to the user, not to nn.Module."""
    return name not in _TORCH_NAMES


_TORCH_NAMES = frozenset(vars(nn.Module())) | {
    "_flat_weights",
    "_flat_weights_names",
    "_flat_weight_refs",
    "_all_weights",
}


def _leaves(value: Any) -> list[tuple[Path, Any]]:
    if isinstance(value, nn.Module | type) or (callable(value) and not isinstance(value, Tensor)):
        return []
    return flatten(value)


def differ(old: Any, new: Any) -> bool:
    """Whether two values are not the same; NaN is NaN."""
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        if old.shape != new.shape or old.dtype != new.dtype:
            return True
        return (
            not torch.equal(torch.nan_to_num(old), torch.nan_to_num(new))
            if old.is_floating_point()
            else not (torch.equal(old, new))
        )
    return type(old) is not type(new) or (not isinstance(old, Tensor) and bool(old != new))
