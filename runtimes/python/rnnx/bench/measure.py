"""Measuring what a step costs, several candidates side by side.

The candidates take turns in short rounds, so that whatever else the machine does touches all of them alike;
ratios are taken within rounds. Read the ratios, not the microseconds.
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

from rnnx.bench.candidates import Candidate, Loaded, Step
from rnnx.engines.environment import machine, package_versions
from rnnx.errors import RnnxError, UsageError

STREAMS = (1, 16, 64, 256)
_ROUNDS = 20
_WARM_SECONDS = 0.05
_FEWEST = {"p99": 100, "p99_9": 1000}  # steps without which a percentile says nothing


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a step of so many streams costs one candidate.

    Attributes:
        contender: name of the candidate.
        streams: how many are advanced by a step.
        ratio: how many times as long as the first candidate, the median over the rounds.
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
        contender: name of the candidate.
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
        timings: for each number of streams, each candidate.
        first: for each candidate.
        not_run: by candidate, why it was left out.
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
    candidates: Sequence[Candidate],
    *,
    streams: Sequence[int] = STREAMS,
    seconds: float = 1.0,
    advanced: Callable[[int], None] | None = None,
) -> Bench:
    """Measure candidates side by side; ratios are to the first one.

    Args:
        model: the file, for the report.
        candidates: what is measured; their names differ.
        streams: numbers of streams to advance by a step.
        seconds: for each candidate and number of streams.
        advanced: called with the number of parts done, of `parts(candidates, streams)`.

    Raises:
        RnnxError: a candidate that is not optional does not work here, or `process-died`.
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

    for candidate in candidates:
        found = _attempt(candidate, functools.partial(_first_alone, candidate), not_run)
        first += [] if found is None else [found]
        note()
    loaded: dict[str, Loaded] = {}
    for candidate in candidates:
        if candidate.name not in not_run:
            made = _attempt(candidate, candidate.load, not_run)
            loaded |= {} if made is None else {candidate.name: made}
    for count in streams:
        steps: dict[str, Step] = {}
        for candidate in candidates:
            if candidate.name in loaded and candidate.name not in not_run:
                opened = functools.partial(_warm, loaded[candidate.name], count)
                step = _attempt(candidate, opened, not_run)
                steps |= {} if step is None else {candidate.name: step}
        timings += take_turns(steps, streams=count, seconds=seconds)
        note()
    return Bench(model.name, timings, first, not_run, machine(), package_versions())


def parts(candidates: Sequence[Candidate], streams: Sequence[int]) -> int:
    """Return in how many parts `measure` does its work."""
    return len(candidates) + len(streams)


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
    elapsed = []
    before = begin = clock()
    while True:
        step()
        now = clock()
        elapsed.append(now - before)
        if now - begin >= budget:
            return elapsed
        before = clock()


def _timing(name: str, streams: int, ratios: list[float], blocks: list[list[int]]) -> Timing:
    elapsed = sorted(each for block in blocks for each in block)

    def percentile(share: float, fewest: int) -> float | None:
        return (
            elapsed[min(int(share * len(elapsed)), len(elapsed) - 1)] / 1e3
            if len(elapsed) >= fewest
            else None
        )

    median = statistics.median(elapsed)
    return Timing(
        contender=name,
        streams=streams,
        ratio=statistics.median(ratios),
        steps_per_second=streams / median * 1e9,
        min_us=elapsed[0] / 1e3,
        median_us=median / 1e3,
        p99_us=percentile(0.99, _FEWEST["p99"]),
        p99_9_us=percentile(0.999, _FEWEST["p99_9"]),
        steps=len(elapsed),
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


def _attempt(candidate: Candidate, call: Callable[[], Any], not_run: dict[str, str]) -> Any:
    """Return what `call` does, or None with the reason noted where an optional candidate fails."""
    if candidate.name in not_run:
        return None
    try:
        return call()
    except Exception as error:
        if not candidate.optional:
            raise
        said = error.found if isinstance(error, RnnxError) else str(error).strip() or type(error).__name__
        not_run[candidate.name] = said.splitlines()[0]
        return None


def _first_alone(candidate: Candidate) -> First:
    """Load and step in a fresh process.

    Raises:
        UsageError: `process-died`; or what the candidate raises.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # Unpickled only there, inside the time measured: that imports what the candidate needs.
    process = context.Process(target=_tell_first, args=(pickle.dumps(candidate), sender), daemon=True)
    process.start()
    sender.close()  # so that the pipe ends when the process does
    try:
        found = receiver.recv()
    except EOFError:
        raise UsageError(
            "process-died",
            expected=f"a process of its own to load {candidate.name!r} and do a step",
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
    candidate: Candidate = pickle.loads(pickled)
    candidate.load().steps(1)()
    seconds = time.perf_counter() - begin
    after = _peak_mb()
    return First(candidate.name, seconds, None if before is None or after is None else after - before)


def _peak_mb() -> float | None:
    """Return the most memory that this process has used so far, in MiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
