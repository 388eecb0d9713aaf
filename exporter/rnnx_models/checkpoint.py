"""Checkpoints: weights as safetensors, with configuration and vocabulary in the metadata. No pickle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from rnnx.errors import ModelError, RnnxError
from rnnx_models.networks import CharNetwork, NetworkConfig
from rnnx_models.tensor_file import read_tensors, write_tensors

METADATA_KEY = "rnnx.checkpoint"
VERSION = 1


@dataclass(frozen=True)
class TrainingRecord:
    """How the weights came about. Holds no times: the same run gives the same file.

    Attributes:
        steps: training steps taken.
        validation_nats: loss on held-out text, in nats a character; lower is better.
        seed: the seed of the run.
        torch: version of PyTorch.
        rnnx: version of rnnx.
    """

    steps: int
    validation_nats: float
    seed: int
    torch: str
    rnnx: str


@dataclass(frozen=True)
class Checkpoint:
    """A trained network: configuration, vocabulary, the module in evaluation mode, and its record."""

    config: NetworkConfig
    vocabulary: tuple[str, ...]
    module: CharNetwork
    record: TrainingRecord | None


class _Document(msgspec.Struct, kw_only=True):
    version: int
    network: NetworkConfig
    vocabulary: list[str]
    record: TrainingRecord | None = None


def save_checkpoint(
    path: str | os.PathLike[str],
    module: CharNetwork,
    vocabulary: tuple[str, ...],
    record: TrainingRecord | None = None,
) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        FileError: as `rnnx.files.writing`.
    """
    document = _Document(version=VERSION, network=module.config, vocabulary=list(vocabulary), record=record)
    text = msgspec.json.encode(document).decode()
    write_tensors(Path(path), module.state_dict(), METADATA_KEY, text)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and check all of it.

    Raises:
        FileError: `file-missing`, `cannot-read`, `checkpoint-is-pickle` or `not-safetensors`.
        ModelError: `not-a-checkpoint`, `checkpoint-newer`, `checkpoint-invalid`, `weights-missing`,
            `weights-unexpected`, `weights-shape`, `weights-dtype` or `weights-not-finite`.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path, what="a checkpoint")
    if METADATA_KEY not in metadata:
        raise ModelError(
            "not-a-checkpoint",
            expected=f"a checkpoint of rnnx at {path} (metadata {METADATA_KEY})",
            found=f"a safetensors file with {len(tensors)} tensors and no configuration",
            fix="use a file that 'rnnx train' wrote; export other modules as MODULE.py:CLASS --weights FILE",
        )
    document = _parse(path, metadata[METADATA_KEY])
    with torch.device("meta"):  # shapes only: no memory and no random numbers before the check
        module = CharNetwork(document.network)
    check_weights(path, tensors, module.state_dict())
    module.load_state_dict(tensors, assign=True)
    return Checkpoint(document.network, tuple(document.vocabulary), module.eval(), document.record)


def check_weights(path: Path, found: dict[str, Tensor], expected: dict[str, Any]) -> None:
    """Check names, shapes, dtypes and values of weights against those of the network.

    Raises:
        ModelError: `weights-missing`, `weights-unexpected`, `weights-shape`, `weights-dtype` or
            `weights-not-finite`.
    """
    fix = "train the checkpoint again, or use the file it was copied from"
    for code, names in (
        ("weights-missing", expected.keys() - found.keys()),
        ("weights-unexpected", found.keys() - expected.keys()),
    ):
        if names:
            wrong = "missing" if code == "weights-missing" else "that do not belong there"
            raise ModelError(
                code,
                expected=f"the {len(expected)} weights of the network in {path}",
                found=f"{len(names)} {wrong}: {', '.join(sorted(names))}",
                fix=fix,
            )
    for name, want in expected.items():
        tensor = found[name]
        code = "weights-shape" if tensor.shape != want.shape else "weights-dtype"
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise ModelError(
                code, expected=f"{name} to be {_describe(want)} in {path}", found=_describe(tensor), fix=fix
            )
        bad = ~torch.isfinite(tensor)
        if bad.any():
            index = bad.nonzero()[0].tolist()
            raise ModelError(
                "weights-not-finite",
                expected=f"finite weights in {path}",
                found=f"{tensor[tuple(index)].item()} in {name} at index {index}, {int(bad.sum())} in all",
                fix=fix,
            )


def export_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the exporter needs to know of a checkpoint's module.

    Returns:
        "inputs": specs of forward's inputs by parameter name, "state": specs of its states by parameter
        name, "vocabulary": the symbols. Axes are in the order of the module's `batch_first`.
    """
    config = checkpoint.config
    axes = "batch, time" if config.batch_first else "time, batch"
    state = f"float32[{config.num_layers}, batch, {config.hidden_size}]"
    return {
        "inputs": {"token": f"int64[{axes}] in 0..{config.vocabulary_size - 1}"},
        "state": {"state": dict.fromkeys(config.state_names, state)},
        "vocabulary": list(checkpoint.vocabulary),
    }


def _parse(path: Path, text: str) -> _Document:
    def invalid(found: str) -> ModelError:
        return ModelError(
            "checkpoint-invalid",
            expected=f"a valid configuration and vocabulary in {path}",
            found=found,
            fix="train the checkpoint again, or use the file it was copied from",
        )

    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version > VERSION:
            raise ModelError(
                "checkpoint-newer",
                expected=f"a checkpoint of version {VERSION} at most in {path}",
                found=f"version {version}",
                fix="install a newer rnnx",
            )
        document = msgspec.json.decode(text, type=_Document)
    except RnnxError as error:  # raised by NetworkConfig's own checks, or just above
        if isinstance(error, ModelError):
            raise
        raise invalid(str(error)) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise invalid(str(error)) from error
    symbols = document.vocabulary
    if len(symbols) != document.network.vocabulary_size:
        raise invalid(f"{len(symbols)} symbols for a network over {document.network.vocabulary_size}")
    if len(set(symbols)) != len(symbols) or any(len(symbol) != 1 for symbol in symbols):
        raise invalid("symbols that are not distinct single characters")
    return document


class _Version(msgspec.Struct):
    version: int


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
