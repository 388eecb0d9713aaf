"""Calls of ONNX Runtime with everything bound: on the CPU, and on a device.

Two bindings per call, one for each direction in which states swap, so that a step binds nothing anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from rnnx.engines.ort_options import is_of_engine
from rnnx.engines.protocol import Device, Shape
from rnnx.errors import InputError, ModelError, first_line
from rnnx.model.contract import Contract
from rnnx.model.index_ranges import bounds_of
from rnnx.model.shapes import Array

if TYPE_CHECKING:
    from rnnx.engines.ort_options import Options
    from rnnx.engines.ort_staging import Staging

_CUDA = 2  # DLPack's number for that kind of device
# Of CUDA graphs: each call has one for either direction, and ONNX Runtime tells them apart by number.
_NUMBERS = itertools.count(1)


class Binder(Protocol):
    """What calls take from the engine that opens them: its session, and memory where it computes.

    Attributes:
        contract, session, options: of the engine.
        device: where it computes; None for the host.
        runtime: the module onnxruntime.
        turns: for calls that take turns.
        staging: the host's end of copies.
    """

    contract: Contract
    session: Any
    options: Options
    device: Device | None
    runtime: Any
    turns: AbstractContextManager[Any]
    staging: Staging

    def tensor(self, shape: Shape, dtype: str) -> tuple[Any, Array]:
        """Return a bound buffer where the engine computes, and the host array that goes with it."""


class OrtCall:
    """Fixed shapes bound on the CPU: what is written to `inputs` is what the engine reads."""

    def __init__(
        self,
        engine: Binder,
        buffers: tuple[dict[str, tuple[Any, Array]], ...],
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape | None],
    ) -> None:
        self._contract = contract = engine.contract
        self.device, self.on_device = engine.device, set[str]()
        takes = {spec.name: spec.dtype for spec in contract.inputs}
        gives = {spec.name: spec.dtype for spec in contract.outputs}
        self._input_pairs = {name: engine.tensor(shape, takes[name]) for name, shape in inputs.items()}
        self._output_pairs = {
            name: engine.tensor(shape, gives[name]) for name, shape in outputs.items() if shape is not None
        }
        self.inputs = {name: array for name, (_, array) in self._input_pairs.items()}
        self.outputs = {name: array for name, (_, array) in self._output_pairs.items()}
        # Without states both directions are the same, and one binding serves both.
        first, second = buffers
        self._bindings = [self._bind(engine, first, second, outputs)]
        self._bindings += [self._bind(engine, second, first, outputs)] if first else self._bindings
        # The wrapper around this function costs as much as checking the input does.
        self._run = engine.session._sess.run_with_iobinding
        self._raw = [binding._iobinding for binding in self._bindings]
        self._run_options: tuple[Any, Any] = (None, None)
        # The order in which `_bind` binds outputs is the order in which they come back.
        self._loose = [(index, name) for index, name in enumerate(outputs) if outputs[name] is None]

    def _bind(
        self,
        engine: Binder,
        old: Mapping[str, tuple[Any, Array]],
        new: Mapping[str, tuple[Any, Array]],
        outputs: Mapping[str, Shape | None],
    ) -> Any:
        binding = engine.session.io_binding()
        for name, (value, _) in self._input_pairs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            if name in self._output_pairs:
                binding.bind_ortvalue_output(name, self._output_pairs[name][0])
            else:
                binding.bind_output(name, "cpu")
        for state in engine.contract.states:
            binding.bind_ortvalue_input(state.input, old[state.name][0])
            binding.bind_ortvalue_output(state.output, new[state.name][0])
        return binding

    def take(self, name: str, value: Any) -> None:
        """Never called: nothing lies on a device."""
        raise AssertionError(name)

    def run(self, index: int) -> None:
        """Compute from state buffer `index` into the other one."""
        try:
            self._run(self._raw[index], self._run_options[index])
        except Exception as error:
            if not is_of_engine(error):
                raise
            raise self._failed(error) from error
        if self._loose:
            results = self._bindings[index].get_outputs()
            for place, name in self._loose:
                # A copy: the array looks into memory that goes with `results`.
                self.outputs[name] = results[place].numpy().copy()

    def _failed(self, error: Exception) -> ModelError:
        """Return the error for a step that was not computed; integers that nothing bounds are suspected."""
        suspects = []
        for spec in self._contract.inputs:
            values = self.inputs[spec.name]
            bounded = bounds_of(self._contract, spec) is not None
            if values.dtype.kind in "iu" and not bounded and spec.name not in self.on_device:
                suspects.append(f"{spec.name!r}, which holds {values.min()}..{values.max()}")
        look = "check that the contract fits the graph, or export the model again"
        if suspects:
            look = f"see whether the model takes the integers in {', '.join(suspects)}; else {look}"
        return ModelError(
            "engine-failed",
            expected="ONNX Runtime to compute the step",
            found=first_line(error),
            fix=f"the states are unchanged; {look}",
        )


class OrtDeviceCall(OrtCall):
    """Fixed shapes bound on a GPU; states stay there.

    With `cuda_graph`, the kernels of a step are recorded once for each direction in which the states swap,
    and replayed with one launch from then on. ONNX Runtime replays for one thread at a time.
    """

    def __init__(
        self,
        engine: Binder,
        buffers: tuple[dict[str, tuple[Any, Array]], ...],
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape | None],
    ) -> None:
        super().__init__(engine, buffers, inputs, outputs)
        self._runtime, self._turns, self._staging = engine.runtime, engine.turns, engine.staging
        if engine.options.cuda_graph:
            if self._loose:
                raise no_cuda_graph(f"an output {self._loose[0][1]!r} whose shape is known only after a run")
            self._run_options = (self._numbered(), self._numbered())

    def _numbered(self) -> Any:
        options = self._runtime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(next(_NUMBERS)))
        return options

    def take(self, name: str, value: Any) -> None:
        """Copy an input from where it lies on the device, in the device's own memory."""
        assert self.device is not None
        values = self._runtime.OrtValue
        try:
            # The copy is on CUDA's default stream, which DLPack calls 1: what makes `value` comes before it.
            source = values.from_dlpack(value.__dlpack__(stream=1 if self.device[0] == _CUDA else None))
        except (RuntimeError, BufferError) as error:
            raise InputError(
                "not-contiguous",
                expected=f"{name!r} as a contiguous tensor",
                found=first_line(error),
                fix="make it contiguous, or give a host array",
            ) from error
        self._input_pairs[name][0].update_inplace(source)

    def run(self, index: int) -> None:
        """Compute from state buffer `index` into the other one; both stay on the device."""
        for name, (value, array) in self._input_pairs.items():
            if name not in self.on_device:
                value.update_inplace(array)
        with self._turns:
            super().run(index)
        for value, array in self._output_pairs.values():
            self._staging.fetch(value, array)


def no_cuda_graph(found: str) -> ModelError:
    """Return the error for a model whose steps cannot be recorded as CUDA graphs."""
    return ModelError(
        "no-cuda-graph",
        expected="a model whose kernels can be recorded as a CUDA graph",
        found=found,
        fix="load it without the option cuda_graph",
    )
