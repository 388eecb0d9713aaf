"""What a model file says about itself, without running it."""

from __future__ import annotations

import dataclasses
import os

from rnnx.model.contract import Contract
from rnnx.model.onnx_file import ModelFile, read_contract, read_model


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A model file and the contract inside it, which agree with each other.

    Attributes:
        model: the file: size, operators, parameters, versions, id.
        contract: what it takes, gives and carries.
        proved_id: the id the file had when it was proved, "" if it never was.
    """

    model: ModelFile
    contract: Contract
    proved_id: str

    @property
    def is_as_proved(self) -> bool:
        """Whether the file is, byte for byte, the one the exporter proved."""
        return self.proved_id == self.model.id


def inspect_model(source: str | os.PathLike[str] | bytes) -> Inspection:
    """Read an ONNX file and its contract. Needs neither onnx nor onnxruntime.

    Args:
        source: the file, or its bytes.

    Raises:
        FileError: `file-missing` or `cannot-read`.
        ModelError: `not-onnx`, `external-data-missing`, `no-contract`, `contract-invalid`,
            `contract-newer`, `contract-requires` or `contract-graph`.
    """
    model = read_model(source)
    contract = read_contract(model)
    proved_id = (contract.proof.id or contract.id) if contract.proof else ""
    return Inspection(model=model, contract=contract, proved_id=proved_id)
