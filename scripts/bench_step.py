"""What a step costs: Stream.step beside a hand-written IOBinding loop and the dictionary loop.

The rounds are interleaved, so that whatever else the machine does touches all of them alike; read the
ratios, not the microseconds. Run: python scripts/bench_step.py [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--features", type=int, default=24)
    parser.add_argument("--steps", type=int, default=400, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(width, options.features, options.steps, options.rounds) for width in options.widths]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("us a step (best round; median in brackets), and the ratio of best rounds to the bound loop")
    for row in rows:
        print(f"H={row['width']}")
        for name, entry in row["ways"].items():
            print(f"  {name:18} {entry['best']:8.2f} ({entry['median']:7.2f})  x{entry['ratio']:.2f}")


def measure(width: int, features: int, steps: int, rounds: int) -> dict[str, Any]:
    session = rnnx.load(onnx_models.lstm(width, features))
    frame = np.random.default_rng(0).normal(size=(1, features)).astype(np.float32)
    checked, unchecked = session.stream(), session.stream(check=False)
    out = {"y": np.empty((1, width), np.float32)}
    feed = {"x": frame}
    ways: dict[str, Callable[[], object]] = {
        "bound by hand": bound_by_hand(session.engine.session, frame, width),
        "dictionaries": dictionaries(session.engine.session, frame, width),
        "step": lambda: checked.step(feed),
        "step, bare": lambda: checked.step(frame),
        "step, out=": lambda: checked.step(feed, out=out),
        "step, check=False": lambda: unchecked.step(feed),
        "check=False, out=": lambda: unchecked.step(feed, out=out),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(steps):
                way()
            taken[name].append((time.perf_counter() - start) / steps * 1e6)
    floor = min(taken["bound by hand"])
    return {
        "width": width,
        "ways": {
            name: {"best": min(us), "median": float(np.median(us)), "ratio": min(us) / floor}
            for name, us in taken.items()
        },
    }


def bound_by_hand(session: Any, frame: np.ndarray[Any, Any], width: int) -> Callable[[], object]:
    """Return a step written by hand: two bindings that swap, inputs copied in, the output copied out."""
    import onnxruntime as ort

    x, y = np.empty((1, 1, frame.shape[1]), np.float32), np.empty((1, 1, width), np.float32)
    states = [[np.zeros((1, 1, width), np.float32) for _ in "hc"] for _ in range(2)]
    bindings = []
    for old, new in ((0, 1), (1, 0)):
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(y))
        for index, letter in enumerate("hc"):
            binding.bind_ortvalue_input(f"{letter}_in", ort.OrtValue.ortvalue_from_numpy(states[old][index]))
            binding.bind_ortvalue_output(
                f"{letter}_out", ort.OrtValue.ortvalue_from_numpy(states[new][index])
            )
        bindings.append(binding)
    target, result, run = x[:, 0], y[:, 0], session.run_with_iobinding
    side = 0

    def step() -> object:
        nonlocal side
        np.copyto(target, frame)
        run(bindings[side])
        side = 1 - side
        return result.copy()

    return step


def dictionaries(session: Any, frame: np.ndarray[Any, Any], width: int) -> Callable[[], object]:
    """Return a step in the ordinary way: run() with dictionaries, states handed from call to call."""
    h = c = np.zeros((1, 1, width), np.float32)

    def step() -> object:
        nonlocal h, c
        y, h, c = session.run(["y", "h_out", "c_out"], {"x": frame[:, None], "h_in": h, "c_in": c})
        return y

    return step


if __name__ == "__main__":
    main()
