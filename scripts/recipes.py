"""Runs the pages in docs/recipes, each in an environment of its own, and writes its outcome into it.

    scripts/recipes [PAGE ...]
    scripts/recipes --tried [PACKAGE ...]

A page has a line `Packages:` with pinned packages, and Python blocks. The first block exports a network of
a package; those after it run the network in PyTorch, and the model with `rnnx.load`, over the same inputs,
and leave both results in `expected` and `got`, by step. The blocks are run as they stand, in a new
environment that sees the project's own (PyTorch is not installed again) and has the packages of the page,
and no others. Whether the two agree is computed here, from these arrays alone. The line `Outcome:` of the
page says how it went; a page of what is refused has the error there. Exits with 1 if a page agrees no more,
or is refused now and was not.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import venv
from pathlib import Path
from typing import Any

from recipes_tried import run_tried

PAGES = Path(__file__).resolve().parents[1] / "docs" / "recipes"
STEPS = 200  # that are compared
ALLOWED = 2e-5  # the largest error, relative to 1 + |expected|
LIMIT = 600  # seconds for a page
OURS = ("torch", "onnxruntime")


def main() -> int:
    """Run the pages that were asked for."""
    parser = argparse.ArgumentParser(description="Run the pages in docs/recipes and write what came of each.")
    parser.add_argument("pages", nargs="*", help="names of pages, without .md; by default all")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tried", action="store_true", help="run scripts/tried, and write the table of all")
    given = parser.parse_args()
    if given.inside:
        os.nice(10)
        print(json.dumps(run_blocks(given.inside)))
        return 0
    if given.tried:
        run_tried(given.pages, make_environment)
        return 0
    names = given.pages or sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "README")
    worse = [name for name in names if not run_page(PAGES / f"{name}.md")]
    if worse:
        print(f"worse than their pages say: {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


def run_page(page: Path) -> bool:
    """Run a page in an environment of its own, write its outcome; return whether it is as good as before."""
    packages = pinned(page.read_text())
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(folder, "env"), packages)
        words = [str(python), str(Path(__file__).resolve()), "--inside", str(page)]
        try:
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            print(f"{page.stem}: expected an end within {LIMIT} seconds; found none", file=sys.stderr)
            return False
    if done.returncode:
        print(f"{page.stem}: exit {done.returncode}\n{done.stderr[-3000:]}", file=sys.stderr)
        return False
    outcome = json.loads(done.stdout.splitlines()[-1])
    print(f"{page.stem}: {outcome['said']}", file=sys.stderr)
    return write_outcome(page, outcome)


def write_outcome(page: Path, outcome: dict[str, Any]) -> bool:
    """Write an outcome into its page if it is as good as the page says; return whether it is."""
    text = page.read_text()
    expected = outcome["said"].startswith("refused") and re.search(r"^Outcome: refused", text, re.M)
    if not outcome["good"] and not expected:
        return False
    line = f"Outcome: {outcome['said']} ({outcome['versions']})"
    line = textwrap.fill(line, 100, break_long_words=False, break_on_hyphens=False)
    page.write_text(re.sub(r"^Outcome:.*?(?=\n\n|\n*\Z)", lambda _: line, text, flags=re.M | re.S))
    return True


def pinned(text: str) -> list[str]:
    """Return the packages that a page names."""
    line = re.search(r"^Packages:(.*?)\n\n", text, re.M | re.S)
    packages = re.findall(r"`([^`]+)`", line[1]) if line else []
    if not packages or not all("==" in package for package in packages):
        raise SystemExit("expected a line `Packages:` with each as `name==version`; found: " + repr(packages))
    return packages


def make_environment(folder: Path, packages: list[str]) -> Path:
    """Make an environment that sees this one and has the packages, without what they depend on."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "project.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", *packages], check=True)
    return python


def run_blocks(page: Path) -> dict[str, Any]:
    """Run the blocks of a page and return how it went.

    Returns:
        `said`, the outcome; `good`, whether both agree; `versions`.
    """
    import numpy as np
    import torch

    from rnnx.errors import RnnxError

    text = page.read_text()
    torch.manual_seed(0)
    space: dict[str, Any] = {"__name__": "recipe"}
    versions = [
        f"{name} {importlib.metadata.version(name)}" for name in (pinned(text)[0].split("==")[0], *OURS)
    ]
    known = {"versions": ", ".join([*versions, f"Python {platform.python_version()}"])}
    try:
        for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
            exec(compile(block, str(page), "exec"), space)
    except RnnxError as error:
        text = re.sub(
            r"( at \S+\.py:\d+): `.*?`(?=;)", r"\1", " ".join(str(error).split())
        )  # lines of others
        return {**known, "good": False, "said": f"refused, `{error.code}`: {text}"}
    expected, got = (np.asarray(space[name], np.float64) for name in ("expected", "got"))
    if expected.shape != got.shape or len(expected) < STEPS or not expected.std() > 0:
        raise SystemExit(f"expected {STEPS} steps of both; found {expected.shape} and {got.shape}")
    largest = float(np.max(np.abs(got - expected) / (1 + np.abs(expected))))
    states = ", ".join(f"`{state.name}`" for state in space["made"].contract.states)
    said = f"{len(expected)} steps, largest error {largest:.1e}; states {states}"
    return {**known, "good": largest <= ALLOWED, "said": said if largest <= ALLOWED else f"disagrees: {said}"}


if __name__ == "__main__":
    sys.exit(main())
