"""The provider `native`: the model as C, built with this machine's compiler on first use."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rnnx.engines.host_rows import HostMover
from rnnx.engines.protocol import Device, Shape
from rnnx.engines.state_rows import StateRows
from rnnx.errors import ModelError, ProviderError
from rnnx.model.contract import Axis, Contract
from rnnx.model.onnx_file import ModelFile
from rnnx.model.shapes import Array, empty, fit
from rnnx_native import build_cache
from rnnx_native.caller import caller, extension
from rnnx_native.mapping import mapped
from rnnx_native.program.ports import has_free_rows

_LEVELS = {"auto": 3, "portable": 0, "avx2": 1, "avx512": 2}
_POINTER = ctypes.c_void_p


@dataclasses.dataclass(frozen=True)
class Options:
    """What `rnnx.load(..., provider="native", options=)` lets one choose.

    Attributes:
        chunk: steps computed at once in a chunk.
        weights: `f32`, `f16` or `int8`: less memory, larger errors (`rnnx_native.quantisation_cost`).
        instructions: `auto`, the best that the processor has; `portable` for C without vector
            instructions, `avx2` or `avx512` (without VNNI) for nothing above those.
    """

    chunk: int = 16
    weights: str = "f32"
    instructions: str = "auto"

    ALLOWED: ClassVar[dict[str, Any]] = {
        "chunk": range(1, 4097),
        "weights": ("f32", "f16", "int8"),
        "instructions": tuple(_LEVELS),
    }


def probe(provider: str) -> None:
    """Look for a compiler. Raises ProviderError where there is none."""
    _require_onnx()
    build_cache.compiler()


def open_engine(model: ModelFile, contract: Contract, provider: str, options: Options) -> NativeEngine:
    """Compile `model`, or find it compiled.

    Raises:
        ModelError: `cannot-compile`.
        ProviderError: `provider-unavailable`, `compiler-missing`, `compiler-failed` or `cache-not-writeable`.
    """
    _require_onnx()
    return NativeEngine(model, contract, options)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ProviderError(
            "provider-unavailable",
            expected="the package onnx, with which the native provider reads models",
            found="none",
            fix="pip install 'rnnx[native]'",
        ) from error


class Library:
    """A compiled model. Sessions of one model share it: `library_in`.

    Attributes:
        gives: shape of one step of each output at batch 1, by name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.gives = {
            name: tuple(shape) for name, shape in json.loads((folder / "gives.json").read_text()).items()
        }
        self._weights = mapped(folder / "weights")
        library = ctypes.CDLL(str(folder / "engine.so"))
        library.rnnx_call_bytes.restype = ctypes.c_size_t
        library.rnnx_bind.argtypes = [
            _POINTER,
            _POINTER,
            ctypes.c_size_t,
            ctypes.c_size_t,
            ctypes.c_size_t,
            ctypes.POINTER(_POINTER),
            ctypes.c_int,
        ]
        library.rnnx_run.argtypes = [_POINTER, ctypes.c_int]
        library.rnnx_run.restype = None
        self._library = library

    @property
    def run(self) -> Any:
        """The function that computes a call."""
        return self._library.rnnx_run

    def bind(self, rows: int, steps: int, tensors: list[Array], level: int) -> Array:
        """Return a call's memory, bound to `tensors`: inputs, outputs, states of both buffers."""
        call = empty((self._library.rnnx_call_bytes(),), "uint8")
        call[...] = 0
        pointers = (_POINTER * max(len(tensors), 1))(*(tensor.ctypes.data for tensor in tensors))
        weights = self._weights
        error = self._library.rnnx_bind(
            call.ctypes.data, weights.ctypes.data, weights.nbytes, rows, steps, pointers, level
        )
        if error:
            raise ProviderError(
                "cache-damaged",
                expected="a model as it was compiled, in the cache",
                found=f"something else in {self._folder} (error {error})",
                fix="remove that folder; it is made again",
            )
        return call


_LIBRARIES: weakref.WeakValueDictionary[Path, Library] = weakref.WeakValueDictionary()
_LIBRARIES_LOCK = threading.Lock()


def library_in(folder: Path) -> Library:
    """Return the library that lies in a folder of the cache, loaded once in this process."""
    with _LIBRARIES_LOCK:
        found = _LIBRARIES.get(folder)
        if found is None:
            found = _LIBRARIES[folder] = Library(folder)
        return found


