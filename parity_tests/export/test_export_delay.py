"""A network that looks ahead is stepped all the same where its outputs may come late."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rnnx
from rnnx.errors import RefusedError, StreamError, UsageError
from rnnx.model.contract import Contract, OutputSpec
from rnnx.runtime.waiting import require_end
from rnnx.testing import assert_parity
from rnnx_export.module.subject import Subject
from rnnx_export.proof.calls import compare_flush
from rnnx_export.proof.setting import ProofError, ProofSetting
from rnnx_export.states.delay import with_delay
from rnnx_export.states.discover import discover

X = {"x": "float32[batch, time, 6]"}


class Around(nn.Module):
    """Two windows around each frame, one after the other, and a recurrent layer behind the second."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv1d(6, 8, 5, padding=2), nn.Conv1d(8, 8, 3, padding="same")
        self.gru, self.out, self.direct = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.near(x.transpose(1, 2)))
        h += torch.relu(self.far(h))
        y, _ = self.gru(h.transpose(1, 2))
        return self.out(y) + self.direct(x), self.direct(x)


class Pulled(nn.Module):
    """Features pulled forward, as a filter of later frames has them; a cell in a loop, a kept average."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.mean = nn.GRUCell(6, 6), nn.AvgPool1d(3, stride=1, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        rows = []
        for frame in F.pad(x, (0, 0, -2, 2)).unbind(1):
            h = self.cell(frame, h)
            rows.append(h)
        return self.mean(torch.stack(rows, 2)).transpose(1, 2), h


class Mirrored(nn.Module):
    """A codec's filters: mirrored in front of hops of four samples, repeated at both ends of the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 8, 7), nn.Conv1d(8, 8, 8, stride=4)
        self.last = nn.Conv1d(8, 8, 3, padding=1, padding_mode="replicate")
        self.back = nn.ConvTranspose1d(8, 1, 8, stride=4, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(F.pad(x[:, None], (6, 0), mode="reflect")))
        h = self.last(self.second(F.pad(h, (4, 0))))
        return self.back(h)[:, 0]


def largest(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


CASES = {
    "around": (Around, X, {}, 3, 1),
    "pulled": (Pulled, X, {"h": "float32[batch, 6]"}, 3, 1),
    "mirrored": (Mirrored, {"x": "float32[batch, 4*time]"}, {}, 4, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_come_as_late_as_forward_looks_ahead(name: str, tmp_path: Path) -> None:
    """Steps and chunks give what a whole call of the module gives, so many steps later; then its end."""
    build, inputs, state, late, hop = CASES[name]
    torch.manual_seed(0)
    module = build().eval()
    made = rnnx.export(module, tmp_path / "m.onnx", inputs=inputs, state=state, delay="auto")
    contract = made.contract
    assert contract.whole_only is None
    assert [spec.delay for spec in contract.outputs] == [late] * len(contract.outputs)
    x = torch.randn(2, 20 * hop, *([6] if hop == 1 else []))
    result = module(x, *(torch.zeros(2, 6) for _ in state))
    whole = (result if isinstance(result, tuple) else (result,))[: len(contract.outputs)]
    session = rnnx.load(made.path)
    for chunks in ((1,) * 20, (7, 1, 12)):
        stream, begin, parts = session.stream(batch=2), 0, []
        for steps in chunks:
            parts.append(stream.run(x[:, begin * hop : (begin + steps) * hop].numpy()))
            begin += steps
        stream.state["ended"] = np.ones(2, np.float32)
        parts.append(stream.run(np.zeros((2, late * hop, *x.shape[2:]), np.float32)))
        for spec, expected in zip(contract.outputs, whole, strict=True):
            got = np.concatenate([part[spec.name] for part in parts], 1)
            assert not got[:, : late * hop].any()
            assert largest(got[:, late * hop :], expected.detach()) < 5e-6
    assert_parity(made.path, module)


def test_a_delay_may_be_longer_than_it_has_to_be(tmp_path: Path) -> None:
    made = rnnx.export(Around().eval(), tmp_path / "m.onnx", inputs=X, delay=5)
    assert {spec.delay for spec in made.contract.outputs} == {5}
    with pytest.raises(UsageError, match="3 steps or more") as caught:
        rnnx.export(Around().eval(), tmp_path / "n.onnx", inputs=X, delay=2)
    assert caught.value.code == "bad-delay"


def test_what_looks_ahead_in_another_way_is_refused(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(1, keepdim=True)

    with pytest.raises(RefusedError, match="mean") as caught:
        rnnx.export(Mean(), tmp_path / "m.onnx", inputs=X, delay="auto")
    assert caught.value.code == "not-delayed"
    with pytest.raises(RefusedError, match="takes lengths"):
        rnnx.export(Lengths(), tmp_path / "m.onnx", inputs=X | {"n": "int64[batch] in 1..time"}, delay="auto")
    assert not list(tmp_path.iterdir())


class Lengths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(6, 6, 3, padding=1)

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        valid = torch.arange(x.shape[1]) < n[:, None]
        return self.filter((x * valid[..., None]).transpose(1, 2)).transpose(1, 2)


def test_what_looks_nowhere_is_not_late(tmp_path: Path) -> None:
    made = rnnx.export(
        nn.GRU(6, 4, batch_first=True), tmp_path / "m.onnx", inputs={"input": X["x"]}, delay="auto"
    )
    assert {spec.delay for spec in made.contract.outputs} == {0}
    assert "delay" not in made.path.read_bytes().decode("latin-1")


def test_the_proof_sees_an_end_that_is_another(tmp_path: Path) -> None:
    """The file's flag is taken away from a filter: what it reads after the end is no longer zero."""
    module = Around().eval()
    made = rnnx.export(module, tmp_path / "m.onnx", inputs=X, delay="auto")
    plan = with_delay(discover(Subject(module, X)), None, 3)
    setting = ProofSetting(plan, rnnx.load(made.path), "float32")
    compare_flush(setting, 2)
    delay = dataclasses.replace(plan.delay, ended="near.past")  # type: ignore[type-var]
    with pytest.raises(ProofError, match="and its end"):
        compare_flush(ProofSetting(dataclasses.replace(plan, delay=delay), setting.session, "float32"), 2)


def test_flush_gives_what_is_late(tmp_path: Path) -> None:
    """Blocks of any length, what waits for a whole step, and the last steps: all that the module gives."""
    torch.manual_seed(0)
    module = Mirrored().eval()
    made = rnnx.export(module, tmp_path / "m.onnx", inputs={"x": "float32[batch, 4*time]"}, delay="auto")
    stream = rnnx.load(made.path).stream()
    x = torch.randn(1, 62)
    parts = [stream.feed(block.numpy())["y"] for block in x.split([3, 30, 1, 28], 1)] + [stream.flush()["y"]]
    whole = module(F.pad(x, (0, 2))).detach()
    assert largest(np.concatenate(parts, 1)[:, 16:], whole) < 5e-6


def test_a_stream_that_cannot_end_says_so() -> None:
    late = OutputSpec(name="y", dtype="float32", shape=["batch"], delay=2)
    contract = Contract(inputs=[], outputs=[late], states=[])
    with pytest.raises(StreamError, match="2 steps") as caught:
        require_end(contract)
    assert caught.value.code == "no-end"
