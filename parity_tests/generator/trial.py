"""One case: a network is exported, and it and its file are held to what it gives by construction."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import rnnx
from generator.axes import Network
from generator.cells import Array
from generator.compose import build
from generator.expected import Expected, drive, expected_of, filled
from generator.layout import begins_as_none, entries, shape, state_parameters
from rnnx.errors import RnnxError
from rnnx.tolerance import error_beyond, level_of

STEPS = 200
BATCHES = (1, 3, 4)
# Longer runs are held to the bound of one step: none of the cells enlarges rounding.
BOUND = level_of("float32").step


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a case ended: "equal", "refused", "wrong" or "exception"; a refusal's code; what was said."""

    kind: str
    code: str = ""
    detail: str = ""


class MismatchError(Exception):
    """Something is not what the network gives."""


def specs(network: Network, module: nn.Module) -> dict[str, Any]:
    """Return the arguments of `rnnx.export`: no `returns`, and nothing of what the generator knows beside."""
    rows = ["time", "batch"] if network.time_first else ["batch", "time"]
    there = {"time": network.has_time, "batch": network.batched}
    sizes = (*(axis for axis in rows if there[axis]), network.sizes[0])
    found: dict[str, Any] = {"inputs": {"x": spec("float32", sizes)}}
    given = entries(network, "argument")
    if given and network.none == "None":
        found["state"] = dict.fromkeys(state_parameters(network))
    elif given:
        values = {entry.name: spec(entry.slot.dtype, shape(network, entry.slot, "batch")) for entry in given}
        nothing = dict.fromkeys(entry.name for entry in begins_as_none(network, given))
        found["state"] = filled(network, module, {**values, **nothing})
    return found


def spec(dtype: str, sizes: tuple[Any, ...]) -> str:
    """Return the text of a spec."""
    return f"{dtype}[{', '.join(map(str, sizes))}]"


def attempt(network: Network, *, change: Callable[[Path], None] | None = None, steps: int = STEPS) -> Verdict:
    """Export a network and compare; `change` may spoil the file first, to show that it is seen.

    Raises:
        MismatchError: the network in PyTorch does not give what it should: a fault of this generator.
    """
    module = build(network)
    runs = check_itself(network, module, steps=steps)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        verdict = ended(lambda: rnnx.export(module, path, **specs(network, module)))
        if verdict.kind == "equal" and change is not None:
            change(path)
        return ended(lambda: hold(network, path, runs)) if verdict.kind == "equal" else verdict


def ended(do: Callable[[], object]) -> Verdict:
    """Return how a part of a case ended."""
    try:
        do()
    except RnnxError as error:
        return Verdict("refused", error.code, str(error))
    except MismatchError as error:
        return Verdict("wrong", "", str(error))
    except Exception as error:  # whatever is no RnnxError is what this looks for
        return Verdict("exception", type(error).__name__, str(error))
    return Verdict("equal")


def hold(network: Network, path: Path, runs: list[Expected]) -> None:
    """Hold a file to what its network gives, in steps and in chunks.

    Raises:
        MismatchError: it gives something else.
        StreamError: `whole-only`: it cannot be stepped.
    """
    session = rnnx.load(path, options={"threads": 1})
    for run in runs:
        compare(run, by_steps(network, session, run), "stepped")
        compare(run, by_chunks(network, session, run), "in chunks")


def check_itself(network: Network, module: nn.Module, *, steps: int) -> list[Expected]:
    """Return what the network gives at each batch, once PyTorch has given the same.

    Raises:
        MismatchError: it has not.
    """
    runs = [
        expected_of(network, module, batch=b if network.batched else 1, steps=steps, seed=b) for b in BATCHES
    ]
    for index, run in enumerate(runs):
        compare(run, drive(network, module, run, cuts_of(network, steps, index)), "PyTorch")
    return runs


def cuts_of(network: Network, steps: int, seed: int) -> list[int]:
    """Return where calls of the module begin, but the first: at each step, at random, or nowhere."""
    if network.whole:
        return []
    if not network.has_time:
        return list(range(1, steps))
    return sorted(set(np.random.default_rng((network.seed, seed)).integers(1, steps, 7).tolist()))


def by_steps(network: Network, session: rnnx.Session, run: Expected) -> Expected:
    """Run the file step by step."""
    batch = run.x.shape[1] if network.batched else 1
    with session.stream(batch=batch) as stream:
        rows = [list(stream.step(frame).values()) for frame in run.x]
        return Expected(run.x, [np.stack(column) for column in zip(*rows, strict=True)], dict(stream.state))


def by_chunks(network: Network, session: rnnx.Session, run: Expected) -> Expected:
    """Run the file in chunks; an output without time is held to its value at each chunk's end."""
    batch, steps = run.x.shape[1] if network.batched else 1, len(run.x)
    cuts = sorted(set(np.random.default_rng(network.seed).integers(1, steps, 6).tolist()))
    swap = network.batched and not network.time_first
    outputs: list[Array] = [value.copy() for value in run.outputs]
    with session.stream(batch=batch) as stream:
        for first, behind in itertools.pairwise([0, *cuts, steps]):
            chunk = run.x[first:behind]
            got = stream.run(np.ascontiguousarray(chunk.swapaxes(0, 1)) if swap else chunk)
            for index, spec in enumerate(session.contract.outputs[: len(outputs)]):
                value = got[spec.name]
                if network.has_time and "time" not in spec.shape:
                    outputs[index][behind - 1] = value
                else:
                    outputs[index][first:behind] = value.swapaxes(0, 1) if swap else value
        extra = [np.zeros(0) for _ in session.contract.outputs[len(outputs) :]]
        return Expected(run.x, [*outputs, *extra], dict(stream.state))


def compare(run: Expected, got: Expected, how: str) -> None:
    """Hold a run to what it should be.

    Raises:
        MismatchError: an output or a state of the argument is missing, too many, of another shape or value.
    """
    if len(got.outputs) != len(run.outputs):
        raise MismatchError(f"{how}: {len(run.outputs)} outputs expected, {len(got.outputs)} found")
    missing = sorted(set(run.states) - set(got.states))
    if missing:
        raise MismatchError(f"{how}: no state {', '.join(missing)} among {', '.join(got.states)}")
    batch = run.x.shape[1] if run.x.ndim == 3 else 1
    outputs = enumerate(zip(run.outputs, got.outputs, strict=True))
    pairs = [(f"output {index}", *pair) for index, pair in outputs]
    pairs += [(f"state {name}", value, got.states[name]) for name, value in run.states.items()]
    for name, expected, value in pairs:
        if value.shape != expected.shape:
            raise MismatchError(f"{how}, batch {batch}: {name} is {value.shape}, expected {expected.shape}")
        beyond = error_beyond(BOUND, expected.astype(np.float64), value.astype(np.float64))
        if not np.all(beyond <= 0):
            index = tuple(int(i) for i in np.argwhere(~(beyond <= 0))[0])
            said = f"expected {expected[index]:.7g}, got {value[index]:.7g}"
            raise MismatchError(f"{how}, batch {batch}: {name}{list(index)}: {said}")
