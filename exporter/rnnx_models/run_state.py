"""Everything a training run carries, and the file that lets it go on as though never stopped.

The file lies beside the checkpoint, `poet.resume.safetensors` for `poet.safetensors`: weights, optimizer,
recurrent state, random generator, loss history, and the settings the run began with. It is not a
checkpoint: the checkpoint holds the best weights so far, this file the latest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from rnnx.errors import FileError, RnnxError, UsageError
from rnnx_models.checkpoint import check_weights
from rnnx_models.networks import CharNetwork, States
from rnnx_models.tensor_file import read_tensors, write_tensors

METADATA_KEY = "rnnx.resume"
VERSION = 1


@dataclass
class History:
    """The loss curve. Losses are nats a character; `steps` counts training steps."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    validation_steps: list[int] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)


@dataclass
class RunState:
    """A training run between two steps.

    Attributes:
        network: the weights, latest.
        optimizer: AdamW over them.
        states: the recurrent state that the next batch begins with, each float32 [layers, batch, hidden].
        step: steps taken.
        elapsed_seconds: time taken, over all parts of the run.
        best_nats: lowest validation loss so far, in nats a character.
        history: the loss curve so far.
        recent: training losses since the last point of the curve.
    """

    network: CharNetwork
    optimizer: torch.optim.AdamW
    states: States
    step: int = 0
    elapsed_seconds: float = 0.0
    best_nats: float = math.inf
    history: History = field(default_factory=History)
    recent: list[float] = field(default_factory=list)


class _Document(msgspec.Struct, kw_only=True):
    version: int
    settings: dict[str, Any]
    step: int
    elapsed_seconds: float
    best_nats: float | None
    history: History
    recent: list[float]


def resume_path(checkpoint: Path) -> Path:
    """Return where the run that writes `checkpoint` is kept: poet.resume.safetensors beside it."""
    return checkpoint.with_name(f"{checkpoint.stem}.resume.safetensors")


def save_run(path: Path, run: RunState, settings: dict[str, Any]) -> None:
    """Write the run, whole or not at all.

    Args:
        path: the file, see `resume_path`.
        run: the run.
        settings: what must be the same when it goes on: flat, by name.

    Raises:
        FileError: as `rnnx.files.writing`.
    """
    tensors = {f"weight.{name}": tensor for name, tensor in run.network.state_dict().items()}
    for index, values in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items()}
    tensors |= {f"state.{name}": tensor for name, tensor in run.states.items()}
    tensors["generator"] = torch.random.get_rng_state()  # uint8 [bytes]
    document = _Document(
        version=VERSION,
        settings=settings,
        step=run.step,
        elapsed_seconds=run.elapsed_seconds,
        best_nats=run.best_nats if math.isfinite(run.best_nats) else None,
        history=run.history,
        recent=run.recent,
    )
    write_tensors(path, tensors, METADATA_KEY, msgspec.json.encode(document).decode())


def load_run(path: Path, run: RunState, settings: dict[str, Any]) -> None:
    """Fill a fresh run, and torch's CPU generator, from the file.

    Args:
        path: the file.
        run: a run that has just begun, with the network and optimizer of `settings`.
        settings: as given to `save_run`.

    Raises:
        FileError: `file-missing`, `not-safetensors` and the like, or `resume-damaged`.
        UsageError: `resume-differs`, naming the first setting that is not what the run began with.
        ModelError: as `check_weights`.
    """
    tensors, metadata = read_tensors(path, what="a run to resume")
    try:
        document = msgspec.json.decode(metadata.get(METADATA_KEY, ""), type=_Document)
    except msgspec.DecodeError as error:
        raise _damaged(path, f"metadata that are not ({error})") from error
    if document.version > VERSION:
        raise _damaged(path, f"one of version {document.version}, made by a newer rnnx")
    _check_settings(document.settings, settings)
    weights = _under(tensors, "weight.")
    check_weights(path, weights, run.network.state_dict())
    try:
        run.network.load_state_dict(weights)
        _load_optimizer(run.optimizer, _under(tensors, "optimizer."))
        states = _under(tensors, "state.")
        if {name: tensor.shape for name, tensor in states.items()} != {
            name: tensor.shape for name, tensor in run.states.items()
        }:
            raise _damaged(path, "recurrent states of another shape")
        run.states = states
        torch.random.set_rng_state(tensors["generator"])
    except RnnxError:
        raise
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    run.step = document.step
    run.elapsed_seconds = document.elapsed_seconds
    run.best_nats = math.inf if document.best_nats is None else document.best_nats
    run.history = document.history
    run.recent = document.recent


def _load_optimizer(optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    if state:
        parameters = optimizer.param_groups[0]["params"]
        expected = {
            (index, key): weight.shape if key != "step" else torch.Size()
            for index, weight in enumerate(parameters)
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
        found = {
            (index, key): tensor.shape for index, entry in state.items() for key, tensor in entry.items()
        }
        if found != expected:
            raise ValueError("optimizer state that does not belong to these weights")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_settings(began: dict[str, Any], now: dict[str, Any]) -> None:
    for name in sorted(began.keys() | now.keys()):
        if began.get(name) != now.get(name):
            raise UsageError(
                "resume-differs",
                expected=f"{name} = {began.get(name)!r}, as the run began",
                found=f"{now.get(name)!r}",
                fix="resume with the same text and settings; only --steps and --minutes may change",
            )


def _damaged(path: Path, found: str) -> FileError:
    return FileError(
        "resume-damaged",
        expected=f"a run to resume in {path}",
        found=found,
        fix="leave --resume out to begin again",
    )
