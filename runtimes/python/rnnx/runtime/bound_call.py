"""One shape of call, prepared: the engine's buffers seen in the shapes the caller uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnx.arguments import shown
from rnnx.engines.protocol import Call, Shape, StateBuffers
from rnnx.errors import InputError
from rnnx.model.contract import Contract, InputSpec, OutputSpec, default_array, resolve, step_shape
from rnnx.model.index_ranges import bounds_of
from rnnx.model.shapes import Array, chunk_shape
from rnnx.runtime import input_buffers
from rnnx.runtime.input_buffers import Feed


class Plan:
    """A step, or a chunk of one length, with everything allocated that it needs.

    Attributes:
        time: number of steps.
        key: the sizes it was made for; a call of other sizes needs another plan.
        gives: (output name, results in the caller's shape), rewritten by each call.
    """

    __slots__ = (
        "_call",
        "_contract",
        "_loose",
        "_on_device",
        "_only",
        "feeds",
        "gives",
        "key",
        "run",
        "time",
    )

    def __init__(
        self, contract: Contract, buffers: StateBuffers, dims: Mapping[str, int], *, whole: bool, check: bool
    ) -> None:
        self._contract = contract
        self.key = self.key_of(dims, whole=whole)
        self.time = dims["time"]
        takes = {spec.name: _graph_shape(spec, dims) for spec in contract.inputs}
        gives = {spec.name: _graph_shape(spec, dims) for spec in contract.outputs}
        self._call: Call = buffers.prepare(
            {name: shape for name, shape in takes.items() if shape is not None}, gives
        )
        self.run = self._call.run
        self._on_device = self._call.on_device
        self.feeds = tuple(self._feed(spec, dims, whole, check) for spec in contract.inputs)
        names = input_buffers.required(contract.inputs)
        self._only = next((feed for feed in self.feeds if names == [feed.name]), None)
        self._loose = [spec for spec in contract.outputs if gives[spec.name] is None]
        self.gives = [
            (spec.name, self._call.outputs[spec.name].reshape(_caller_shape(contract, spec, dims, whole)))
            for spec in contract.outputs
            if gives[spec.name] is not None
        ]

    @staticmethod
    def key_of(dims: Mapping[str, int], *, whole: bool) -> tuple[bool, tuple[tuple[str, int], ...]]:
        """Return what tells apart calls that need different buffers."""
        return whole, tuple(sorted(dims.items()))

    def _feed(self, spec: InputSpec, dims: Mapping[str, int], whole: bool, check: bool) -> Feed:
        shape = _caller_shape(self._contract, spec, dims, whole)
        target = self._call.inputs[spec.name].reshape(shape)
        default = None
        if spec.default is not None:
            default = default_array(spec, shape)
        elif spec.role == "length":
            default = np.full(shape, self.time, np.int64)
        bounds = bounds_of(self._contract, spec, time=self.time)
        values = input_buffers.value_check(spec, bounds)
        # Integers out of bounds make an engine read out of bounds: they are checked in any case.
        call = self._call if bounds is None and self._call.device is not None else None
        checked = values if check or bounds is not None else None
        return Feed(spec.name, target, default=default, check=checked, call=call)

    def begin(self) -> None:
        """Forget what was taken from a device for an earlier call. `fill` does this itself."""
        if self._on_device:
            self._on_device.clear()

    def fill(self, inputs: Any) -> bool:
        """Write all inputs to the engine's buffers. False if anything about them is not as it should be."""
        if self._on_device:
            self._on_device.clear()
        if type(inputs) is not dict:
            return self._only is not None and self._only.fill(inputs) and self._fill_defaults(self._only)
        left = len(inputs)
        for feed in self.feeds:
            value = inputs.get(feed.name)
            if value is None:
                if feed.default is None:
                    return False
                feed.target[...] = feed.default
            elif feed.fill(value):
                left -= 1
            else:
                return False
        return not left

    def _fill_defaults(self, bound: Feed) -> bool:
        for feed in self.feeds:
            if feed is not bound:
                feed.target[...] = feed.default
        return True

    def results(self) -> dict[str, Array]:
        """Return the outputs of the latest run as fresh arrays."""
        results = {}
        for name, view in self.gives:
            results[name] = view.copy()
        for spec in self._loose:
            results[spec.name] = self._trim(spec, self._call.outputs[spec.name])
        return results

    def results_into(self, out: dict[str, Array]) -> dict[str, Array]:
        """Write the outputs of the latest run into those arrays of `out` that are there; return `out`."""
        for name, view in self.gives:
            if name in out:
                out[name][...] = view
        return out

    def _trim(self, spec: OutputSpec, array: Array) -> Array:
        """Return an output whose shape was not known before the run, without its time axis for a step."""
        whole = self.key[0]
        if whole:
            return array
        drop = tuple(index for index, dimension in enumerate(spec.shape) if dimension == "time")
        return np.squeeze(array, drop)

    def check_out(self, out: Mapping[str, Array]) -> None:
        """Check arrays that are to receive results. Raises InputError `wrong-out`."""
        if not isinstance(out, dict):
            raise _wrong_out("out as a dict of arrays by output name", shown(out))
        left = len(out)
        for name, view in self.gives:
            array = out.get(name)
            if array is None:
                continue
            if type(array) is not np.ndarray or array.shape != view.shape or array.dtype != view.dtype:
                plain = type(array) is np.ndarray
                found = f"{array.dtype}{list(array.shape)}" if plain else shown(array)
                raise _wrong_out(f"out[{name!r}] as {view.dtype}{list(view.shape)}", found)
            if not array.flags.writeable:
                raise _wrong_out(f"a writeable array in out[{name!r}]", "a read-only one")
            left -= 1
        if left:
            known = [name for name, _ in self.gives]
            strange = [name for name in out if name not in known or out[name] is None]
            raise _wrong_out(f"out to name outputs out of {', '.join(known)}", ", ".join(map(repr, strange)))


def _wrong_out(expected: str, found: str) -> InputError:
    return InputError("wrong-out", expected=expected, found=found, fix="make it with numpy.empty")


def _graph_shape(spec: InputSpec | OutputSpec, dims: Mapping[str, int]) -> Shape | None:
    """Return the shape in the graph, or None if it has a dimension known only after a run."""
    try:
        return resolve(spec.shape, dims)
    except KeyError:
        return None


def _caller_shape(
    contract: Contract, spec: InputSpec | OutputSpec, dims: Mapping[str, int], whole: bool
) -> Shape:
    return resolve(chunk_shape(contract, spec) if whole else step_shape(spec), dims)
