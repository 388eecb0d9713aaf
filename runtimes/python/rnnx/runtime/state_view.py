"""The states of a stream as a mapping: reading gives a copy, assigning checks and overwrites."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from rnnx.model.contract import unknown_name
from rnnx.model.shapes import Array
from rnnx.runtime import initial_states

if TYPE_CHECKING:
    from rnnx.runtime.stream import Stream


class StateView(MutableMapping[str, Array]):
    """The states of a stream by name. Reading copies; assigning checks dtype, shape and NaN."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        return f"<states {', '.join(self._stream._specs)} of {self._stream!r}>"

    def __getitem__(self, name: str) -> Array:
        """Return a copy of the state called `name`, in its shape in the contract with sizes filled in."""
        if name not in self._stream._specs:
            raise unknown_name("state", name, list(self._stream._specs))
        return self._stream._get_state(name)

    def __setitem__(self, name: str, value: Any) -> None:
        """Overwrite a state. Raises InputError for another name, dtype or shape, and for NaN."""
        self.update({name: value})

    def update(self, *others: Any, **values: Any) -> None:
        """Overwrite several states, all of them or, if one is refused, none. Raises as assigning does."""
        stream = self._stream
        given = dict(*others, **values)
        arrays = {
            name: initial_states.state_array(stream._contract, name, value, stream._sizes)
            for name, value in given.items()
        }
        stream._set_states(arrays)

    def __delitem__(self, name: str) -> None:
        """Refuse: a model always has all of its states."""
        raise TypeError("a state cannot be deleted; use stream.reset()")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of the contract."""
        return iter(self._stream._specs)

    def __len__(self) -> int:
        """Return the number of states."""
        return len(self._stream._specs)
