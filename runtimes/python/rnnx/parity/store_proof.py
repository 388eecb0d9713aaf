"""Keeping a verdict in the model itself: tamper-evident, not signed.

The proof in the contract names the id of the file it was made for. Whoever changes a weight changes the id,
and the proof no longer holds; but anyone can write another proof.
"""

from __future__ import annotations

import os

import msgspec

from rnnx.errors import ParityError
from rnnx.files import write_bytes
from rnnx.model.contract import Contract, Proof
from rnnx.model.onnx_file import read_contract, read_model, write_contract
from rnnx.parity.verdict import Parity


def record_parity(path: str | os.PathLike[str], found: Parity) -> Contract:
    """Write a verdict into the model's contract, bound to the id that was compared.

    Args:
        path: of the model that was compared.
        found: the verdict.

    Returns:
        The contract as it stands in the file now.

    Raises:
        ParityError: `nothing-to-record` if the model disagrees, the comparison was interrupted, or the file
            is no longer the one that was compared. It is left as it was.
        FileError: as `rnnx.files.writing`.
    """
    model = read_model(path)
    contract = read_contract(model)
    why_not = None
    if model.id != found.model["id"]:
        why_not = f"a file that was changed since: {model.id}"
    elif not found.agrees or found.interrupted:
        why_not = f"a model that {found.summary}"
    if why_not is not None:
        raise ParityError(
            "nothing-to-record",
            expected="a model that agrees with its reference to the last step",
            found=why_not,
            fix="compare it again; the file is as it was",
        )
    errors = [
        error
        for runtime in found.runtimes
        for errors in runtime.max_errors.values()
        for error in errors.values()
    ]
    levels = dict.fromkeys(name for runtime in found.runtimes for name in runtime.tolerance)
    before = contract.proof
    proof = Proof(
        reference=found.reference,
        tolerance=", ".join(levels),
        batches=[found.batch],
        steps=found.steps,
        id=model.id,
        way=before.way if before else None,
        not_direct=before.not_direct if before else None,
        max_error=float(f"{max(errors, default=0.0):.2g}"),
        runtimes=[runtime.provider for runtime in found.runtimes],
    )
    contract = msgspec.structs.replace(contract, id=model.id, proof=proof)
    write_bytes(path, write_contract(model.data, contract))
    return contract
