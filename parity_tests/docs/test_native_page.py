"""docs/native.md lists the operators that the compiler has."""

from __future__ import annotations

import re

import rnnx_native.lowering.ops  # noqa: F401  registers the operators
from conftest import REPOSITORY
from rnnx_native.lowering.lower import OPS
from rnnx_native.onnx_graph.standard import WITH_GRAPHS

PAGE = REPOSITORY / "docs" / "native.md"
_TABLE = re.compile(r"(<!-- operators: [^\n]*-->\n).*?(<!-- end -->)", re.S)


def families() -> str:
    """Return the table of operators, a row for each file of writers."""
    found: dict[str, list[str]] = {}
    for name, writer in OPS.items():
        if ":" not in name:
            found.setdefault(writer.__module__.rpartition(".")[2].replace("_", " "), []).append(name)
    rows = [f"| {family} | {', '.join(sorted(names))} |" for family, names in sorted(found.items())]
    return "\n".join(["| family | operators |", "|---|---|", *rows])


def test_the_page_lists_every_operator_and_no_other() -> None:
    match = _TABLE.search(PAGE.read_text())
    assert match is not None
    written = match[0][len(match[1]) : -len(match[2])].strip()
    assert written == families(), "run PYTHONPATH=parity_tests python parity_tests/docs/test_native_page.py"


def test_loops_and_branches_are_not_claimed() -> None:
    assert set(WITH_GRAPHS) - set(OPS) == {"Loop", "If"}


if __name__ == "__main__":
    PAGE.write_text(_TABLE.sub(lambda match: f"{match[1]}{families()}\n{match[2]}", PAGE.read_text()))