class NativeEngine:
    """A model as C. Immutable; `open` may be called from any thread."""

    provider = "native"
    device: Device | None = None

    def __init__(self, model: ModelFile, contract: Contract, options: Options) -> None:
        self.contract = contract
        self.options = options
        self.mover = HostMover(contract)
        self._model = model
        self._libraries: dict[tuple[tuple[str, int], ...], Library] = {}
        self._lock = threading.Lock()
        extension()
        # Sizes that only a stream knows: batch where rows share something, free dimensions, whole lengths.
        self._free_rows = has_free_rows(contract)
        if not contract.free_dimensions and self._free_rows and not contract.whole_only:
            self.library({"batch": 1, "time": 1})

    def open(self, states: Mapping[str, Shape], *, buffers: int = 2) -> NativeStateBuffers:
        """Return sets of buffers for states of these shapes."""
        return NativeStateBuffers(self, states, buffers)

    def library(self, sizes: Mapping[str, int]) -> Library:
        """Return the library for calls of these sizes: batch, time and the free dimensions."""
        fixed = {name: sizes[name] for name in self.contract.free_dimensions if name in sizes}
        fixed["batch"] = 1 if self._free_rows else sizes.get("batch", 1)
        if self.contract.whole_only:
            fixed |= {"batch": sizes.get("batch", 1), "time": sizes.get("time", 1)}
        key = tuple(sorted(fixed.items()))
        with self._lock:
            if key not in self._libraries:
                self._libraries[key] = self._build(fixed)
            return self._libraries[key]

    def _build(self, fixed: Mapping[str, int]) -> Library:
        def make() -> dict[str, bytes]:
            from rnnx_native.c_source.engine_text import engine_files
            from rnnx_native.compile import engine_unit
            from rnnx_native.lowering.compiled_model import weights_file

            unit = engine_unit(
                self._model,
                self.contract,
                fixed,
                chunk=self.options.chunk,
                weights=self.options.weights,
            )
            files = {name: text.encode() for name, text in engine_files(unit).items()}
            files["gives.json"] = json.dumps(
                {port.name: port.step for port in unit.signature.outputs}
            ).encode()
            return files | {"weights": weights_file(unit)}

        parts = [self._model.id, json.dumps(sorted(fixed.items())), str(self.options.chunk)]
        parts += [self.options.weights, *build_cache.FLAGS]
        # The contract is no part of the id, and says what is an input and what a state.
        parts.append(self._model.metadata.get("rnnx.contract", ""))
        return library_in(
            build_cache.kept(parts, make, {"engine.so": [*build_cache.FLAGS, "engine.c", "-lm"]})
        )


class NativeStateBuffers(StateRows):
    """States in C's memory: a double buffer, or a single one for a table."""

    def __init__(self, engine: NativeEngine, states: Mapping[str, Shape], buffers: int) -> None:
        super().__init__(engine.mover, buffers)
        self.engine = engine
        self.shapes = dict(states)
        dtypes = {state.name: state.dtype for state in engine.contract.states}
        self.buffers = tuple(
            {name: empty(shape, dtypes[name]) for name, shape in states.items()} for _ in range(buffers)
        )

    def _states(self, index: int) -> Iterator[tuple[str, Sequence[Any]]]:
        return ((name, (array, array)) for name, array in self.buffers[index].items())

    def read(self, index: int, name: str) -> Array:
        """Return a copy of a state."""
        return self.buffers[index][name].copy()

    def write(self, index: int, name: str, value: Array) -> None:
        """Overwrite a state with `value`, of its exact dtype and shape."""
        self.buffers[index][name][...] = value

    def prepare(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape | None]) -> NativeCall:
        """Bind buffers of these shapes."""
        return NativeCall(self, inputs, outputs)


class NativeCall:
    """Fixed shapes bound: what is written to `inputs` is what the C function reads.

    Attributes:
        run: computes from one of the two state buffers into the other.
    """

    device: Device | None = None

    def __init__(
        self, states: NativeStateBuffers, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape | None]
    ) -> None:
        contract, engine = states.engine.contract, states.engine
        sizes = _sizes(contract, inputs, states.shapes)
        library = engine.library(sizes)
        shapes = {
            spec.name: outputs[spec.name] or _output_shape(spec.shape, library.gives[spec.name], sizes)
            for spec in contract.outputs
        }
        self.inputs = {spec.name: empty(inputs[spec.name], spec.dtype) for spec in contract.inputs}
        self.outputs = {spec.name: empty(shapes[spec.name], spec.dtype) for spec in contract.outputs}
        self.on_device: set[str] = set()
        self._states, self._library = states, library  # what the bound pointers lead into
        first, second = states.buffers[0], states.buffers[-1]
        names = [state.name for state in contract.states]
        tensors = [self.inputs[spec.name] for spec in contract.inputs]
        tensors += [self.outputs[spec.name] for spec in contract.outputs]
        tensors += [first[name] for name in names] + [second[name] for name in names]
        level = _LEVELS[engine.options.instructions]
        self._call = library.bind(sizes.get("batch", 1), sizes.get("time", 1), tensors, level)
        self.run = caller(library.run, self._call.ctypes.data)

    def take(self, name: str, value: Any) -> None:
        """Never called: inputs lie on the host, where this engine computes."""
        raise AssertionError(f"input {name!r} cannot lie on a device")


def _sizes(contract: Contract, inputs: Mapping[str, Shape], states: Mapping[str, Shape]) -> dict[str, int]:
    """Return batch, time and the free dimensions that shapes of the graph imply."""
    found: dict[str, int] = {}
    bound = [(spec.shape, inputs[spec.name]) for spec in contract.inputs]
    bound += [(spec.shape, states[spec.name]) for spec in contract.states]
    for shape, actual in bound:
        fitted = fit(shape, actual, found)
        if fitted is None:
            raise ModelError(
                "engine-failed",
                expected=f"sizes {found} throughout",
                found=f"{list(actual)} for {list(shape)}",
                fix="open another stream for other sizes",
            )
        found = fitted
    return found


def _output_shape(axes: list[Any], step: Shape, sizes: Mapping[str, int]) -> Shape:
    """Return the shape of an output whose contract leaves an axis open, from that of one step."""
    rest = iter(step)
    shape = []
    for dimension in axes:
        axis = Axis.parse(dimension)
        size = 1 if dimension == "time" else next(rest)
        shape.append(axis.factor * sizes[axis.name] if axis.name in ("batch", "time") else size)
    return tuple(shape)
