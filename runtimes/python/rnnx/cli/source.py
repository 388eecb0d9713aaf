"""What the commands accept as the network itself: a checkpoint of `rnnx train`, or a module by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnx.contract import Contract

if TYPE_CHECKING:
    from torch import nn

    from rnnx_export.reference import StepReference


@dataclasses.dataclass(frozen=True)
class Network:
    """A module in eval mode and the arguments that `rnnx.export` needs for it."""

    module: nn.Module
    arguments: dict[str, Any]


def open_network(
    source: str, *, weights: Path | None = None, kwargs: list[str] | None = None, inputs: list[str] | None = None,
    state: list[str] | None = None, constants: list[str] | None = None,
) -> Network:  # fmt: skip
    """Return the network behind a source given on the command line.

    Raises:
        UsageError, FileError, ModelError: as `rnnx_models.checkpoint.load_checkpoint` and
            `rnnx_export.source.open_source` do.
    """
    if ":" not in Path(source).name:
        from rnnx_models.checkpoint import export_arguments, load_checkpoint

        checkpoint = load_checkpoint(source)
        return Network(checkpoint.module, {**export_arguments(checkpoint), "returns": ("logits", "state")})
    from rnnx_export.source import open_source, parse_specs, parse_values

    found = open_source(
        source,
        weights=None if weights is None else str(weights),
        kwargs=parse_values(kwargs or [], "--kwargs"),
    )
    arguments: dict[str, Any] = {
        "inputs": parse_specs(inputs or [], "--inputs"),
        "state": parse_specs(state or [], "--state"),
        "constants": parse_values(constants or [], "--constants"),
        "method": found.method,
    }
    return Network(found.module, arguments)


def open_reference(network: Network, contract: Contract) -> StepReference:
    """Return a network as the reference of the model that was exported from it.

    Raises:
        UsageError: `other-network` if the network's states are not those of the contract.
    """
    from rnnx_export.reference import open_reference as reference

    return reference(network.module, contract, network.arguments)
