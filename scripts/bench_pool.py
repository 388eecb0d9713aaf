"""What a step of a pool costs: all streams with input, or half of them, beside bound batches and streams.

The rounds are interleaved, so that whatever else the machine does touches all of them alike; read the
ratios, not the microseconds. Run: python scripts/bench_pool.py [--widths N...] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rnnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "parity_tests"))

from cases import onnx_models  # noqa: E402

Array = np.ndarray[Any, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--features", type=int, default=24)
    parser.add_argument("--steps", type=int, default=20, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(width, options) for width in options.widths]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"us a step of {options.streams} streams (best round; median in brackets), and the ratio of best")
    print("rounds to a batch of as many rows, its buffers bound by hand")
    for row in rows:
        print(f"H={row['width']}")
        for name, entry in row["ways"].items():
            print(f"  {name:26} {entry['best']:9.1f} ({entry['median']:9.1f})  x{entry['ratio']:.2f}")


def measure(width: int, options: argparse.Namespace) -> dict[str, Any]:
    session = rnnx.load(onnx_models.lstm(width, options.features), options.provider)
    random = np.random.default_rng(0)
    count, half = options.streams, options.streams // 2
    frames = list(random.normal(size=(count, 1, options.features)).astype(np.float32))
    batch = np.concatenate(frames)
    streams = [session.stream() for _ in range(count)]

    def separate() -> object:
        return [stream.step(frame) for stream, frame in zip(streams, frames, strict=True)]

    def pooled(choices: list[list[int]], *, check: bool = True) -> Callable[[], object]:
        pool = session.pool(capacity=count, check=check)
        opened = [pool.open() for _ in range(count)]
        given = [{"x": frame} for frame in frames]
        feeds = itertools.cycle([{opened[i]: given[i] for i in chosen} for chosen in choices])
        return lambda: pool.step(next(feeds))

    everyone = list(range(count))
    halves = [random.permutation(count)[:half].tolist() for _ in range(256)]
    some = [sorted(random.permutation(count)[: random.binomial(count, 0.5)].tolist()) for _ in range(256)]
    ways: dict[str, Callable[[], object]] = {
        "bound, all": bound_by_hand(session, batch, width),
        "bound, half": bound_by_hand(session, batch[:half], width),
        "separate streams, all": separate,
        "pool, all": pooled([everyone]),
        "pool, all, check=False": pooled([everyone], check=False),
        "pool, a fixed half": pooled([halves[0]]),
        "pool, another half": pooled(halves),
        "pool, about half": pooled(some),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(options.steps):
                way()
            taken[name].append((time.perf_counter() - start) / options.steps * 1e6)
    floors = {name: min(taken[name]) for name in ("bound, all", "bound, half")}
    return {
        "width": width,
        "ways": {
            name: {
                "best": min(us),
                "median": float(np.median(us)),
                "ratio": min(us) / floors["bound, half" if "half" in name else "bound, all"],
            }
            for name, us in taken.items()
        },
    }


def bound_by_hand(session: rnnx.Session, batch: Array, width: int) -> Callable[[], object]:
    """Return a step of one batch: the input copied in, the states swapped, the output copied out."""
    runner: Any = session.engine
    rows, features = batch.shape
    sides = [[np.zeros((1, rows, width), np.float32) for _ in "hc"] for _ in range(2)]
    x, y = np.empty((rows, 1, features), np.float32), np.empty((rows, 1, width), np.float32)
    device = "cpu" if session.provider == "cpu" else "cuda"

    def place(array: Array) -> Any:
        return runner.runtime.OrtValue.ortvalue_from_numpy(array, device, 0)

    given, taken = place(x), place(y)
    values = [[place(array) for array in side] for side in sides]
    bindings = []
    for old, new in ((0, 1), (1, 0)):
        binding = runner.session.io_binding()
        binding.bind_ortvalue_input("x", given)
        binding.bind_ortvalue_output("y", taken)
        for index, letter in enumerate("hc"):
            binding.bind_ortvalue_input(f"{letter}_in", values[old][index])
            binding.bind_ortvalue_output(f"{letter}_out", values[new][index])
        bindings.append(binding)
    run, target, side = runner.session.run_with_iobinding, x[:, 0], 0

    def step() -> object:
        nonlocal side
        np.copyto(target, batch)
        if device != "cpu":
            given.update_inplace(x)
        run(bindings[side])
        side = 1 - side
        return y.copy() if device == "cpu" else taken.numpy()

    return step


if __name__ == "__main__":
    main()
