"""Every runtime in blocks of entries that are no whole steps: `feed` and `flush` give what one run gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import rnnx
from conftest import REPOSITORY
from rnnx.formats.trace_file import Trace, encode_trace, read_trace
from rnnx.model.contract import axis_index
from rnnx.model.shapes import chunk_shape, from_steps, has_steps, to_steps
from rnnx.session import Session
from support.replay_programs import GOLDEN, TOOLS, run

LANGUAGES = [name for name in TOOLS if (REPOSITORY / "runtimes" / name).is_dir()]

each_language = pytest.mark.parametrize("language", LANGUAGES)

# Blocks of entries: of an `N*time` axis; of inputs with time beside one without; of a step model; of ids.
BLOCKS = {"hops": "7,160,0", "several": "5,2", "step_only": "5,2", "ids": "3", "free_dimension": "5,0"}


@each_language
@pytest.mark.parametrize(("model", "blocks"), BLOCKS.items())
def test_agrees_with_the_trace_in_blocks_of_entries(language: str, model: str, blocks: str) -> None:
    said = run(language, f"{model}.onnx", f"{model}.trace.safetensors", "--entries", blocks)
    assert said.code == 0, said.value
    said.value.pop("max_error")
    calls = {"7,160,0": 4, "5,2": 4, "3": 5, "5,0": 3}[blocks]
    assert said.value == {"agrees": True, "steps": 12, "calls": calls, "failure": None}


@each_language
def test_flush_fills_the_last_step_with_zeros(language: str, tmp_path: Path) -> None:
    """Expected is what steps give of inputs with zeros at their end; what was recorded disagrees there."""
    options = ("--entries", "100", "--omit", "60")
    said = run(language, "hops.onnx", zeros_at_the_end("hops", 60, tmp_path), *options)
    assert (said.code, said.value["steps"], said.value["calls"]) == (0, 12, 20), said.value
    recorded = run(language, "hops.onnx", "hops.trace.safetensors", *options)
    assert (recorded.code, recorded.value["failure"]["step"]) == (1, 11)


def zeros_at_the_end(model: str, omitted: int, folder: Path) -> Path:
    """Write the trace of a golden model whose inputs end with so many entries of 0, as one run gives it."""
    session = rnnx.load(GOLDEN / f"{model}.onnx")
    trace = read_trace(GOLDEN / f"{model}.trace.safetensors", session.contract)
    inputs = {}
    for spec in session.contract.inputs:
        inputs[spec.name] = value = trace.inputs[spec.name].copy()
        if has_steps(session.contract, spec):
            shape = chunk_shape(session.contract, spec)
            chunk = from_steps(value, shape)
            axis = axis_index(shape, "time")
            assert axis is not None
            chunk[(slice(None),) * axis + (slice(-omitted, None),)] = 0
            inputs[spec.name] = to_steps(chunk, shape)
    path = folder / f"{model}.trace.safetensors"
    path.write_bytes(encode_trace(ran(session, dataclasses.replace(trace, inputs=inputs))))
    return path


def ran(session: Session, trace: Trace) -> Trace:
    """Return a trace with the outputs and states that single steps give for its inputs."""
    contract = session.contract
    stream = session.stream(batch=2)
    stream.state.update({name: rows[0] for name, rows in trace.states.items()})
    outputs = {name: rows.copy() for name, rows in trace.outputs.items()}
    states = {name: rows.copy() for name, rows in trace.states.items()}
    for step in range(trace.steps):
        row = {
            spec.name: trace.inputs[spec.name][step] if has_steps(contract, spec) else trace.inputs[spec.name]
            for spec in contract.inputs
        }
        for name, value in stream.step(row).items():
            outputs[name][step] = value
        for name in states:
            states[name][step + 1] = stream.state[name]
    assert not all(np.array_equal(outputs[name], trace.outputs[name]) for name in outputs)
    return dataclasses.replace(trace, outputs=outputs, states=states)
