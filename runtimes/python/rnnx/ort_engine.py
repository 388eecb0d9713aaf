"""ONNX Runtime behind a session: the providers `cpu` and `cuda`.

Everything is bound once: inputs and outputs to fixed buffers, states to two sets of buffers that swap
roles each step. Two bindings per call, one for each direction, so that a step binds nothing anew.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnx import wire
from rnnx.contract import Contract
from rnnx.engine import Shape
from rnnx.errors import ModelError, ProviderError
from rnnx.model_file import ModelFile
from rnnx.ort_moving import GraphMover, HostMover
from rnnx.ort_options import Options, first_line, session_options
from rnnx.shapes import Array, empty

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_WHEELS = ("onnxruntime", "onnxruntime-gpu")


def open_engine(model: ModelFile, contract: Contract, provider: str, options: Options) -> OrtEngine:
    """Load `model`. Raises as `rnnx.engine.open_engine` does."""
    # With weights beside the file, ONNX Runtime has to find them by the file's place.
    source = str(model.path) if model.external and model.path else model.data
    return OrtEngine(_session(source, provider, options, model.label), contract, provider, options)


def probe(provider: str) -> None:
    """Load a model of one node on `provider`. Raises ProviderError where it does not work here."""
    _session(_identity_model(), provider, Options(), "a model of one node")


class OrtEngine:
    """A model loaded by ONNX Runtime. Immutable; `open` may be called from any thread."""

    def __init__(self, session: Any, contract: Contract, provider: str, options: Options) -> None:
        self.provider = provider
        self.session = session
        self.contract = contract
        self.options = options
        self.runtime = importlib.import_module("onnxruntime")
        self._mover: HostMover | GraphMover | None = None

    def open(self, states: Mapping[str, Shape], *, sides: int = 2) -> OrtLane:
        """Return sets of buffers for states of these shapes."""
        return OrtLane(self, states, sides)

    @property
    def mover(self) -> HostMover | GraphMover:
        """What moves rows of states between lanes without leaving the memory they are in."""
        if self._mover is None:
            self._mover = HostMover(self.contract) if self.provider == "cpu" else self.graph_mover()
        return self._mover

    def graph_mover(self) -> GraphMover:
        """Return a mover that computes where this engine does."""
        return GraphMover(self.contract, lambda model: _session(model, self.provider, self.options, "rows"))

    def tensor(self, shape: Shape, dtype: str) -> tuple[Any, Array]:
        """Return a bound buffer where the engine computes, and the host array it is filled from or read into.

        On the CPU both are the same memory.
        """
        array = empty(shape, dtype)
        if self.provider == "cpu":
            return self.runtime.OrtValue.ortvalue_from_numpy(array), array
        array[...] = 0
        return self.runtime.OrtValue.ortvalue_from_numpy(array, "cuda", self.options.device), array


class OrtLane:
    """Sets of state buffers in ONNX Runtime's memory: two, or one for a table."""

    def __init__(self, engine: OrtEngine, states: Mapping[str, Shape], sides: int) -> None:
        self._engine = engine
        self._on_host = engine.provider == "cpu"
        dtypes = {state.name: state.dtype for state in engine.contract.states}
        self._sides = tuple(
            {name: engine.tensor(shape, dtypes[name]) for name, shape in states.items()} for _ in range(sides)
        )
        self._moved: list[dict[str, Any] | None] = [None] * sides

    def gather(self, side: int, table: OrtLane, rows: Array) -> None:
        """Overwrite all states of `side` with those rows of `table`."""
        self._engine.mover.gather(table.moved(0), rows, self.moved(side))

    def scatter(self, side: int, table: OrtLane, rows: Array) -> None:
        """Write all states of `side` to those rows of `table`."""
        self._engine.mover.scatter(self.moved(side), rows, table.moved(0))

    def moved(self, side: int) -> Mapping[str, Any]:
        """Return the buffers of `side` as the engine's mover takes them."""
        found = self._moved[side]
        if found is None:
            view = self._engine.mover.view
            found = {name: view(name, *pair) for name, pair in self._sides[side].items()}
            self._moved[side] = found
        return found

    def read(self, side: int, name: str) -> Array:
        """Return a copy of a state."""
        value, array = self._sides[side][name]
        return array.copy() if self._on_host else np.asarray(value.numpy())

    def write(self, side: int, name: str, value: Array) -> None:
        """Overwrite a state with `value`, of its exact dtype and shape."""
        target, array = self._sides[side][name]
        if self._on_host:
            array[...] = value
        else:
            target.update_inplace(np.ascontiguousarray(value).reshape(value.shape))

    def prepare(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape | None]) -> OrtCall:
        """Bind buffers of these shapes."""
        kind = OrtCall if self._on_host else OrtDeviceCall
        return kind(self._engine, self._sides, inputs, outputs)


