"""What `rnnx bench` measures side by side: rnnx itself, and ONNX Runtime as one calls it by hand.

A candidate can be sent to another process, where its memory and first step are measured alone; what it
loads there cannot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rnnx.engines.ort_import import import_onnxruntime
from rnnx.errors import RnnxError
from rnnx.model.contract import Contract, resolve
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.model.shapes import Array
from rnnx.parity.lazy_inputs import drawn_inputs
from rnnx.parity.lockstep import step_inputs
from rnnx.runtime.initial_states import starts
from rnnx.session import Session, load

Step = Callable[[], object]
FREE_SIZE = 5  # of free dimensions


class Loaded(Protocol):
    """A model, loaded."""

    def steps(self, streams: int) -> Step:
        """Return a function that advances so many independent streams by a step, their states kept."""


class Candidate(Protocol):
    """Something that steps a model.

    Attributes:
        name: for tables.
        optional: whether its failure is a remark rather than an error.
    """

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def optional(self) -> bool:
        """Whether its failure is a remark rather than an error."""

    def load(self) -> Loaded:
        """Load the model."""


@dataclasses.dataclass(frozen=True)
class RnnxCandidate:
    """`Stream.step`, or `Pool.step` for many streams.

    Attributes:
        path: of the model.
        provider: what computes.
        name: for tables.
        check: as `Session.stream`.
        keep: whether results are fresh arrays; else they are written to the same ones (`out=`).
        options: as `rnnx.load`.
    """

    path: Path
    provider: str = "cpu"
    name: str = "rnnx"
    check: bool = True
    keep: bool = True
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optional: bool = False

    def load(self) -> Loaded:
        """Load the model on the provider."""
        return _Rnnx(load(self.path, self.provider, options=self.options), self)


@dataclasses.dataclass(frozen=True)
class OrtCandidate:
    """ONNX Runtime without rnnx.

    Attributes:
        path: of the model.
        name: for tables.
        bound: whether buffers are bound once and swapped, in a session of one thread as rnnx has it; else
            `run()` with dictionaries and default options, the ordinary way.
        provider: cpu or cuda.
    """

    path: Path
    name: str = "onnxruntime run()"
    bound: bool = False
    optional: bool = False
    provider: str = "cpu"

    def load(self) -> Loaded:
        """Load the model."""
        ort = import_onnxruntime()
        settings = ort.SessionOptions()
        if self.bound:
            settings.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        if self.provider == "cuda":
            ort.preload_dlls()
            providers.insert(0, "CUDAExecutionProvider")
        session = ort.InferenceSession(str(self.path), settings, providers=providers)
        contract = read_contract(read_model(self.path))
        return _Bound(session, contract, self.provider) if self.bound else _Dictionaries(session, contract)


def step_arrays(contract: Contract, batch: int) -> dict[str, Array]:
    """Return random inputs of one step, in the shapes that `Stream.step` takes."""
    sizes = step_sizes(contract, batch)
    return step_inputs(contract, drawn_inputs(contract, steps=1, sizes=sizes), 0)


def step_sizes(contract: Contract, batch: int) -> dict[str, int]:
    """Return the size of every named dimension."""
    return {**dict.fromkeys(contract.free_dimensions, FREE_SIZE), "batch": batch, "time": 1}


def start_arrays(contract: Contract, batch: int) -> dict[str, Array]:
    """Return the start of every state in full shape."""
    return starts(contract, step_sizes(contract, batch), {})


class _Rnnx:
    def __init__(self, session: Session, candidate: RnnxCandidate) -> None:
        self.session, self.candidate = session, candidate

    def steps(self, streams: int) -> Step:
        contract = self.session.contract
        dims = dict.fromkeys(contract.free_dimensions, FREE_SIZE)
        feed = step_arrays(contract, 1)
        if streams == 1:
            return self._stream(feed, dims)
        try:
            pool = self.session.pool(capacity=streams, dims=dims, check=self.candidate.check)
        except RnnxError:  # a model that cannot be batched: its streams are stepped one by one
            return _all([self._stream(feed, dims) for _ in range(streams)])
        feeds = {pool.open(): feed for _ in range(streams)}
        return lambda: pool.step(feeds)

    def _stream(self, feed: Mapping[str, Array], dims: Mapping[str, int]) -> Step:
        stream = self.session.stream(dims=dims, check=self.candidate.check)
        if self.candidate.keep:
            return lambda: stream.step(feed)
        out = stream.step(feed)
        return lambda: stream.step(feed, out=out)


class _Ort:
    """What both candidates that call ONNX Runtime by hand share."""

    def __init__(self, session: Any, contract: Contract) -> None:
        self.session, self.contract = session, contract
        self.names = [spec.name for spec in contract.outputs]

    def steps(self, streams: int) -> Step:
        if self.contract.has_batch:
            return self.stream(streams)
        return _all([self.stream(1) for _ in range(streams)])

    def stream(self, batch: int) -> Step:
        raise NotImplementedError

    def feed(self, batch: int) -> dict[str, Array]:
        """Return the inputs of one step as the graph takes them, optional ones too."""
        contract, sizes = self.contract, step_sizes(self.contract, batch)
        inputs = step_arrays(contract, batch)
        shapes = {spec.name: resolve(spec.shape, sizes) for spec in contract.inputs}
        return {
            spec.name: np.array(
                inputs[spec.name].reshape(shapes[spec.name])
                if spec.name in inputs
                else np.full(shapes[spec.name], 1 if spec.role else spec.default, spec.dtype),
                order="C",
            )
            for spec in contract.inputs
        }


class _Dictionaries(_Ort):
    def stream(self, batch: int) -> Step:
        feed, count = self.feed(batch), len(self.names)
        start = start_arrays(self.contract, batch)
        feed |= {state.input: start[state.name] for state in self.contract.states}
        wanted = self.names + [state.output for state in self.contract.states]
        state_inputs = [state.input for state in self.contract.states]

        def step() -> object:
            results = self.session.run(wanted, feed)
            feed.update(zip(state_inputs, results[count:], strict=True))
            return results[:count]

        return step


class _Bound(_Ort):
    def __init__(self, session: Any, contract: Contract, device: str) -> None:
        super().__init__(session, contract)
        self.device = device

    def stream(self, batch: int) -> Step:
        sizes, on_host = step_sizes(self.contract, batch), self.device == "cpu"
        feed, start = self.feed(batch), start_arrays(self.contract, batch)
        inputs = [self._place(np.empty_like(value)) for value in feed.values()]
        outputs = [
            self._place(np.empty(resolve(spec.shape, sizes), spec.dtype)) for spec in self.contract.outputs
        ]
        buffers = [{name: self._place(value.copy())[0] for name, value in start.items()} for _ in range(2)]
        bindings = []
        for old, new in ((0, 1), (1, 0)):
            binding = self.session.io_binding()
            for name, (value, _) in zip(feed, inputs, strict=True):
                binding.bind_ortvalue_input(name, value)
            for name, (value, _) in zip(self.names, outputs, strict=True):
                binding.bind_ortvalue_output(name, value)
            for state in self.contract.states:
                binding.bind_ortvalue_input(state.input, buffers[old][state.name])
                binding.bind_ortvalue_output(state.output, buffers[new][state.name])
            bindings.append(binding)
        pairs = [(*place, value) for place, value in zip(inputs, feed.values(), strict=True)]
        run, index = self.session.run_with_iobinding, 0

        def step() -> object:
            nonlocal index
            for device, host, value in pairs:
                host[...] = value
                if not on_host:
                    device.update_inplace(host)
            run(bindings[index])
            index = 1 - index
            return [host.copy() if on_host else device.numpy() for device, host in outputs]

        return step

    def _place(self, array: Array) -> tuple[Any, Array]:
        """Return a value where the session computes, and its host array; on the CPU both are the same."""
        ort = import_onnxruntime()
        return ort.OrtValue.ortvalue_from_numpy(array, self.device, 0), array


def _all(steps: list[Step]) -> Step:
    return lambda: [step() for step in steps]
