"""Prose in Markdown is at most 100 columns wide; tables, code and pictures are what they are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
RENDERED = {"docs/support.md"}  # one line a case
LISTED = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True
)
PAGES = [name for name in LISTED.stdout.split() if name not in RENDERED]
WIDEST = 100


def wide(text: str) -> list[str]:
    """Return the lines of prose that are too wide."""
    found, fenced = [], False
    for line in text.splitlines():
        if re.match(r"\s*(```|~~~)", line):
            fenced = not fenced
        is_prose = not fenced and not line.startswith(("|", "    ", "![", "<!--"))
        if is_prose and len(line) > WIDEST:
            found.append(line)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_prose_is_at_most_100_columns_wide(page: str) -> None:
    assert wide((REPOSITORY / page).read_text()) == []


def test_a_wide_line_of_prose_is_seen_and_tables_and_code_are_not() -> None:
    long = "word " * 30
    assert wide(f"# Title\n\n{long}\n") == [long]
    assert wide(f"| {long} |\n\n```\n{long}\n```\n\n    {long}\n") == []
