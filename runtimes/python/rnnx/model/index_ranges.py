"""Which integers an input takes: ids of a vocabulary, lengths of rows, or those in its range."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rnnx.model.contract import Contract, InputSpec


class Bounds(NamedTuple):
    """The integers that may reach an engine, which may read out of bounds on others.

    Attributes:
        kind: what they are: the error is `KIND-range`.
        least, largest: inclusive.
    """

    kind: Literal["symbol", "length", "value"]
    least: int
    largest: int

    @property
    def allowed(self) -> str:
        """The values in words."""
        name = {"symbol": "ids", "length": "lengths", "value": "values"}[self.kind]
        return f"{name} in {self.least}..{self.largest}"

    @property
    def fix(self) -> str:
        """What a caller can do who gave others."""
        return {
            "symbol": "encode the text with the model's own vocabulary",
            "length": "give the number of valid steps of each row in this call",
            "value": "give values in the range that the model was exported for",
        }[self.kind]


def bounds_of(contract: Contract, spec: InputSpec, *, time: int = 0) -> Bounds | None:
    """Return the bounds of an input, None if it has none: floats have a range for tests alone.

    Args:
        contract: of the model.
        spec: the input.
        time: number of steps in the call, which bounds lengths.
    """
    vocabulary = contract.vocabulary
    if vocabulary is not None and vocabulary.input == spec.name:
        return Bounds("symbol", 0, len(vocabulary.symbols) - 1)
    if spec.role == "length":
        return Bounds("length", 0, time)
    if spec.range is not None and "int" in spec.dtype:
        return Bounds("value", int(spec.range[0]), int(spec.range[1]))
    return None
