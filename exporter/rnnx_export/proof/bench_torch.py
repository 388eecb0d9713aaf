"""PyTorch as candidates of `rnnx bench`: the network's own step, eager and compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rnnx.bench.candidates import Step, start_arrays, step_arrays
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.model.shapes import Array
from rnnx_export.diagnostics import quiet
from rnnx_export.proof.reference import open_reference
from rnnx_export.states.program import step_program


class _Network(Protocol):
    @property
    def module(self) -> nn.Module:
        """In eval mode."""

    @property
    def arguments(self) -> dict[str, Any]:
        """As `rnnx.export` takes them."""


@dataclasses.dataclass(frozen=True)
class TorchCandidate:
    """The network in PyTorch, advanced one step at a time.

    Its step is traced once at a fixed batch (`torch.export`), so that what is measured are PyTorch's
    operators and their calls, not the Python around them nor rnnx's way of finding states.

    Attributes:
        path: of the model exported from it, whose contract names inputs and states.
        network: returns the module and what it was exported with; can be sent to another process.
        name: for tables.
        compiled: whether `torch.compile` makes the step.
        optional: whether its failure is a remark rather than an error.
        device: where PyTorch computes; results come to the host, as rnnx's do.
    """

    path: Path
    network: Callable[[], _Network]
    name: str = "torch eager"
    compiled: bool = False
    optional: bool = False
    device: str = "cpu"

    def load(self) -> _Torch:
        """Open the network."""
        contract = read_contract(read_model(self.path))
        network = self.network()
        reference = open_reference(network.module, contract, network.arguments)
        return _Torch(step_program(reference.plan).to(self.device), contract, self)


class _Torch:
    def __init__(self, program: nn.Module, contract: Contract, candidate: TorchCandidate) -> None:
        self._program, self._contract = program, contract
        self._compiled, self._device = candidate.compiled, candidate.device

    def steps(self, streams: int) -> Step:
        batched = self._contract.has_batch
        each = [self._stream(streams if batched else 1) for _ in range(1 if batched else streams)]
        return each[0] if len(each) == 1 else lambda: [step() for step in each]

    def _stream(self, batch: int) -> Step:
        contract = self._contract
        arrays, start = step_arrays(contract, batch), start_arrays(contract, batch)
        inputs = [self._place(arrays[spec.name]) for spec in contract.inputs]
        states = [self._place(start[state.name]) for state in contract.states]
        graph = self._traced([*inputs, *states])
        count = len(contract.outputs)

        def step() -> object:
            nonlocal states
            with torch.inference_mode():
                results = graph(*inputs, *states)
            states = list(results[count:])
            return [result.cpu().numpy() for result in results[:count]]

        return step

    def _place(self, array: Array) -> Tensor:
        return torch.from_numpy(array.copy()).to(self._device)

    def _traced(self, examples: Sequence[Tensor]) -> Callable[..., Any]:
        with quiet():
            graph = torch.export.export(self._program, tuple(examples), strict=False).module()
        return torch.compile(graph) if self._compiled else graph
