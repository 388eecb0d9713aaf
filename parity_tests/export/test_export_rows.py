"""Rows of the batch stay apart, and what seldom happens is remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnx
from cases.quiet import HoldBesideCell
from rnnx.errors import RefusedError
from support.plain_torch import CASES

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("name", ["rows_of_bands", "rows_of_bands_first", "rows_of_agents"])
def test_a_row_that_is_reset_begins_anew_and_no_other(name: str, exported: Callable[[str], Path]) -> None:
    """A state whose bands and recordings were taken for one another would begin anew in a bit of each."""
    session = rnnx.load(exported(name), options={"threads": 1})
    shape = [size for size in session.contract.inputs[0].shape if size not in ("batch", "time")]
    x = RANDOM.standard_normal((6, 3, *shape)).astype("f4")

    def run(rows: Any, begin: int) -> np.ndarray[Any, Any]:
        with session.stream(batch=len(rows)) as stream:
            return np.stack([stream.step(frame[rows])["y"] for frame in x[begin:]])

    with session.stream(batch=3) as stream:
        for frame in x[:3]:
            stream.step(frame)
        stream.reset(rows=[1])
        got = np.stack([stream.step(frame)["y"] for frame in x[3:]])
    np.testing.assert_allclose(got[:, [0, 2]], run([0, 2], 0)[3:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[:, [1]], run([1], 3), rtol=1e-5, atol=1e-6)


def test_hold_state_beside_a_cell_stays_tripped(exported: Callable[[str], Path]) -> None:
    session = rnnx.load(exported("hold_beside_cell"), options={"threads": 1})
    x = RANDOM.standard_normal((6, 2, 6)).astype("f4")
    x[2, 0, 0] = 1000.0
    with session.stream(batch=2) as stream:
        ys = np.stack([stream.step(frame)["y"] for frame in x])
    assert (ys[:2, 0] != 0).all()
    assert (ys[2:, 0] == 0).all(), "the hold state was lost"
    assert (ys[:, 1] != 0).all()


def test_hold_state_that_no_unrolling_finds_is_not_lost_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values far from the ordinary trip it, and then steps and whole calls differ."""
    monkeypatch.setattr("rnnx_export.stepping.lift_loop", lambda *_: False)
    monkeypatch.setattr("rnnx_export.stepping.lift_loops", lambda *_: None)
    with pytest.raises(RefusedError, match="no state of fixed size carries"):
        rnnx.export(HoldBesideCell(9), tmp_path / "m.onnx", **CASES["hold_beside_cell"].arguments)
