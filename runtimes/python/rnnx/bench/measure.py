"""Measuring what a step costs, several ways side by side.

The ways take turns in short rounds, so that whatever else the machine does touches all of them alike; ratios
are taken within rounds. Read the ratios, not the microseconds.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import pickle
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rnnx.bench.candidates import Contender, Loaded, Step
from rnnx.engines.environment import machine, package_versions
from rnnx.errors import RnnxError, UsageError

STREAMS = (1, 16, 64, 256)
_ROUNDS = 20
_WARM_SECONDS = 0.05
_FEWEST = {"p99": 100, "p99_9": 1000}  # steps without which a percentile says nothing


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a step of so many streams costs in one way.

    Attributes:
        contender: the way.
        streams: how many are advanced by a step.
        ratio: how many times as long as the first contender, the median over the rounds.
        steps_per_second: of all streams together, by the median.
        min_us, median_us, p99_us, p99_9_us: microseconds for one step of all streams; None where too few
            steps were done to tell.
        steps: how many were measured.
    """

    contender: str
    streams: int
    ratio: float
    steps_per_second: float
    min_us: float
    median_us: float
    p99_us: float | None
    p99_9_us: float | None
    steps: int


@dataclasses.dataclass(frozen=True)
class First:
    """What it takes to get going, in a process of its own.

    Attributes:
        contender: the way.
        seconds: from nothing but Python and NumPy to the end of the first step: import, load, step.
        memory_mb: MiB by which the most memory in use exceeds what that process had before; None where the
            system does not say.
    """

    contender: str
    seconds: float
    memory_mb: float | None


@dataclasses.dataclass(frozen=True)
class Bench:
    """All that was measured.

    Attributes:
        model: name of the file.
        timings: for each number of streams, each contender.
        first: for each contender.
        not_run: by contender, why it was left out.
        machine, versions: where.
    """

    model: str
    timings: list[Timing]
    first: list[First]
    not_run: dict[str, str]
    machine: str
    versions: dict[str, str]

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)


def measure(
    model: Path,
    contenders: Sequence[Contender],
    *,
    streams: Sequence[int] = STREAMS,
    seconds: float = 1.0,
    advanced: Callable[[int], None] | None = None,
) -> Bench:
    """Measure contenders side by side; ratios are to the first one.

    Args:
        model: the file, for the report.
        contenders: the ways; their names differ.
        streams: numbers of streams to advance by a step.
        seconds: for each contender and number of streams.
        advanced: called with the number of parts done, of `parts(contenders, streams)`.

    Raises:
        RnnxError: a contender that is not optional does not work here, or `process-died`.
    """
    not_run: dict[str, str] = {}
    first: list[First] = []
    timings: list[Timing] = []
    done = 0

    def note() -> None:
        nonlocal done
        done += 1
        if advanced is not None:
            advanced(done)

    for contender in contenders:
        found = _attempt(contender, functools.partial(_first_alone, contender), not_run)
        first += [] if found is None else [found]
        note()
    loaded: dict[str, Loaded] = {}
    for contender in contenders:
        if contender.name not in not_run:
            made = _attempt(contender, contender.load, not_run)
            loaded |= {} if made is None else {contender.name: made}
    for count in streams:
        steps: dict[str, Step] = {}
        for contender in contenders:
            if contender.name in loaded and contender.name not in not_run:
                opened = functools.partial(_warm, loaded[contender.name], count)
                step = _attempt(contender, opened, not_run)
                steps |= {} if step is None else {contender.name: step}
        timings += take_turns(steps, streams=count, seconds=seconds)
        note()
    return Bench(model.name, timings, first, not_run, machine(), package_versions())


def parts(contenders: Sequence[Contender], streams: Sequence[int]) -> int:
    """Return in how many parts `measure` does its work."""
    return len(contenders) + len(streams)


