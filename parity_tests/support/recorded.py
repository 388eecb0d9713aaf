"""A trace of a small model, recorded as a user would: step by step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import rnnx
from cases import onnx_models
from rnnx.formats.trace_file import Trace
from rnnx.parity.random_inputs import random_inputs
from rnnx.tolerance import Bound


def record(
    model: str | rnnx.Session = "lstm", steps: int = 6, **arguments: Any
) -> tuple[rnnx.Session, Trace]:
    session = rnnx.load(onnx_models.STREAMING[model]()) if isinstance(model, str) else model
    contract = session.contract
    sizes = {"batch": 2 if contract.has_batch else 1, "memory": 5}
    dims = {key: sizes[key] for key in contract.free_dimensions}
    rows = random_inputs(contract, steps=steps, sizes=sizes)
    stream = session.stream(batch=sizes["batch"], dims=dims)
    outputs: list[Any] = []
    states = [dict(stream.state)]
    stepped = {spec.name: "time" in str(spec.shape) or not contract.has_time for spec in contract.inputs}
    for step in range(steps):
        feed = {key: np.asarray(row[step]) if stepped[key] else row for key, row in rows.items()}
        outputs.append(stream.step(feed))
        states.append(dict(stream.state))
    names = [f"output.{key}" for key in outputs[0]] + [f"state.{key}" for key in states[0]]
    trace = Trace(
        session.id,
        "itself",
        dict.fromkeys(names, Bound(1e-5, 1e-5)),
        rows,
        {key: np.stack([row[key] for row in outputs]) for key in outputs[0]},
        {key: np.stack([row[key] for row in states]) for key in states[0]},
    )
    return session, dataclasses.replace(trace, **arguments)
