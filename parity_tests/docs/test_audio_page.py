"""The page on audio: its code runs, and what it says of the delay is what comes out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import REPOSITORY


def test_the_page_runs_and_its_delay_is_that_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY / "docs/audio.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"^```python\n(.*?)^```$", page, re.S | re.M))
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(compile(code, "docs/audio.md", "exec"), space)
    delay = space["DELAY"]
    assert f"| {delay} | {delay / 16:g} ms |" in page
    assert f"| {delay + 320} | {(delay + 320) / 16:g} ms |" in page
    assert space["waiting"] == space["sound"].shape[1] % 256
    np.testing.assert_array_equal(space["late"][:, :delay], 0)
    # Less silence in front would not have lasted: some block had just enough.
    begun = np.arange(1, 51) * 320
    assert (begun - begun // 256 * 256).max() == delay
