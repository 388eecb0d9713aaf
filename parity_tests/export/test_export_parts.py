"""The modules inside a module: registered ones, and those that only containers hold."""

from __future__ import annotations

from collections import deque

import torch
from torch import nn

from rnnx_export.module.parts import parts, submodule, unregistered
from rnnx_export.module.subject import Subject


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.known = nn.Sequential(nn.Linear(2, 2))
        self.also = [self.known[0]]
        self.held = [nn.Linear(2, 2), {"a": (nn.Linear(2, 2),), "a.b": nn.Linear(2, 2)}]
        self.late = deque([nn.Linear(2, 2)])
        self.held[0].inner = [nn.LSTM(2, 2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.held[0](self.known(x))
        return y


def test_each_part_has_one_path_that_leads_to_it_and_registered_ones_their_own() -> None:
    network = Network()
    network.held.append(network.held)
    found = parts(network)
    assert list(found) == ["", "known", "known.0", "held.0", "late.0", "held.1.a.0", "held.0.inner.0"]
    assert all(submodule(network, path) is part for path, part in found.items())
    assert unregistered(network) == list(found.values())[3:]


def test_a_copy_computes_in_one_precision_in_parts_that_pytorch_does_not_know_too() -> None:
    subject = Subject(Network(), {"x": "float32[batch, 2]"})
    copy = subject.fresh(torch.float64)
    weights = [each for part in parts(copy).values() for each in part.parameters(recurse=False)]
    assert len(weights) == 2 * 4 + 4
    assert {(each.dtype, each.requires_grad) for each in weights} == {(torch.float64, False)}
    assert copy(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64
