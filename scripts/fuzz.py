"""Feeds damaged and hostile files to a part of rnnx, and says what should not have happened.

    scripts/fuzz inspect --minutes 1
    scripts/fuzz all --inputs 40
    scripts/fuzz compile --seed 7 --only 231      # one input again, with all that it printed

Each input is made from a good file, the seed and its number alone, and is used in a process of its own with
a bound on memory and time; the parts contract-LANGUAGE give theirs to one program of that language. It may
end well, or in an error of rnnx; it must not end the process, raise anything else, end in a code that says a
fault of ours, take more than it may, leave a file where none belongs, or get its text into code. What does is
kept in build/fuzz/PART/SEED-NUMBER, which git ignores: the input, and a report. Exits with 1 if anything was
found.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "parity_tests"))  # the models to begin with, and the tokeniser of C

from fuzzing import drivers, worker  # noqa: E402
from fuzzing.models import readable  # noqa: E402
from fuzzing.seeds import GOLDEN  # noqa: E402
from fuzzing.targets import MODEL, TARGETS  # noqa: E402

from support.replay_programs import missing_tools  # noqa: E402

KEPT = CHECKOUT / "build" / "fuzz"


class Run:
    """One part of rnnx being fed."""

    def __init__(self, name: str, seed: int, root: Path) -> None:
        self.name, self.seed, self.root = name, seed, root
        self.target = TARGETS[name]
        self.endings: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.findings: dict[tuple[str, str], list[int]] = {}
        self.slowest, self.largest = 0.0, 0
        self._began, self._cpu = time.monotonic(), _cpu_seconds()
        self._driver = (
            drivers.Driver(self.target.use, GOLDEN / "gru.onnx") if isinstance(self.target.use, str) else None
        )

    def feed(self, number: int) -> worker.Ending:
        """Make input `number` and use it."""
        files = self.target.make(random.Random(f"{self.seed} {self.name} {number}"))
        place = worker.cleared(self.root / "input")
        for name, data in files.items():
            (place / name).write_bytes(data)
        (place / "link").symlink_to("/etc/hostname")
        ending = self._attempt(place)
        self.endings[ending.kind] += 1
        self.codes[ending.what if ending.kind == "refused" else ending.kind] += 1
        self.slowest = max(self.slowest, ending.seconds)
        self.largest = max(self.largest, ending.megabytes)
        if ending.is_finding:
            known = self.findings.setdefault((ending.kind, ending.what), [])
            known.append(number)
            if len(known) == 1:
                self._keep(number, files, ending)
        return ending

    def _attempt(self, place: Path) -> worker.Ending:
        if self._driver is not None:
            return self._driver.attempt(place)
        assert callable(self.target.use)
        return worker.attempt(self.target.use, place, cache=self.root / "cache")

    def close(self) -> None:
        """Let the program that was fed end, if there is one."""
        if self._driver is not None and (wrong := self._driver.close()):
            self.findings["exception", wrong] = [-1]

    def _keep(self, number: int, files: Any, ending: worker.Ending) -> None:
        folder = KEPT / self.name / f"{self.seed}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        again = f"scripts/fuzz {self.name} --seed {self.seed} --only {number}"
        parts = (f"{ending.kind}: {ending.what}", again, ending.shown, readable(files[MODEL])[:20000])
        text = "\n\n".join(parts)
        (folder / "report.txt").write_text(text, errors="replace")

    def summary(self) -> dict[str, Any]:
        """Return the figures, as JSON holds them."""
        return {
            "part": self.name,
            "seed": self.seed,
            "minutes": round((time.monotonic() - self._began) / 60, 1),
            "cpu_minutes": round((_cpu_seconds() - self._cpu) / 60, 1),
            "inputs": self.endings.total(),
            "endings": dict(self.endings.most_common()),
            "codes": dict(self.codes.most_common()),
            "slowest_seconds": round(self.slowest, 2),
            "largest_megabytes": self.largest,
            "findings": [
                {"kind": kind, "what": what, "count": len(numbers), "first": numbers[0]}
                for (kind, what), numbers in sorted(self.findings.items(), key=lambda item: -len(item[1]))
            ],
        }


def main() -> int:
    """Run it; return the exit code."""
    options = _options()
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    names = list(TARGETS) if "all" in options.part else options.part
    found = 0
    with tempfile.TemporaryDirectory(prefix="rnnx-fuzz-") as folder:
        for name in names:
            if isinstance(language := TARGETS[name].use, str) and (missing := missing_tools(language)):
                left_out = {"part": name, "not_run": missing}
                print(json.dumps(left_out) if options.json else f"{name}: not run: {missing}")
                continue
            run = Run(name, seed, Path(folder))
            if options.only is not None:
                ending = run.feed(options.only)
                print(f"{ending.shown}\n{ending.kind}: {ending.what} ({ending.seconds:.2f} s)")
            else:
                share = options.minutes * 60 / len(names)
                _feed(run, share, options.inputs and max(1, int(options.inputs / run.target.heavy)))
                run.close()
                print(json.dumps(run.summary()) if options.json else _report(run.summary()), flush=True)
            found += len(run.findings)
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["all", *TARGETS], nargs="+")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, for all parts together")
    parser.add_argument("--inputs", type=int, help="how many inputs instead; fewer for parts that take long")
    parser.add_argument("--seed", type=int, help="a fresh one unless given; it is printed")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this input alone, and what it prints")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each part")
    return parser.parse_args()


def _cpu_seconds() -> float:
    """Return how long this process and its children that have ended computed; others may take their turn."""
    taken = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in taken)


def _feed(run: Run, seconds: float, count: int | None) -> None:
    until, number = time.monotonic() + seconds, 0
    while number < count if count else time.monotonic() < until:
        run.feed(number)
        number += 1


def _report(summary: dict[str, Any]) -> str:
    lines = [
        f"{summary['part']}: {summary['inputs']} inputs, slowest {summary['slowest_seconds']} s, "
        f"largest {summary['largest_megabytes']} MiB",
        "  " + ", ".join(f"{code} {count}" for code, count in summary["codes"].items()),
    ]
    for found in summary["findings"]:
        lines.append(f"  FOUND {found['kind']} x{found['count']}: {found['what']} (--only {found['first']})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
