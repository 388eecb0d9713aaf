"""Every case that can be stepped compiles, and agrees with PyTorch with and without vector instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnx
from rnnx.errors import ModelError
from rnnx.model.contract import Contract, axis_index
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.model.shapes import Array, chunk_shape
from rnnx.tolerance import error_beyond, level_of, relative_error
from rnnx_native.compile import compile_model
from support.native_folders import C99, build, replay, write
from support.plain_torch import CASES, Case, PlainRun, by_chunks, by_steps, run_plain
from support.plain_torch import build as module_of

# One of each kind runs always; the others are alike and take five minutes.
ALWAYS = {
    "rnn_relu_2", "lstm_2", "gru_float16", "lstm_float64", "lstm_projection", "gru_declared", "packed_lstm",
    "masked_gru", "embedding_dict_state", "conv_lstm", "stft_denoiser", "ring_buffer", "loop_while_operator",
    "rwkv_time_mix", "attention_decoder", "state_minus_infinity", "gru_time_first", "causal_conv2d",
    "hold_in_place", "lengths_end_of_masked_loop",
}  # fmt: skip
LONG = {
    "position_table": 500,
    "position_embedding": 500,
}  # networks that know 512 positions; else 1,000 steps
STREAMING = [case for case in CASES.values() if case.refused is None and case.whole is None]
WHOLE = [case for case in CASES.values() if case.refused is None and case.whole is not None]


def parameters(cases: list[Case]) -> list[Any]:
    return [
        pytest.param(case, id=case.name, marks=[] if case.name in ALWAYS else pytest.mark.slow)
        for case in cases
    ]


def test_the_cases_that_always_run_are_cases() -> None:
    assert {case.name for case in STREAMING} >= ALWAYS


@pytest.mark.parametrize("case", parameters(STREAMING))
def test_agrees_with_pytorch(
    case: Case, exported: Callable[[str], Path], tmp_path: Path, tool: Callable[[str], str]
) -> None:
    model = exported(case.name)
    compiled = write(model, tmp_path / "c", chunk=4)
    result = replay(compiled, build(compiled, tool("gcc"), "-O1", *C99))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "agrees" in result.stdout

    plain, slow = module_of(case), case.name not in ALWAYS
    for instructions in ("auto", "avx2", "portable"):
        options = {"instructions": instructions, "chunk": 4}
        session = rnnx.load(model, "native", options=options)
        for batch, steps in ((1, LONG.get(case.name, 1000) if slow else 200), (3, 21), (11, 9)):
            if batch > 1 and not session.contract.has_batch:
                continue
            run = run_plain(case, plain, session.contract, steps=steps, batch=batch)
            where = f"{instructions}, batch {batch}"
            assert_agrees(session.contract, run, by_steps(session, run), f"{where}, stepped")
            cuts = sorted({1, 4, steps // 2} - {steps})
            assert_agrees(session.contract, run, by_chunks(session, run, cuts), f"{where}, chunks at {cuts}")


def assert_agrees(
    contract: Contract, run: PlainRun, got: tuple[Mapping[str, Array], Mapping[str, Array]], how: str
) -> None:
    """Hold every output and the declared states to the native tolerance of free-running states."""
    lengths = next((run.inputs[spec.name] for spec in contract.inputs if spec.role), None)
    for spec in contract.outputs:
        name, expected, value = spec.name, run.outputs[spec.name], got[0][spec.name]
        if lengths is not None and axis_index(chunk_shape(contract, spec), "time") is None:
            whole = lengths == run.steps  # the last call of a row that ended before means nothing
            expected, value = expected[whole], value[whole]
        elif lengths is not None:  # rows behind the end of a sequence mean nothing
            shown = np.arange(run.steps)[None, :] < lengths[:, None]
            ended = shown.reshape(*shown.shape, *(1 for _ in range(value.ndim - 2)))
            missing = [(0, value.shape[axis] - expected.shape[axis]) for axis in range(value.ndim)]
            expected, value = np.where(ended, np.pad(expected, missing), 0), np.where(ended, value, 0)
        assert_close(f"{how}: output {name}", expected, value)
    for name, expected in run.states.items():
        assert_close(f"{how}: state {name}", expected, got[1][name])


def assert_close(what: str, expected: Array, got: Array) -> None:
    assert expected.shape == got.shape, what
    level = level_of(got.dtype, provider="native")
    beyond = error_beyond(level.drift, expected, got)
    assert (beyond <= 0).all(), f"{what}: error {relative_error(expected, got):.2g}"


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in WHOLE[:1]])
def test_whole_sequences_are_refused_by_compile(
    case: Case, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    model = exported(case.name)
    with pytest.raises(ModelError, match="whole sequences only") as refusal:
        compile_model(model, tmp_path / "c")
    assert refusal.value.code == "cannot-compile"
    reason = read_contract(read_model(model)).whole_only
    assert reason is not None
    assert reason in str(refusal.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] * bool(index))
        for index, case in enumerate(WHOLE)
    ],
)
def test_whole_sequences_agree_with_pytorch(case: Case, exported: Callable[[str], Path]) -> None:
    """The engine compiles them for the length that is asked for."""
    session = rnnx.load(exported(case.name), "native")
    for batch, steps in ((1, 7), (3, 12)):
        run = run_plain(case, module_of(case), session.contract, steps=steps, batch=batch)
        assert_agrees(session.contract, run, by_chunks(session, run, []), f"batch {batch}")
