"""ONNX Runtime behind a session: the providers `cpu` and `cuda`.

Everything is bound once: inputs and outputs to fixed buffers, states to two sets of buffers that swap
roles each step. Two bindings per call, one for each direction, so that a step binds nothing anew.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from rnnx.engines.host_rows import HostMover
from rnnx.engines.node_rules import require_rules
from rnnx.engines.ort_calls import OrtCall, OrtDeviceCall, no_cuda_graph
from rnnx.engines.ort_import import import_onnxruntime
from rnnx.engines.ort_moving import GraphMover
from rnnx.engines.ort_options import Options, is_of_engine, session_options
from rnnx.engines.ort_staging import Pageable, Staging, pinned
from rnnx.engines.protocol import Device, Shape
from rnnx.engines.state_rows import StateRows
from rnnx.errors import ModelError, ProviderError, first_line, was_interrupted
from rnnx.model import protobuf
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import ModelFile
from rnnx.model.shapes import Array

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DLPACK = {"cpu": 1, "cuda": 2}  # kinds of device, by ONNX Runtime's name
_WHEELS = ("onnxruntime", "onnxruntime-gpu")


def open_engine(model: ModelFile, contract: Contract, provider: str, options: Options) -> OrtEngine:
    """Load `model`. Raises as `rnnx.engines.registry.open_engine` does."""
    require_rules(model)
    # With weights beside the file, ONNX Runtime has to find them by the file's place.
    source = str(model.path) if model.external and model.path else model.data
    session = _session(source, provider, options, model.label)
    if provider == "cpu":
        return OrtEngine(session, contract, provider, options)
    staging = pinned(import_onnxruntime(), options.device) if options.pinned else Pageable()
    return OrtEngine(session, contract, provider, options, "cuda", staging)


def probe(provider: str) -> None:
    """Load a model of one node on `provider`. Raises ProviderError where it does not work here."""
    _session(_identity_model(), provider, Options(), "a model of one node")


class OrtEngine:
    """A model loaded by ONNX Runtime. Immutable; `open` may be called from any thread.

    Args:
        session: an InferenceSession.
        contract: of the model.
        provider: its name for users.
        options: it was loaded with.
        memory: ONNX Runtime's name of the device whose memory buffers lie in; None for the host's own.
        staging: the host's end of copies to and from that device.
    """

    def __init__(
        self,
        session: Any,
        contract: Contract,
        provider: str,
        options: Options,
        memory: str | None = None,
        staging: Staging | None = None,
    ) -> None:
        self.provider = provider
        self.session = session
        self.contract = contract
        self.options = options
        self.device: Device | None = None if memory is None else (_DLPACK[memory], options.device)
        self.runtime = import_onnxruntime()
        # ONNX Runtime replays CUDA graphs for one thread at a time.
        self.turns: AbstractContextManager[Any] = threading.Lock() if options.cuda_graph else nullcontext()
        self.staging: Staging = staging or Pageable()
        self._memory = memory
        self._mover: HostMover | GraphMover | None = None

    def open(self, states: Mapping[str, Shape], *, buffers: int = 2) -> OrtStateBuffers:
        """Return sets of buffers for states of these shapes."""
        return OrtStateBuffers(self, states, buffers)

    @property
    def mover(self) -> HostMover | GraphMover:
        """What moves rows of states between buffers without leaving the memory they are in."""
        if self._mover is None:
            self._mover = HostMover(self.contract) if self.device is None else self.graph_mover()
        return self._mover

    def graph_mover(self) -> GraphMover:
        """Return a mover that computes where this engine does."""
        # Rows that move are others each time: nothing that a CUDA graph could hold.
        options = dataclasses.replace(self.options, cuda_graph=False)
        return GraphMover(self.contract, lambda model: _session(model, self.provider, options, "rows"))

    def tensor(self, shape: Shape, dtype: str) -> tuple[Any, Array]:
        """Return a bound buffer where the engine computes, and the host array it is filled from or read into.

        On the CPU both are the same memory.
        """
        array = self.staging.empty(shape, dtype)
        if self._memory is None:
            return self.runtime.OrtValue.ortvalue_from_numpy(array), array
        return self._there(shape, dtype), array

    def state(self, shape: Shape, dtype: str) -> tuple[Any, Array | None]:
        """Return a bound buffer for a state, and on the CPU the array that is the same memory."""
        return self.tensor(shape, dtype) if self._memory is None else (self._there(shape, dtype), None)

    def _there(self, shape: Shape, dtype: str) -> Any:
        """Return a buffer of zeros on the device."""
        zeros = np.zeros(shape, dtype)
        made = self.runtime.OrtValue.ortvalue_from_shape_and_type
        value = made(shape, zeros.dtype, self._memory, self.options.device)
        value.update_inplace(zeros)
        return value


class OrtStateBuffers(StateRows):
    """States in ONNX Runtime's memory: a double buffer, or a single one for a table."""

    def __init__(self, engine: OrtEngine, states: Mapping[str, Shape], buffers: int) -> None:
        super().__init__(engine.mover, buffers)
        self._engine = engine
        self._on_host = engine.device is None
        dtypes = {state.name: state.dtype for state in engine.contract.states}
        self._buffers: tuple[dict[str, tuple[Any, Any]], ...] = tuple(
            {name: engine.state(shape, dtypes[name]) for name, shape in states.items()}
            for _ in range(buffers)
        )

    def _states(self, index: int) -> Iterator[tuple[str, Sequence[Any]]]:
        yield from self._buffers[index].items()

    def read(self, index: int, name: str) -> Array:
        """Return a copy of a state."""
        value, array = self._buffers[index][name]
        return np.asarray(value.numpy()) if array is None else array.copy()

    def write(self, index: int, name: str, value: Array) -> None:
        """Overwrite a state with `value`, of its exact dtype and shape."""
        target, array = self._buffers[index][name]
        if array is None:
            target.update_inplace(np.ascontiguousarray(value).reshape(value.shape))
        else:
            array[...] = value

    def prepare(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape | None]) -> OrtCall:
        """Bind buffers of these shapes."""
        kind = OrtCall if self._on_host else OrtDeviceCall
        return kind(self._engine, self._buffers, inputs, outputs)


