"""What each session option costs or gives: one changed at a time, beside rnnx's defaults, interleaved.

Prints the tables of the decision record on session options: python scripts/bench_options.py [--seconds N]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rnnx
from rnnx.bench.measure import take_turns
from rnnx.engines.environment import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "parity_tests"))

from cases import onnx_models  # noqa: E402

CHANGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "threads 2": {"threads": 2},
    "threads 2, spinning": {"threads": 2, "spinning": True},
    "graph basic": {"graph_optimization": "basic"},
    "graph extended": {"graph_optimization": "extended"},
    "no arena": {"arena": False},
    "no memory pattern": {"memory_pattern": False},
}
WIDTHS, FEATURES, CHUNK = (32, 128, 512), 24, 256
SHAPES = {"step": (1, None), "step, batch 64": (64, None), f"chunk of {CHUNK}": (1, CHUNK)}
PACE_SECONDS = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each option, width and shape")
    seconds = parser.parse_args().seconds
    print(f"{machine()}, onnxruntime {rnnx_version()}\n")
    print("Median time over that of the defaults, LSTM of width H (rounds interleaved):\n")
    columns = [f"H{width} {shape}" for width in WIDTHS for shape in SHAPES]
    print(f"| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    found: dict[str, list[str]] = {name: [] for name in CHANGES}
    for width in WIDTHS:
        data = onnx_models.lstm(width, FEATURES)
        for batch, time_steps in SHAPES.values():
            calls = {name: call(data, options, batch, time_steps) for name, options in CHANGES.items()}
            for timing in take_turns(calls, streams=batch, seconds=seconds):
                text = (
                    f"{timing.median_us:.1f} us" if timing.contender == "defaults" else f"{timing.ratio:.2f}"
                )
                found[timing.contender].append(text)
    for name, row in found.items():
        print(f"| {name} | {' | '.join(row)} |")
    print("\nProcessor time for a step of H512 every 10 ms, all threads together:\n")
    for name in ("defaults", "threads 2", "threads 2, spinning"):
        print(f"- {name}: {paced(onnx_models.lstm(512, FEATURES), CHANGES[name]):.1f} ms")


def rnnx_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def call(data: bytes, options: dict[str, Any], batch: int, time_steps: int | None) -> Callable[[], object]:
    """Return one call of a fresh session with these options."""
    stream = rnnx.load(data, options=options).stream(batch=batch)
    shape = (batch, FEATURES) if time_steps is None else (batch, time_steps, FEATURES)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    run = stream.step if time_steps is None else stream.run
    run(x)
    return lambda: run(x)


def paced(data: bytes, options: dict[str, Any], steps: int = 100) -> float:
    """Return the milliseconds of processor time a step takes when steps come at a steady pace."""
    step = call(data, options, 1, None)
    before = time.process_time()
    for _ in range(steps):
        step()
        time.sleep(PACE_SECONDS)
    return (time.process_time() - before) / steps * 1e3


if __name__ == "__main__":
    main()
