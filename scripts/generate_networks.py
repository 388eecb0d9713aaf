"""Random networks with memory are exported and held to what they give by construction.

    scripts/generate_networks --count 2000 --jobs 2 --write
    scripts/generate_networks --seed 71 --count 1 --shrink

Prints what was wrong, crashed or was refused, then tables: how the cases ended, and by axis. Exits
with 1 if anything was wrong or crashed, or more than 5 % was refused.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs/benchmarks/generator.md"
sys.path.insert(0, str(REPOSITORY / "parity_tests"))

import torch  # noqa: E402

from generator.axes import Network, from_seed  # noqa: E402
from generator.compose import source  # noqa: E402
from generator.shrink import shrink  # noqa: E402
from generator.trial import STEPS, Verdict, attempt  # noqa: E402

KINDS = ("equal", "refused", "wrong", "exception")
Ended = tuple[int, Verdict]

# What the tables count a network under; it may stand under several values.
AXES: dict[str, Callable[[Network], Iterable[object]]] = {
    "time": lambda n: [n.time],
    "batch": lambda n: ["batched" if n.batched else "batch-free"],
    "parts": lambda n: [len(n.parts)],
    "cell": lambda n: {part.cell for part in n.parts},
    "where the state lives": lambda n: {part.home for part in n.parts},
    "update": lambda n: {way for part in n.parts for way in part.updates if part.home != "implied"},
    "container of the argument": lambda n: [n.container] if n.of("argument") else [],
    "its entries": lambda n: [n.store] if n.of("argument") and n.container != "flat" else [],
    "container in an attribute": lambda n: [n.keeper] if n.of("attribute", "lazy") else [],
    "result": lambda n: [n.result] if n.of("argument") else [],
    "state at the start": lambda n: [n.none] if n.of("argument") else [],
}


def one(seed: int) -> Ended:
    """Run one case."""
    torch.set_num_threads(1)
    return seed, attempt(from_seed(seed))


def run(seeds: range, jobs: int) -> Iterator[Ended]:
    """Yield how each case ended, in the order of the seeds."""
    with concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for done, ended in enumerate(pool.map(one, seeds), 1):
            print(f"\r{done} of {len(seeds)}", end="", file=sys.stderr, flush=True)
            if ended[1].kind != "equal":
                print(f"\rseed {ended[0]}: {ended[1].kind} {ended[1].code}: {ended[1].detail}", flush=True)
            yield ended
    print(file=sys.stderr)


def tables(ended: list[Ended]) -> Iterator[str]:
    """Yield the lines of the tables."""
    kinds = collections.Counter(verdict.kind for _, verdict in ended)
    yield "| networks | exported and equal | refused | wrong | bare exception |"
    yield "|---|---|---|---|---|"
    yield f"| {len(ended)} | {' | '.join(str(kinds[kind]) for kind in KINDS)} |"
    codes = collections.Counter(f"`{v.code}`" for _, v in ended if v.kind == "refused")
    if codes:
        yield ""
        yield "Refused: " + ", ".join(f"{code} {count}" for code, count in codes.most_common()) + "."
    for axis, values_of in AXES.items():
        counts: dict[object, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for seed, verdict in ended:
            for value in values_of(from_seed(seed)):
                counts[value][verdict.kind] += 1
        yield ""
        yield f"| {axis} | equal | refused | wrong | exception |"
        yield "|---|---|---|---|---|"
        for value in sorted(counts, key=lambda value: -counts[value].total()):
            yield f"| {value} | {' | '.join(str(counts[value][kind]) for kind in KINDS)} |"


PAGE_HEAD = """# Random networks

<!-- Written by `scripts/generate_networks --write`. -->

Each network is composed at random of cells, of places and containers for its state, and of ways to write it.
What it gives is known by construction, from recurrences in numpy that never see the exporter
([`parity_tests/generator`](../../parity_tests/generator)). It is exported without `returns=`; the file is
stepped {steps} times, and run in random chunks, at three batch sizes. *Equal* holds every output, and the
final states of arguments, to the `float32` tolerance of one step. A file that takes whole sequences only
counts as refused: all of these networks can be stepped.

Seeds {first} to {last}, torch {torch}, {minutes:.0f} minutes.

"""


def page(ended: list[Ended], seconds: float) -> str:
    """Return docs/benchmarks/generator.md."""
    first, last = ended[0][0], ended[-1][0]
    head = PAGE_HEAD.format(
        steps=STEPS, first=first, last=last, torch=torch.__version__, minutes=seconds / 60
    )
    return head + "\n".join(tables(ended)) + "\n"


def main() -> int:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="how many networks")
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument(
        "--shrink", action="store_true", help="show the simplest network that ends like each failure"
    )
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(REPOSITORY)}")
    arguments = parser.parse_args()
    began = time.monotonic()
    ended = list(run(range(arguments.seed, arguments.seed + arguments.count), arguments.jobs))
    for seed, verdict in ended:
        if arguments.shrink and verdict.kind != "equal":
            simple = shrink(from_seed(seed), verdict)
            print(
                f"\nseed {seed}: {verdict.kind} {verdict.code}: {verdict.detail}\n{simple}\n{source(simple)}"
            )
    print("\n".join(tables(ended)))
    if arguments.write:
        PAGE.write_text(page(ended, time.monotonic() - began))
    refused = sum(verdict.kind == "refused" for _, verdict in ended)
    failed = any(verdict.kind in ("wrong", "exception") for _, verdict in ended)
    return int(failed or refused > 0.05 * len(ended))


if __name__ == "__main__":
    sys.exit(main())
