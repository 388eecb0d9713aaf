"""The states of a stream as a mapping: reading gives a copy, assigning checks and overwrites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from rnnx.model.contract import Contract, unknown_name
from rnnx.model.shapes import Array
from rnnx.runtime import initial_states


class StateView(MutableMapping[str, Array]):
    """The states of a stream by name. Reading copies; assigning checks dtype, shape and NaN.

    Args:
        owner: whose states they are, to be shown.
        contract: of the model.
        sizes: of batch and free dimensions.
        read: returns a copy of a state.
        write: overwrites states that were checked, all of them or none.
    """

    def __init__(
        self,
        owner: object,
        contract: Contract,
        sizes: Mapping[str, int],
        read: Callable[[str], Array],
        write: Callable[[Mapping[str, Array]], None],
    ) -> None:
        self._owner, self._contract, self._sizes = owner, contract, sizes
        self._names = [state.name for state in contract.states]
        self._read, self._write = read, write

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        return f"<states {', '.join(self._names)} of {self._owner!r}>"

    def __getitem__(self, name: str) -> Array:
        """Return a copy of the state called `name`, in its shape in the contract with sizes filled in."""
        if name not in self._names:
            raise unknown_name("state", name, self._names)
        return self._read(name)

    def __setitem__(self, name: str, value: Any) -> None:
        """Overwrite a state. Raises InputError for another name, dtype or shape, and for NaN."""
        self.update({name: value})

    def update(self, *others: Any, **values: Any) -> None:
        """Overwrite several states, all of them or, if one is refused, none. Raises as assigning does."""
        replaced = dict(*others, **values)
        arrays = {
            name: initial_states.state_array(self._contract, name, value, self._sizes)
            for name, value in replaced.items()
        }
        self._write(arrays)

    def __delitem__(self, name: str) -> None:
        """Refuse: a model always has all of its states."""
        raise TypeError("a state cannot be deleted; use stream.reset()")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of the contract."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of states."""
        return len(self._names)