def _session(source: str | bytes, provider: str, options: Options, label: str) -> Any:
    """Return an InferenceSession that runs on `provider` and nowhere else."""
    ort = _onnxruntime(provider)
    wanted: list[Any] = ["CPUExecutionProvider"]
    if provider == "cuda":
        # The CPU stays in the list for the few operators that only exist there (shapes, mostly).
        cuda = {
            "device_id": str(options.device),
            "use_tf32": "1" if options.tf32 else "0",
            "enable_cuda_graph": "1" if options.cuda_graph else "0",
        }
        wanted.insert(0, ("CUDAExecutionProvider", cuda))
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    settings = session_options(ort, options)
    try:
        session = ort.InferenceSession(source, settings, providers=wanted)
    except Exception as error:
        if not is_of_engine(error):
            raise
        if options.cuda_graph and "graph" in str(error):
            raise no_cuda_graph(first_line(error)) from error
        if provider == "cuda" and "CUDA" in str(error):
            raise _no_cuda(first_line(error)) from error
        raise ModelError(
            "engine-refused",
            expected=f"{label} to load in ONNX Runtime {ort.__version__}",
            found=first_line(error),
            fix="export it again, or install a newer onnxruntime",
        ) from error
    session.disable_fallback()
    got = session.get_providers()
    if got[0] != _PROVIDERS[provider]:
        raise _no_cuda(f"only {', '.join(got)} after loading it (no driver, or no CUDA libraries)")
    return session


def _onnxruntime(provider: str) -> Any:
    try:
        ort = import_onnxruntime()
        available = ort.get_available_providers()
    except (ImportError, AttributeError) as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        raise ProviderError(
            "onnxruntime-missing",
            expected=f"onnxruntime for the {provider} provider",
            found=f"none that can be imported ({first_line(error)})",
            fix=f"pip install 'rnnx[{provider}]'",
        ) from error
    if provider == "cuda":
        installed = [wheel for wheel in _WHEELS if _installed(wheel)]
        if len(installed) == 2:
            raise ProviderError(
                "onnxruntime-conflict",
                expected="one of the packages onnxruntime and onnxruntime-gpu",
                found="both of them, which overwrite each other's files",
                fix="pip uninstall onnxruntime onnxruntime-gpu, then pip install 'rnnx[cuda]'",
            )
        if _PROVIDERS["cuda"] not in available:
            raise _no_cuda("an ONNX Runtime built without CUDA")
    return ort


def _installed(wheel: str) -> bool:
    try:
        importlib.metadata.version(wheel)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _no_cuda(found: str) -> ProviderError:
    return ProviderError(
        "provider-unavailable",
        expected="CUDA to work on this machine",
        found=found,
        fix="install ONNX Runtime with CUDA (in Python: rnnx[cuda], without onnxruntime), "
        "or use provider cpu",
    )


def _identity_model() -> bytes:
    """Return an ONNX model of one Identity node, y float32[1] = x: enough to see a provider work."""
    size = protobuf.encode_bytes(1, b"\x08\x01")
    kind = protobuf.encode_bytes(2, protobuf.encode_bytes(1, b"\x08\x01" + protobuf.encode_bytes(2, size)))
    node = (
        protobuf.encode_bytes(1, b"x")
        + protobuf.encode_bytes(2, b"y")
        + protobuf.encode_bytes(4, b"Identity")
    )
    graph = protobuf.encode_bytes(1, node) + protobuf.encode_bytes(2, b"probe")
    graph += protobuf.encode_bytes(11, protobuf.encode_bytes(1, b"x") + kind)
    graph += protobuf.encode_bytes(12, protobuf.encode_bytes(1, b"y") + kind)
    return b"\x08\x08" + protobuf.encode_bytes(7, graph) + protobuf.encode_bytes(8, b"\x10\x11")
