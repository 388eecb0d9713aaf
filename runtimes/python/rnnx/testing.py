"""For your own tests: a model that agrees with its network, or a failure that says where."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from rnnx.arguments import mapping
from rnnx.parity.check import check_parity, make_request
from rnnx.parity.verdict import Parity
from rnnx.session import Session, load

_EXPORTED_WITH = {"inputs_spec", "state", "returns", "method", "constants"}


def assert_parity(
    model: str | os.PathLike[str] | bytes | Session,
    network: Any,
    *,
    steps: int = 200,
    batch: int | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    inputs: Any = None,
    provider: str = "cpu",
    **exported_with: Any,
) -> Parity:
    """Fail unless a model computes what its network computes: stepwise, running free, in chunks.

    Args:
        model: the ONNX file, its bytes, or a session. A session of bytes has no file any more that could be
            held to the network in float64.
        network: the `torch.nn.Module` that it was exported from; it is not touched.
        steps: number of steps of random inputs.
        batch: rows; 2 where the model has a batch.
        dims: sizes of free dimensions.
        seed: of the random inputs.
        inputs: recorded inputs instead: arrays by name in the shape of a chunk, batch and time included,
            such as float32[batch, time, 257]; the bare array will do for one input.
        provider: what runs the model.
        exported_with: `inputs_spec`, `state`, `returns`, `method` and `constants` as `rnnx.export` got them,
            where these cannot be read from the model (nested arguments).

    Returns:
        The verdict, for a report: `rnnx.parity.report.to_html`.

    Raises:
        AssertionError: they disagree; the message says at which step, in which tensor, and by how much.
        RnnxError: they cannot be compared.
        TypeError: an argument that does not exist, or is of another kind than it should be.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line, and the message
    for name in exported_with.keys() - _EXPORTED_WITH:
        raise TypeError(f"assert_parity() got an unexpected keyword argument {name!r}")
    session = model if isinstance(model, Session) else load(model, provider)
    arguments = dict(exported_with)
    for name in ("inputs_spec", "state", "constants"):
        arguments[name] = mapping(name, arguments.get(name), "what rnnx.export got, by parameter")
    arguments["inputs"] = arguments.pop("inputs_spec")
    contract = session.contract
    # By name, for this package never imports the ones that need torch unless it is asked to compare with it.
    opening = importlib.import_module("rnnx_export.proof.reference")
    reference = opening.open_reference(network, contract, arguments)
    float64_reference = importlib.import_module("rnnx_export.proof.float64_reference")
    request = make_request(contract, steps=steps, batch=batch, dims=dims, seed=seed, recorded=inputs)
    reference64 = float64_reference.open_reference64(reference, request.rows(contract), request.sizes)
    with importlib.import_module("rnnx_export.module.subject").one_thread():
        found = check_parity([session], reference, request, reference64=reference64)
    source = session.path if isinstance(model, Session) else model
    if source is not None:
        float64_file = importlib.import_module("rnnx_export.proof.float64_file")
        found = float64_file.hold_file(found, source, reference, reference64, request)
    if found.interrupted:
        raise KeyboardInterrupt
    if not found.agrees:
        raise AssertionError(found.summary)
    return found
