"""What the commands accept as the network itself: a checkpoint of `rnnx train`, or a module by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnx.errors import UsageError
from rnnx.files import file_and_key
from rnnx.model.contract import Contract

if TYPE_CHECKING:
    from torch import nn

    from rnnx_export.proof.module_reference import ModuleReference


@dataclasses.dataclass(frozen=True)
class Network:
    """A module in eval mode and the arguments that `rnnx.export` needs for it; `make` makes it once more."""

    module: nn.Module
    arguments: dict[str, Any]
    make: Callable[[], Any] | None = None


def open_network(
    source: str,
    *,
    weights: Path | None = None,
    kwargs: list[str] | None = None,
    inputs: list[str] | None = None,
    state: list[str] | None = None,
    constants: list[str] | None = None,
    returns: str | None = None,
) -> Network:
    """Return the network behind a source given on the command line.

    Raises:
        UsageError: `arguments` for flags that a checkpoint settles itself.
        UsageError, FileError, ModelError: as `rnnx_models.checkpoint.load_checkpoint` and
            `rnnx_export.module.source.open_source` do.
    """
    if Path(source).suffix.lower() == ".onnx":
        raise UsageError(
            "arguments",
            expected="a network: a checkpoint (.safetensors), or a module as file.py:Name",
            found=f"the ONNX file {source}",
            fix="name what the file was exported from",
        )
    if not _is_module(source):
        flags: dict[str, object] = {"weights": weights, "kwargs": kwargs, "inputs": inputs, "state": state}
        flags |= {"constants": constants, "returns": returns}
        _refuse_flags(source, [name for name, value in flags.items() if value])
        from rnnx_models.checkpoint import export_arguments, load_checkpoint

        checkpoint = load_checkpoint(source)
        return Network(checkpoint.module, {**export_arguments(checkpoint), "returns": ("logits", "state")})
    from rnnx_export.module.source import open_source, parse_names, parse_specs, parse_values

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
    if returns is not None:
        arguments["returns"] = parse_names(returns)
    return Network(found.module, arguments, found.make)


def maybe_random(source: str, weights: Path | None) -> bool:
    """Whether a network may be made with new random weights each time: a module that none were given."""
    return weights is None and _is_module(source)


def has_random_weights(network: Network, source: str, weights: Path | None) -> bool:
    """Whether a network has other weights when it is made once more: then nobody gave it any."""
    if not maybe_random(source, weights) or network.make is None:
        return False
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() + 1)
        after = network.make().state_dict()
    return any(
        isinstance(value, torch.Tensor) and not torch.equal(value, after[name])
        for name, value in network.module.state_dict().items()
    )


def files_of(source: str, weights: Path | None) -> tuple[Path, ...]:
    """Return the files that a network is read from, which no command may overwrite."""
    home = Path(source.rpartition(":")[0]) if _is_module(source) else Path(source)
    return (home,) if weights is None else (home, Path(file_and_key(str(weights))[0]))


def _is_module(source: str) -> bool:
    return ":" in Path(source).name


def _refuse_flags(source: str, names: list[str]) -> None:
    if Path(source).suffix == ".py":
        raise UsageError(
            "arguments",
            expected="a checkpoint (.safetensors) or a module as file.py:Name",
            found=source,
            fix=f"name what is in it: {source}:Name",
        )
    if names:
        raise UsageError(
            "arguments",
            expected="a checkpoint alone, which says all there is to say, or a module as file.py:Name",
            found=f"{source} with {', '.join(f'--{name}' for name in names)}",
            fix="leave these flags out",
        )


def open_reference(network: Network, contract: Contract) -> ModuleReference:
    """Return a network as the reference of the model that was exported from it.

    Raises:
        UsageError: `other-network` if the network's states are not those of the contract.
    """
    from rnnx_export.proof.reference import open_reference as reference

    return reference(network.module, contract, network.arguments)