def take_turns(
    steps: dict[str, Step], *, streams: int, seconds: float, rounds: int = _ROUNDS
) -> list[Timing]:
    """Time steps by name, interleaved.

    Args:
        steps: functions that do one step, warm.
        streams: how many streams each advances.
        seconds: for each of them.
        rounds: turns that each gets.
    """
    samples: dict[str, list[list[int]]] = {name: [] for name in steps}
    budget = int(seconds / rounds * 1e9)
    for _ in range(rounds):
        for name, step in steps.items():
            samples[name].append(_block(step, budget))
    medians = {name: [statistics.median(block) for block in blocks] for name, blocks in samples.items()}
    base = next(iter(medians.values()), [])
    return [
        _timing(name, streams, [each / one for each, one in zip(medians[name], base, strict=True)], blocks)
        for name, blocks in samples.items()
    ]


def _block(step: Step, budget: int) -> list[int]:
    """Return the nanoseconds of single steps, as many as fit the budget, at least one."""
    clock = time.perf_counter_ns
    taken = []
    before = begin = clock()
    while True:
        step()
        now = clock()
        taken.append(now - before)
        if now - begin >= budget:
            return taken
        before = clock()


def _timing(name: str, streams: int, ratios: list[float], blocks: list[list[int]]) -> Timing:
    taken = sorted(each for block in blocks for each in block)

    def percentile(share: float, fewest: int) -> float | None:
        return taken[min(int(share * len(taken)), len(taken) - 1)] / 1e3 if len(taken) >= fewest else None

    median = statistics.median(taken)
    return Timing(
        contender=name,
        streams=streams,
        ratio=statistics.median(ratios),
        steps_per_second=streams / median * 1e9,
        min_us=taken[0] / 1e3,
        median_us=median / 1e3,
        p99_us=percentile(0.99, _FEWEST["p99"]),
        p99_9_us=percentile(0.999, _FEWEST["p99_9"]),
        steps=len(taken),
    )


def _warm(loaded: Loaded, streams: int) -> Step:
    """Open streams and step until everything is allocated, compiled and in the caches."""
    step = loaded.steps(streams)
    end = time.perf_counter() + _WARM_SECONDS
    for _ in range(3):
        step()
    while time.perf_counter() < end:
        step()
    return step


def _attempt(contender: Contender, call: Callable[[], Any], not_run: dict[str, str]) -> Any:
    """Return what `call` does, or None with the reason noted where an optional contender fails."""
    if contender.name in not_run:
        return None
    try:
        return call()
    except Exception as error:
        if not contender.optional:
            raise
        said = error.found if isinstance(error, RnnxError) else str(error).strip() or type(error).__name__
        not_run[contender.name] = said.splitlines()[0]
        return None


def _first_alone(contender: Contender) -> First:
    """Load and step in a fresh process.

    Raises:
        UsageError: `process-died`; or what the contender raises.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # Unpickled only there, inside the time taken: that imports what the contender needs.
    process = context.Process(target=_tell_first, args=(pickle.dumps(contender), sender), daemon=True)
    process.start()
    sender.close()  # so that the pipe ends when the process does
    try:
        found = receiver.recv()
    except EOFError:
        raise UsageError(
            "process-died",
            expected=f"a process of its own to load {contender.name!r} and do a step",
            found="one that ended before that",
            fix="in a script, measure below 'if __name__ == \"__main__\":'; else see that memory suffices",
        ) from None
    finally:
        process.terminate()
        process.join()
        receiver.close()
    if isinstance(found, Exception):
        raise found
    return found  # type: ignore[no-any-return]


def _tell_first(pickled: bytes, sender: Any) -> None:
    try:
        sender.send(_first(pickled))
    except Exception as error:
        try:
            sender.send(error)
        except Exception:  # one that cannot be pickled
            sender.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _first(pickled: bytes) -> First:
    before = _peak_mb()
    begin = time.perf_counter()
    contender: Contender = pickle.loads(pickled)
    contender.load().steps(1)()
    seconds = time.perf_counter() - begin
    after = _peak_mb()
    return First(contender.name, seconds, None if before is None or after is None else after - before)


def _peak_mb() -> float | None:
    """Return the most memory that this process has used so far, in MiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
