"""The main job from start to finish, by the commands a user would type. Run it through scripts/demo."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from rnnx.cli.console import bold, clock

STEPS = 4000
# Chosen by what it gives: text of a small network falls into a row of dashes or spaces sooner or later.
TEXT = ["--prompt", "def __init__(self, ", "--length", "300", "--temperature", "0.7", "--seed", "11"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--minutes", type=float, help=f"time to train for, instead of {STEPS} steps")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where to write (default: demo)")
    options = parser.parse_args()
    began = time.monotonic()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    poet, onnx = folder / "poet.safetensors", folder / "poet.onnx"
    library = sysconfig.get_path("stdlib")

    # '*/*' leaves the subfolders out: the modules at the top are some 4.5 million characters.
    say("1. Train a character LSTM on the source of Python's standard library")
    arguments = [library, "--exclude", "*/*", "-o", poet]
    # Counted in steps, so that a busy machine takes longer but learns as much.
    arguments += ["--minutes", f"{options.minutes:g}"] if options.minutes else ["--steps", STEPS]
    record = json.loads(rnnx("train", *arguments, "--json", capture=True))
    tell_figures(record)
    say("2. Export it: its memory becomes explicit, and the file is written only once it is proved")
    rnnx("export", poet, "-o", onnx)
    say("3. What it takes, gives and carries")
    rnnx("inspect", onnx)
    say("4. Compare it with PyTorch, step by step")
    rnnx("parity", onnx, "--against", poet)
    say("5. Let it write Python; this needs no PyTorch")
    rnnx("run", onnx, *TEXT)
    print()
    tell_next(folder, onnx, poet, record, time.monotonic() - began)
    return 0


def rnnx(verb: str, *arguments: object, capture: bool = False) -> str:
    """Show a command, run it, and stop the demo if it fails."""
    words = [verb, *map(str, arguments)]
    print(f"{bold('$')} rnnx {' '.join(quoted(word) for word in words)}", flush=True)
    command = [sys.executable, "-m", "rnnx.cli", *words]
    ended = subprocess.run(command, stdout=subprocess.PIPE if capture else None, text=True, check=False)
    if ended.returncode:
        print(f"scripts/demo: stopped, because 'rnnx {verb}' ended with {ended.returncode}", file=sys.stderr)
        sys.exit(ended.returncode)
    return ended.stdout or ""


def quoted(word: str) -> str:
    return f'"{word}"' if not word or set(word) & set(" *?()") else word


def say(text: str) -> None:
    print(f"\n{bold(text)}", flush=True)


def tell_figures(record: dict[str, float]) -> None:
    network, counts = record["held_out_nats"], record["count_model_nats"]
    if network is None:
        sys.exit("scripts/demo: the time was too short to train anything; give it more --minutes")
    print(f"on files it has not seen   network      {network:.3f} nats per character")
    print(f"                           count model  {counts:.3f} nats per character (order 3)")
    verdict = "has learned more than counting" if network < counts else "needs more --minutes"
    print(f"the network {verdict}")


def tell_next(folder: Path, onnx: Path, poet: Path, record: dict[str, float], seconds: float) -> None:
    trace = onnx.with_suffix(".trace.safetensors")
    made = [
        (poet, "the trained network"),
        (poet.with_suffix(".loss.png"), "its loss while it learned"),
        (onnx, "the same network as ONNX, contract inside, proved against PyTorch"),
        (trace, "a recording: the test of this model in any language"),
    ]
    say(f"Done in {clock(seconds)}. In {folder}/:")
    for path, what in made:
        if path.exists():
            print(f"  {path.name:<24}{path.stat().st_size:>11,} bytes   {what}")
    figures = f"{record['held_out_nats']:.3f}, count model {record['count_model_nats']:.3f}"
    print(f"  nats per character on held-out files: network {figures}")
    say("Try next:")
    print(f'  .venv/bin/rnnx run {onnx} --prompt "class " --length 500 --temperature 0.9 --seed 7')
    print(f"  .venv/bin/rnnx train YOUR_TEXTS/ -o {folder}/mine.safetensors --cell gru --minutes 5")
    print("  docs/architecture.md, one page on how it works; README.md for the library in Python")


if __name__ == "__main__":
    sys.exit(main())
