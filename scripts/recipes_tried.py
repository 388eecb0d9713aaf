"""Exports what else of other packages was tried, and writes the table in docs/recipes/README.md.

    scripts/recipes --tried [PACKAGE ...]

A file of `scripts/tried` is a package: its docstring has the pinned packages it needs, and each function
returns a network, as its author makes it, and the arguments of `rnnx.export` beside the path. Each is
exported in a process of its own, in an environment that has these packages. What came of it is kept in
`docs/recipes/tried.json`: what did not run now stays as it was.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "tried"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes" / "README.md"
OUTCOMES = PAGE.with_name("tried.json")
MARK = "<!-- written by scripts/recipes --tried -->"
LIMIT = 240  # seconds of processor time for a network


def run_tried(names: Sequence[str], make_environment: Callable[[Path, list[str]], Path]) -> None:
    """Run the packages of these names, by default all, and write their rows."""
    for source in sorted(FOLDER.glob("*.py")):
        if names and source.stem not in names:
            continue
        tree = ast.parse(source.read_text())
        packages = (ast.get_docstring(tree) or "").split()
        with tempfile.TemporaryDirectory() as folder:
            python = make_environment(Path(folder, "env"), packages)
            networks = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
            outcomes = {name: _run_alone(python, source, name, folder) for name in networks}
        known = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
        name, _, version = packages[0].partition("==")
        known = {package: value for package, value in known.items() if package.split()[0] != name}
        known[f"{name} {version}"] = outcomes
        OUTCOMES.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        text = PAGE.read_text()
        PAGE.write_text(text[: text.index(MARK) + len(MARK)] + "\n\n" + table(known) + "\n")


def _run_alone(python: Path, source: Path, name: str, folder: str) -> tuple[str, str]:
    words = [str(python), __file__, str(source), name]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    said = done.stdout.splitlines()[-1:] if done.returncode == 0 else []
    if done.returncode == -signal.SIGXCPU:
        found = ("refused", f"longer than {LIMIT} s")
    elif said:
        kind, because = json.loads(said[0])
        found = (kind, because)
    else:
        raise SystemExit(f"{source.stem}, {name}: exit {done.returncode}\n{done.stderr[-2000:]}")
    print(f"{source.stem}, {name}: {', '.join(part for part in found if part)}", file=sys.stderr)
    return found


def outcome(source: Path, name: str) -> tuple[str, str]:
    """Export a network of a file; return `streams`, `whole` or `refused`, and why it is refused."""
    import torch

    import rnnx
    from rnnx.errors import RnnxError

    spec = importlib.util.spec_from_file_location("tried", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    network, arguments = getattr(module, name)()
    try:
        made = rnnx.export(network, "network.onnx", **arguments)
    except RnnxError as error:
        return "refused", why(error)
    return ("streams" if made.contract.whole_only is None else "whole"), ""


def why(error: Any) -> str:
    """Return the first of what was found, without lines of others."""
    first = re.sub(r"`.*?`", "", str(error.found)).split("; ")[0]
    return " ".join(re.sub(r"^(direct|scan): ", "", first).replace("|", "/").split()).rstrip(": ")


def table(known: dict[str, dict[str, tuple[str, str]]]) -> str:
    """Return the table of outcomes by package and network, and how many of them are exported."""
    found = [each for networks in known.values() for each, _ in networks.values()]
    streams, whole = found.count("streams"), found.count("whole")
    rows = []
    for package, networks in sorted(known.items(), key=lambda item: item[0].lower()):
        cells: dict[str, list[str]] = {"streams": [], "whole": [], "refused": []}
        for name, (kind, said) in networks.items():
            cells[kind].append(f"{name}: {said}" if said else name)
        rows.append(f"| {package} | {' | '.join('; '.join(cell) for cell in cells.values())} |")
    return "\n".join(
        [
            f"Of {len(found)} networks {streams + whole} are exported, {whole} for whole sequences only.",
            "",
            "| package | streams | whole sequences only | refused, and why |",
            "|---|---|---|---|",
            *rows,
        ]
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 10))
    with contextlib.redirect_stdout(io.StringIO()):
        found = outcome(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps(found))
