"""What a step costs in each language, beside its binding of ONNX Runtime called by hand.

Run it through scripts/bench_embedding. Each language has a program `cost MODEL STEPS` that times blocks of
1,000 steps of both in turn and prints the best of each; the programs take turns too. Exit code 1 if a step
costs more than 1.2 times what it does by hand, or memory grows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cases import onnx_models
from rnnx.bench.candidates import OrtCandidate, RnnxCandidate, Step
from rnnx.engines.environment import machine, package_versions
from rnnx.files import write_bytes
from support.replay_programs import TOOLS, library, prepare

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "embedding.md"
WIDTHS = (32, 128, 256)
FEATURES, ROUNDS, BLOCK = 24, 5, 1000
MOST = 1.2  # times what a step costs by hand
GROWTH = 4096  # kilobytes that a process may gain, from its first tenth of the steps to its end

HEADER = """# What a step costs in other languages

<!-- Written by scripts/bench_embedding. -->

{machine}; {versions}. Java has its own ONNX Runtime, 1.29.0, and Node 1.30.0.

An LSTM of width H with {features} inputs, float32, batch 1, one thread. *By hand* is each language's usual
binding of ONNX Runtime as one would write it for this one model: everything bound once, states swapped, the
input copied in, nothing checked. Both loops take turns in blocks of 1,000 steps within one process, and the
processes of all languages take turns {rounds} times: a cell is the best block of all. Trust the ratios, which
may be no more than {most}: microseconds differ twofold between machines.

"""
REMARKS = """The limit does not bind Python, whose step returns fresh arrays; see [cpu.md](cpu.md).

Node's binding has nothing to bind: by hand, the states that come out are fed back. Most of what a small
step costs there is the way from JavaScript into native code and back."""
# How the programs are built and run, from the checkout.
BUILD = {
    "rust": [
        "cargo",
        "build",
        "-q",
        "--release",
        "--example",
        "cost",
        "--manifest-path",
        "runtimes/rust/Cargo.toml",
    ],
    "go": ["go", "-C", "runtimes/go", "build", "-o", "build/cost", "./cmd/cost"],
}
COST = {
    "c": ["runtimes/c/build/cost"],
    "cpp": ["runtimes/cpp/build/cost"],
    "rust": ["runtimes/rust/target/release/examples/cost"],
    "go": ["runtimes/go/build/cost"],
    "java": ["java", "-Xmx32m", "-cp", "runtimes/java/target/rnnx.jar", "rnnx.tools.Cost"],
    "node": ["node", "runtimes/node/replay/cost.js"],
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Microseconds a step."""

    step_us: float
    by_hand_us: float

    @property
    def ratio(self) -> float:
        """How many times as much a step costs."""
        return self.step_us / self.by_hand_us


def cost_in_python(model: Path, steps: int) -> Cost:
    """Do in this process what the programs of the other languages do."""
    ours: Step = RnnxCandidate(model).load().steps(1)
    hand: Step = OrtCandidate(model, bound=True).load().steps(1)
    found = {"ours": float("inf"), "hand": float("inf")}
    for _ in range(max(steps // BLOCK, 2)):
        for name, step in (("ours", ours), ("hand", hand)):
            begin = time.perf_counter()
            for _ in range(BLOCK):
                step()
            found[name] = min(found[name], (time.perf_counter() - begin) * 1e6 / BLOCK)
    return Cost(found["ours"], found["hand"])


def cost_of(language: str, model: Path, steps: int) -> Cost:
    """Return what a step costs in one run of a language's program."""
    if language == "python":
        return cost_in_python(model, steps)
    environment = {**os.environ, "RNNX_ONNXRUNTIME": library()}
    words = [*COST[language], str(model), str(steps)]
    printed = subprocess.run(
        words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    return Cost(**json.loads(printed))


def build(language: str) -> None:
    """Build the program of a language."""
    if language != "python":
        prepare(language)
    if language in BUILD:
        subprocess.run(BUILD[language], cwd=ROOT, check=True)


def measure(languages: Sequence[str], steps: int, folder: Path) -> dict[int, dict[str, list[Cost]]]:
    """Return, by width and language, what each round found."""
    found: dict[int, dict[str, list[Cost]]] = {}
    for width in WIDTHS:
        model = folder / f"lstm{width}.onnx"
        model.write_bytes(onnx_models.lstm(width, FEATURES))
        found[width] = {language: [] for language in languages}
        for _ in range(ROUNDS):
            for language in languages:
                found[width][language].append(cost_of(language, model, steps))
    return found


def best(costs: Sequence[Cost]) -> Cost:
    """Return the best of all rounds: on a machine with other work, anything else measures that work."""
    return Cost(min(cost.step_us for cost in costs), min(cost.by_hand_us for cost in costs))


def page(found: dict[int, dict[str, list[Cost]]]) -> str:
    """Return the page."""
    versions = package_versions()
    named = ", ".join(f"{name} {versions[name]}" for name in ("rnnx", "onnxruntime"))
    text = HEADER.format(machine=machine(), versions=named, features=FEATURES, rounds=ROUNDS, most=MOST)
    text += "| language |" + "".join(f" H{width}: step | by hand | ratio |" for width in found) + "\n"
    text += "|---|" + "---|---|---|" * len(found) + "\n"
    for language in next(iter(found.values())):
        text += f"| {language} |"
        for by_language in found.values():
            cost = best(by_language[language])
            text += f" {cost.step_us:.1f} us | {cost.by_hand_us:.1f} us | {cost.ratio:.2f} |"
        text += "\n"
    return f"{text}\n{REMARKS}\n"


def resident_kilobytes(process: int) -> int:
    """Return the memory of a process that is in use, or 0 once it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def grows(language: str, model: Path, steps: int) -> bool:
    """Whether the memory of a language's program grows in so many steps; says how much."""
    environment = {**os.environ, "RNNX_ONNXRUNTIME": library()}
    words = [*COST[language], str(model), str(steps)]
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    seen = []
    while process.poll() is None:
        time.sleep(0.5)
        seen.append(resident_kilobytes(process.pid))
    seen = [kilobytes for kilobytes in seen if kilobytes]
    if process.returncode or len(seen) < 10:
        raise SystemExit(
            f"{language}: ended with {process.returncode} after {len(seen)} looks; use more steps"
        )
    settled = max(seen[: max(len(seen) // 10, 1)])
    grown = max(seen[len(seen) // 2 :]) - settled
    print(f"{language}: {steps:,} steps, {settled:,} kB at first, {grown:+,} kB later", flush=True)
    return grown > GROWTH


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench_embedding", description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000, help="in each round")
    parser.add_argument("--languages", default=",".join(TOOLS), help="default: all")
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--endless", type=int, metavar="STEPS", help="watch memory instead")
    options = parser.parse_args()
    languages = options.languages.split(",")
    for language in languages:
        build(language)
    with tempfile.TemporaryDirectory() as folder:
        if options.endless:
            model = Path(folder) / "lstm.onnx"
            model.write_bytes(onnx_models.lstm(8, FEATURES))
            watched = [language for language in languages if language != "python"]
            return int(sum(grows(language, model, options.endless) for language in watched) > 0)
        found = measure(languages, options.steps, Path(folder))
    write_bytes(options.output, page(found).encode())
    print(f"wrote {options.output}", file=sys.stderr)
    slow = [
        f"{language} at H{width}: {best(costs).ratio:.2f} times"
        for width, by_language in found.items()
        for language, costs in by_language.items()
        if language != "python" and best(costs).ratio > MOST
    ]
    print("\n".join(slow), end="\n" if slow else "", file=sys.stderr)
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
