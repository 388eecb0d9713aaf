"""Every fault is caught, and the report points at the module it sits in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
import torch

import rnnx
from rnnx.parity.check import check_parity, make_request
from rnnx.parity.report import to_html
from rnnx.parity.verdict import Finding, Parity
from rnnx_export.proof.float64_reference import open_reference64
from rnnx_export.proof.localise import Localiser
from rnnx_export.proof.module_reference import StepReference
from support.faults_in_models import FAULTS, NETWORKS, X, spoiled


@dataclasses.dataclass(frozen=True)
class Good:
    """A network, its model, and what compares models with it: made once, for a capture takes a second."""

    path: Path
    localiser: Localiser
    reference64: StepReference | None

    def verdict(self, path: Path, *, thorough: bool = False) -> tuple[Parity, Finding | None]:
        """Return the verdict on a model, and where a disagreement begins."""
        session = rnnx.load(path)
        request = dataclasses.replace(make_request(session.contract, steps=40, seed=3), invariants=thorough)
        found = check_parity(
            [session],
            self.localiser.reference,
            request,
            reference64=self.reference64,
            command="rnnx parity again",
        )
        if found.agrees:
            return found, None
        return found, self.localiser.locate(session, request, found.first_failure)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Good]:
    folder = tmp_path_factory.mktemp("good")
    made = {}
    for name, build in NETWORKS.items():
        torch.manual_seed(0)
        module = build()
        contract = rnnx.export(module, folder / f"{name}.onnx", inputs=X).contract
        localiser = Localiser(module, {}, contract)
        request = make_request(contract, steps=40)
        reference64 = open_reference64(localiser.reference, request.rows(contract), request.sizes)
        made[name] = Good(folder / f"{name}.onnx", localiser, reference64)
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_good_models_agree_and_begin_nowhere(name: str, good: dict[str, Good]) -> None:
    one = good[name]
    found, _ = one.verdict(one.path, thorough=True)
    assert found.agrees, found.summary
    assert found.truth
    ratio = found.runtimes[0].ratio
    assert ratio is not None
    assert ratio < 30
    session = rnnx.load(one.path)
    request = make_request(session.contract, steps=8)
    assert one.localiser.locate(session, request, None) is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_and_the_report_points_at_it(
    name: str, good: dict[str, Good], tmp_path: Path
) -> None:
    fault = FAULTS[name]
    one = good[fault.network]
    bad = tmp_path / f"{name}.onnx"
    bad.write_bytes(spoiled(one.path.read_bytes(), fault.spoil))
    found, finding = one.verdict(bad)
    assert not found.agrees
    failure = found.first_failure
    assert failure is not None
    assert finding is not None, failure
    assert finding.module == fault.module, finding
    assert fault.says in finding.detail, finding
    text = to_html(dataclasses.replace(found, finding=finding))
    for part in ("Disagrees with torch", failure.tensor, f"of module {fault.module} (", "rnnx parity again"):
        assert part in text or not finding.node, part


def test_there_are_enough_faults_and_each_is_one(good: dict[str, Good]) -> None:
    assert len(FAULTS) >= 20
    for name, fault in FAULTS.items():
        data = good[fault.network].path.read_bytes()
        other = spoiled(data, fault.spoil)
        assert onnx.load_model_from_string(other) != onnx.load_model_from_string(data), name