class OrtCall:
    """Fixed shapes bound on the CPU: what is written to `inputs` is what the engine reads."""

    def __init__(
        self,
        engine: OrtEngine,
        sides: tuple[dict[str, tuple[Any, Array]], ...],
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape | None],
    ) -> None:
        contract = engine.contract
        takes = {spec.name: spec.dtype for spec in contract.inputs}
        gives = {spec.name: spec.dtype for spec in contract.outputs}
        self._given = {name: engine.tensor(shape, takes[name]) for name, shape in inputs.items()}
        self._taken = {
            name: engine.tensor(shape, gives[name]) for name, shape in outputs.items() if shape is not None
        }
        self.inputs = {name: array for name, (_, array) in self._given.items()}
        self.outputs = {name: array for name, (_, array) in self._taken.items()}
        # Without states both directions are the same, and one binding serves both.
        self._bindings = [self._bind(engine, sides[0], sides[1], outputs)]
        self._bindings += [self._bind(engine, sides[1], sides[0], outputs)] if sides[0] else self._bindings
        # The wrapper around this function costs as much as checking the input does.
        self._run = engine.session._sess.run_with_iobinding
        self._raw = [binding._iobinding for binding in self._bindings]
        self._names = [spec.name for spec in contract.outputs]
        # The order in which `_bind` binds outputs is the order in which they come back.
        self._loose = [(index, name) for index, name in enumerate(outputs) if outputs[name] is None]

    def _bind(
        self,
        engine: OrtEngine,
        old: Mapping[str, tuple[Any, Array]],
        new: Mapping[str, tuple[Any, Array]],
        outputs: Mapping[str, Shape | None],
    ) -> Any:
        binding = engine.session.io_binding()
        for name, (value, _) in self._given.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            if name in self._taken:
                binding.bind_ortvalue_output(name, self._taken[name][0])
            else:
                binding.bind_output(name, "cpu")
        for state in engine.contract.states:
            binding.bind_ortvalue_input(state.input, old[state.name][0])
            binding.bind_ortvalue_output(state.output, new[state.name][0])
        return binding

    def run(self, side: int) -> None:
        """Compute from the state buffers of `side` into those of the other side."""
        try:
            self._run(self._raw[side], None)
        except Exception as error:
            raise _failed(error) from error
        if self._loose:
            results = self._bindings[side].get_outputs()
            for index, name in self._loose:
                self.outputs[name] = results[index].numpy()


class OrtDeviceCall(OrtCall):
    """Fixed shapes bound on a GPU: inputs are copied there before a run, outputs back after it."""

    def run(self, side: int) -> None:
        """Compute from the state buffers of `side` into those of the other side; both stay on the GPU."""
        for value, array in self._given.values():
            value.update_inplace(array)
        super().run(side)
        for value, array in self._taken.values():
            array[...] = value.numpy()


def _session(source: str | bytes, provider: str, options: Options, label: str) -> Any:
    """Return an InferenceSession that runs on `provider` and nowhere else."""
    ort = _onnxruntime(provider)
    wanted: list[Any] = ["CPUExecutionProvider"]
    if provider == "cuda":
        # The CPU stays in the list for the few operators that only exist there (shapes, mostly).
        cuda = {"device_id": str(options.device), "use_tf32": "1" if options.tf32 else "0"}
        wanted.insert(0, ("CUDAExecutionProvider", cuda))
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    settings = session_options(ort, options)
    try:
        session = ort.InferenceSession(source, settings, providers=wanted)
    except Exception as error:
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
        ort = importlib.import_module("onnxruntime")
        available = ort.get_available_providers()
    except (ImportError, AttributeError) as error:
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


def _failed(error: Exception) -> ModelError:
    return ModelError(
        "engine-failed",
        expected="ONNX Runtime to compute the step",
        found=first_line(error),
        fix="the states are unchanged; check that the contract fits the graph, or export the model again",
    )


def _identity_model() -> bytes:
    """Return an ONNX model of one Identity node, y float32[1] = x: enough to see a provider work."""
    size = wire.encode_bytes(1, b"\x08\x01")
    kind = wire.encode_bytes(2, wire.encode_bytes(1, b"\x08\x01" + wire.encode_bytes(2, size)))
    node = wire.encode_bytes(1, b"x") + wire.encode_bytes(2, b"y") + wire.encode_bytes(4, b"Identity")
    graph = wire.encode_bytes(1, node) + wire.encode_bytes(2, b"probe")
    graph += wire.encode_bytes(11, wire.encode_bytes(1, b"x") + kind)
    graph += wire.encode_bytes(12, wire.encode_bytes(1, b"y") + kind)
    return b"\x08\x08" + wire.encode_bytes(7, graph) + wire.encode_bytes(8, b"\x10\x11")
