"""What a session asks of an engine: to open calls, to place states, to move rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rnnx.model.contract import Contract
from rnnx.model.shapes import Array

Shape = tuple[int, ...]


Device = tuple[int, int]


class Call(Protocol):
    """State buffers bound to fixed shapes.

    Attributes:
        inputs: arrays by input name, on the host, to be written before `run`.
        outputs: arrays by output name, on the host, that hold the results of the latest `run`. An array
            is replaced, not rewritten, where its shape was not known when the call was prepared.
        device: as the engine's.
        on_device: inputs that `take` took since it was emptied: `run` leaves their host arrays alone.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    device: Device | None
    on_device: set[str]

    def take(self, name: str, value: Any) -> None:
        """Copy an input from where it lies on `device`; its values do not visit the host.

        Args:
            name: of the input.
            value: of the input's dtype and as many elements, in DLPack's protocol.

        Raises:
            InputError: `not-contiguous`.
        """

    def run(self, index: int) -> None:
        """Compute from state buffer `index` (0 or 1) into the other one.

        Raises:
            ModelError: `engine-failed` if the engine stops; buffer `index` is untouched.
        """


class StateBuffers(Protocol):
    """The states of one stream, double-buffered: a step reads one buffer and writes the other.

    They may hold many streams, one to a row of the states' batch axes; a pool keeps a table of them, of one
    buffer, and moves rows from there to the buffers that compute and back.
    """

    def gather(self, index: int, table: StateBuffers, rows: Array) -> None:
        """Overwrite all states of buffer `index` with those rows of `table`, of the same engine.

        Args:
            index: of the buffer, 0 or 1.
            table: whose buffer 0 is read; its states differ from these in the batch alone.
            rows: int64 [batch of these states], rows of the table.
        """

    def scatter(self, index: int, table: StateBuffers, rows: Array) -> None:
        """Write all states of buffer `index` to those rows of buffer 0 of `table`: the inverse of `gather`.

        Other rows are not touched. No row stands in `rows` twice.
        """

    def read(self, index: int, name: str) -> Array:
        """Return a copy of a state, by its name in the contract."""

    def write(self, index: int, name: str, value: Array) -> None:
        """Overwrite a state with `value`, which has its exact dtype and shape."""

    def prepare(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape | None]) -> Call:
        """Bind buffers of these shapes, those of the graph; None is a shape known only after a run."""


class Engine(Protocol):
    """A loaded model: immutable, shared between threads.

    Attributes:
        provider: its name for users.
        device: where it computes, if inputs may lie there: DLPack's kind of device and its number. None for
            the host's memory.
    """

    provider: str
    device: Device | None

    def open(self, states: Mapping[str, Shape], *, buffers: int = 2) -> StateBuffers:
        """Return buffers for states of these shapes, their values not set; a single one cannot be run."""


class Loaded(Protocol):
    """What streams and pools run: a session, as far as they need it.

    Attributes:
        contract: of the model.
        engine: what computes.
        id: of the model.
    """

    @property
    def contract(self) -> Contract:
        """Of the model."""

    @property
    def engine(self) -> Engine:
        """What computes."""

    @property
    def id(self) -> str:
        """Of the model."""
