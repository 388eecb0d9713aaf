"""A call that does not do the same again for each step is not unrolled in search of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rnnx_export.loops import unroll
from rnnx_export.loops.even import grows_evenly
from rnnx_export.loops.unroll import lift_loops
from rnnx_export.module.subject import Subject
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Plan
from support.loop_modules import Leak, X


class ParallelScan(nn.Module):
    """y[t] = x[t] + 0.5 y[t-1], by doubling: a round for every power of two below the number of steps."""

    def forward(self, x: Tensor) -> Tensor:
        distance = 1
        while distance < x.shape[1]:
            x = x + 0.5**distance * torch.cat([torch.zeros_like(x[:, :distance]), x[:, :-distance]], 1)
            distance *= 2
        return x


class Starts(nn.Module):
    """The first two steps are their own; each further one is as the one before."""

    def forward(self, x: Tensor) -> Tensor:
        rows = [2 * x[:, 0], torch.tanh(x[:, 1]).exp()]
        for frame in x.unbind(1)[2:]:
            rows.append(frame + 0.5 * rows[-1])
        return torch.stack(rows[: x.shape[1]], 1)


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x.tanh(), 1)


def plan_of(module: nn.Module) -> Plan:
    return discover(Subject(module, X))


@pytest.mark.parametrize("module", [Leak(), Starts(), Whole()], ids=lambda module: type(module).__name__)
def test_each_step_is_as_much_work_as_the_one_before(module: nn.Module) -> None:
    assert grows_evenly(plan_of(module))


def test_a_parallel_scan_is_not_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, unrolled = plan_of(ParallelScan()), []
    monkeypatch.setattr(unroll, "_lifted", lambda *args: unrolled.append(args))
    assert not grows_evenly(plan)
    assert lift_loops([plan], lambda _: True) is None
    assert unrolled == []
