"""Tests stand beside names: each module of these folders of the exporter has a file of tests of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import rnnx_export

HERE, EXPORTER = Path(__file__).parent, Path(rnnx_export.__file__).parent
FOLDERS = {"calls": EXPORTER / "calls", "loops": EXPORTER / "loops", "passes": EXPORTER / "graph" / "passes"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_module_has_its_tests_and_no_tests_are_of_a_module_that_is_gone(folder: str) -> None:
    modules = {path.stem for path in FOLDERS[folder].glob("*.py")} - {"__init__"}
    tested = {path.stem.removeprefix(f"test_{folder}_") for path in (HERE / folder).glob("test_*.py")}
    assert tested == modules
