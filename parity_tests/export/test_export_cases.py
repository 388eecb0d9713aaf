"""Every case is exported as it says, or refused as it says; and plain PyTorch agrees with what comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import rnnx
from rnnx.errors import InputError, RnnxError, StreamError
from rnnx.formats.trace_file import read_trace
from rnnx.parity.compare import compare_trace
from support.module_print import module_print, world_print
from support.plain_torch import CASES, Case, PlainRun, assert_agrees, build, by_chunks, by_steps, run_plain
from support.support_table import PAGE, Row, read_rows

STEPS = 40
STREAMING = [case for case in CASES.values() if case.refused is None]
REFUSED = [case for case in CASES.values() if case.refused is not None]


def named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", STREAMING, ids=named)
def test_exports_as_its_case_says(case: Case, exported: Callable[[str], Path]) -> None:
    """Where it is exported, in support/exported_cases.py, modules and PyTorch must stay as they are."""
    path = exported(case.name)
    plain = build(case)  # its own copy: what PyTorch gives must not pass through what the exporter touched
    session = rnnx.load(path, options={"threads": 1})
    contract = session.contract
    assert contract.proof is not None
    assert contract.proof.id == contract.id == session.id
    if case.states is not None:
        assert [state.name for state in contract.states] == case.states
    if case.route is not None:
        assert contract.proof.way == case.route, contract.proof.not_direct
    assert (contract.whole_only is None) == (case.whole is None), contract.whole_only
    assert (case.whole or "") in (contract.whole_only or "")
    onnx.checker.check_model(str(path), full_check=True)

    comparison = compare_trace(
        session, read_trace(path.with_name("model.trace.safetensors"), contract, model_id=session.id)
    )
    assert comparison.agrees, comparison.failure
    assert_streams(case, plain, session)
    assert read_rows()[case.name].verdict == Row.of(case, session).verdict, (
        f"{PAGE.name} is old: run scripts/write_support"
    )


def assert_streams(case: Case, module: Any, session: rnnx.Session) -> None:
    """Compare whole, in random chunks and stepped with plain PyTorch, at two batches."""
    contract = session.contract
    for batch in (3, 1) if contract.has_batch else (1,):
        run = run_plain(case, module, contract, steps=STEPS, batch=batch)
        assert_agrees(contract, run, by_chunks(session, run, []), f"batch {batch}, whole")
        if contract.whole_only:
            assert_is_not_stepped(session, run)
            continue
        cuts = sorted(set(np.random.default_rng(batch).integers(1, STEPS, 5).tolist()))
        assert_agrees(contract, run, by_chunks(session, run, cuts), f"batch {batch}, chunks at {cuts}")
        assert_agrees(contract, run, by_steps(session, run), f"batch {batch}, stepped")


def assert_is_not_stepped(session: rnnx.Session, run: PlainRun) -> None:
    with pytest.raises((StreamError, InputError)) as refusal:
        by_steps(session, run)
    assert session.contract.whole_only
    assert session.contract.whole_only in str(refusal.value)


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_is_refused_as_its_case_says(case: Case, tmp_path: Path) -> None:
    module = build(case)
    before, world = module_print(module), world_print()
    (tmp_path / "model.onnx").write_bytes(b"an older, good file")
    with pytest.raises(RnnxError) as refusal:
        rnnx.export(module, tmp_path / "model.onnx", **case.arguments)
    assert refusal.value.code == case.refused, refusal.value
    assert case.mentions in str(refusal.value)
    assert "\n" not in str(refusal.value), "a refusal is one line"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"], "something was written"
    assert (tmp_path / "model.onnx").read_bytes() == b"an older, good file"
    assert module_print(module) == before, "the caller's module changed"
    assert world_print() == world, "PyTorch's own settings changed"
    row = Row.of_refusal(case, refusal.value)
    assert read_rows()[case.name].verdict == row.verdict, f"{PAGE.name} is old: run scripts/write_support"


def test_the_page_lists_exactly_the_cases() -> None:
    assert [(row.family, name) for name, row in read_rows().items()] == [
        (case.family, case.name) for case in CASES.values()
    ]
