"""The verdict: everything that is known about whether runtimes compute what the network computes.

One document for people (`rnnx.parity.report`) and programs (`docs/parity.schema.json`).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec

from rnnx.model.contract import Contract
from rnnx.parity.compare import Failure, plain
from rnnx.parity.drift import Drift
from rnnx.parity.invariants import Check

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Finding:
    """Where in the model a disagreement begins.

    Attributes:
        step: the first step that differs.
        tensor: the value that departs first: a value of the graph, or `state.NAME`.
        node: the graph's node that computes it, "" where the contract is at fault.
        operator: of the node.
        module: path of the PyTorch module it came from, "" for the outermost one.
        module_type: its class.
        max_error: largest error of the value, relative to 1 + |expected|.
        detail: one line: what about it differs.
    """

    step: int
    tensor: str
    node: str
    operator: str
    module: str
    module_type: str
    max_error: float
    detail: str

    def __str__(self) -> str:
        """Return it as one line."""
        place = f"module {self.module or '(outermost)'} ({self.module_type})"
        node = f"node {self.node} ({self.operator}) of {place}" if self.node else "the contract"
        return f"step {self.step}: {node}: {self.detail}"


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What was found about one runtime.

    Attributes:
        provider: what computed.
        tolerance: names of the levels it was held to.
        agrees: whether all of it agrees.
        max_errors: by route (`start`, `fed`, `free`, `chunks`) and tensor, relative to 1 + |expected|.
        failure: the first disagreement.
        worst: where the largest error was, or the first failure.
        drift: by tensor.
        ratio: the largest error of a tensor over a window of steps, in units of the reference's own; None
            without the network in float64, in a run of fewer steps than a window, or with other weights.
        allowed_ratio: the largest that agrees.
        checks: invariants, extremes, text.
    """

    provider: str
    tolerance: list[str]
    agrees: bool
    max_errors: dict[str, dict[str, float]]
    failure: Failure | None
    worst: Failure | None
    drift: dict[str, Drift]
    ratio: float | None
    allowed_ratio: float | None
    checks: list[Check]


@dataclasses.dataclass(frozen=True)
class Parity:
    """The verdict on a model.

    Attributes:
        format, version: what this document is.
        agrees: whether every runtime agrees.
        interrupted: whether it was stopped; everything else then speaks of what was done until then.
        summary: one line.
        model: path, id and name.
        reference: what the model was compared with.
        digests: SHA-256 of the files that the network was read from, by name.
        steps, batch, seed, inputs: the size of the comparison, and where its inputs came from.
        truth: whether the network in float64 was there to measure errors against.
        runtimes: one entry each.
        finding: where the disagreement begins, if that was asked for.
        contract: as it stands in the file.
        versions, machine, made, command: how this came about.
    """

    format: str
    version: int
    agrees: bool
    interrupted: bool
    summary: str
    model: dict[str, str]
    reference: str
    digests: dict[str, str]
    steps: int
    batch: int
    seed: int | None
    inputs: str
    truth: bool
    runtimes: list[Runtime]
    finding: Finding | None
    contract: Contract
    versions: dict[str, str]
    machine: str
    made: str
    command: str

    def to_json(self) -> str:
        """Return the document as JSON; infinite and undefined numbers become text."""
        return json.dumps(plain(_document(self)), indent=2, allow_nan=False)

    @property
    def first_failure(self) -> Failure | None:
        """The first disagreement of any runtime with the reference."""
        return next((runtime.failure for runtime in self.runtimes if runtime.failure), None)


def summarise(found: Parity) -> str:
    """Return the verdict as one line."""
    providers = ", ".join(runtime.provider for runtime in found.runtimes)
    size = f"{found.steps:,} steps, batch {found.batch}, on {providers}"
    stopped = " (interrupted: so far)" if found.interrupted else ""
    if found.agrees:
        ratios = [runtime.ratio for runtime in found.runtimes if runtime.ratio is not None]
        errors = f", errors {max(ratios):.2g} times PyTorch's own" if ratios else ""
        return f"agrees with {found.reference}{stopped}: {size}{errors}"
    return f"DISAGREES with {found.reference}{stopped}: {size}: {why(found)}"


def with_file_check(found: Parity, check: Check, failure: Failure | None) -> Parity:
    """Return a verdict with what was found about the file itself, which every runtime shares."""
    runtimes = [
        dataclasses.replace(
            each,
            checks=[*each.checks, check],
            failure=each.failure or failure,
            worst=each.failure or failure or each.worst,
            agrees=each.agrees and failure is None,
        )
        for each in found.runtimes
    ]
    agrees = all(each.agrees for each in runtimes)
    changed = dataclasses.replace(found, runtimes=runtimes, agrees=agrees)
    return dataclasses.replace(changed, summary=summarise(changed))


def why(found: Parity) -> str:
    """Return the first reason why a model disagrees, as one line."""
    for runtime in found.runtimes:
        if runtime.failure is not None:
            return f"{runtime.provider}: {runtime.failure}"
        for check in runtime.checks:
            if check.holds is False:
                return f"{runtime.provider}: {check.name}: {check.detail}"
    return ""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the document, generated from the types above."""
    found: dict[str, Any] = _with_text_numbers(msgspec.json.schema(Parity))
    return found


def _with_text_numbers(node: Any) -> Any:
    """Allow "inf", "-inf" and "nan" wherever a number may stand: JSON has no other way to say them."""
    if isinstance(node, dict):
        if node.get("type") == "number":
            return {"anyOf": [node, {"enum": ["inf", "-inf", "nan"]}]}
        return {key: _with_text_numbers(value) for key, value in node.items()}
    return [_with_text_numbers(entry) for entry in node] if isinstance(node, list) else node


def _document(found: Parity) -> Any:
    # Numbers that JSON has no word for must survive until `plain` names them.
    shallow = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    contract = msgspec.to_builtins(shallow.pop("contract"))
    shallow["runtimes"] = [dataclasses.asdict(runtime) for runtime in found.runtimes]
    shallow["finding"] = None if found.finding is None else dataclasses.asdict(found.finding)
    return {**shallow, "contract": contract}
