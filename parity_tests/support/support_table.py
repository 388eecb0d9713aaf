"""docs/support.md: every case, the route it was exported by and how well, or why it was refused."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cases.registry import Case
    from rnnx.errors import RnnxError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "support.md"
HEAD = """# What can be exported

<!-- Rendered by scripts/write_support from the cases in parity_tests/cases; a test keeps it up to date. -->

Each line is a module in [`parity_tests/cases`](../parity_tests/cases), exported by the tests as it stands.
[Exporting](exporting.md) says how to write the call; [other people's networks](recipes/README.md), what
happened to those of packages.

- **direct**: one graph with free batch and time, recurrent layers as ONNX's own operators.
- **scan**: one captured step in an ONNX `Scan` over time.
- **whole sequences only**: exported, but it cannot be stepped, for the reason given.
- **refused**: nothing is written; the error has this code and says this.

The error is the largest found while the file was proved against PyTorch, 200 steps of free-running states
among them, relative to 1 + |expected|. It differs a little from machine to machine.
"""
_TITLE = "| case | way | states | largest error, or the reason |\n|---|---|---|---|\n"
_FIGURE = re.compile(r"-?\d[\d.]*(?:e[-+]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Row:
    """One case of the page."""

    family: str
    name: str
    route: str
    states: str
    outcome: str

    @property
    def verdict(self) -> tuple[str, str, str]:
        """What must be the same on every machine: route, states, and a reason without its figures."""
        reason = "" if re.fullmatch(r"[\d.e+-]+", self.outcome) else _FIGURE.sub("#", self.outcome)
        return self.route, self.states, reason

    @classmethod
    def of(cls, case: Case, made: Any) -> Row:
        """Return the row of a case that was exported."""
        contract = made.contract
        states = ", ".join(f"`{state.name}`" for state in contract.states)
        error = f"{contract.proof.max_error:.1e}"
        if contract.whole_only:
            reason = _cell(contract.whole_only)
            return cls(
                case.family,
                case.name,
                f"{contract.proof.way}, whole sequences only",
                states,
                f"{error}; {reason}",
            )
        return cls(case.family, case.name, contract.proof.way, states, error)

    @classmethod
    def of_refusal(cls, case: Case, error: RnnxError) -> Row:
        """Return the row of a case that was refused."""
        return cls(
            case.family, case.name, f"refused: `{error.code}`", "", _cell(f"{error.found}; fix: {error.fix}")
        )

    def render(self) -> str:
        """Return the line of the table."""
        return f"| {self.name} | {self.route} | {self.states} | {self.outcome} |"


def make_rows() -> list[Row]:
    """Export every case and return its row."""
    import rnnx
    from rnnx.errors import RnnxError
    from support.plain_torch import CASES, build

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES.values():
            print(case.name, file=sys.stderr)
            try:
                row = Row.of(case, rnnx.export(build(case), Path(folder, "model.onnx"), **case.arguments))
            except RnnxError as error:
                row = Row.of_refusal(case, error)
            rows.append(row)
    return rows


def render(rows: list[Row]) -> str:
    """Return the page."""
    parts = [HEAD]
    for family in dict.fromkeys(row.family for row in rows):
        parts.append(f"\n## {family.capitalize()}\n\n{_TITLE}")
        parts += [row.render() + "\n" for row in rows if row.family == family]
    return "".join(parts)


@functools.cache
def read_rows(page: Path = PAGE) -> dict[str, Row]:
    """Return the rows of the committed page by case."""
    rows, family = {}, ""
    for line in page.read_text().splitlines():
        if line.startswith("## "):
            family = line.removeprefix("## ").lower()
        elif line.startswith("| ") and not line.startswith("| case |"):
            name, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            rows[name] = Row(family, name, *cells)
    return rows


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    from rnnx.files import write_bytes

    write_bytes(PAGE, render(make_rows()).encode())
