"""A session: a loaded model, immutable, shared between threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from rnnx.engines.protocol import Engine
from rnnx.engines.registry import open_engine
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.pool.pool import Pool
from rnnx.runtime.stream import Stream


class Session:
    """A loaded model. Made by `load`; immutable, so threads may share it.

    Attributes:
        contract: what the model takes, gives and carries.
        id: identity of the file as loaded, `sha256:...`; snapshots and traces are tied to it. It differs
            from `contract.id` if the file was changed since it was exported.
        provider: what computes: `cpu`, `cuda` or `native`; for `auto`, the one that was chosen.
        path: where the model was read from, None for bytes.
        engine: what computes a step.
    """

    def __init__(self, contract: Contract, engine: Engine, *, model_id: str, path: Path | None) -> None:
        self.contract = contract
        self.engine = engine
        self.id = model_id
        self.provider = engine.provider
        self.path = path

    def stream(
        self,
        *,
        batch: int = 1,
        dims: Mapping[str, int] | None = None,
        initial: Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> Stream:
        """Open a stream with states at their start.

        Args:
            batch: number of sequences that run side by side, one to a row.
            dims: sizes of free dimensions, `{"memory": 37}`; required for those that a state has, taken
                from each call's inputs for others.
            initial: other starts than the contract's, by state name, in the state's full shape (a single
                number fills it); `reset` goes back to these.
            check: whether input values are searched for NaN and infinity. Names, dtypes, shapes, ids,
                lengths and integers that have a range are checked in any case.

        Raises:
            InputError: `empty-batch`, `no-batch`, `unknown-dimension`, `missing-dimension`,
                `wrong-dimension`, `unknown-state`, `wrong-dtype`, `wrong-shape`, `non-finite` or
                `out-of-memory`.
            TypeError: `dims` or `initial` is no dict.
        """
        return Stream(self, batch=batch, dims=dims, initial=initial, check=check)

    def pool(
        self,
        *,
        capacity: int = 64,
        dims: Mapping[str, int] | None = None,
        initial: Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> Pool:
        """Make a pool: streams that open and close at any time, stepped together as one batch.

        Args:
            capacity: streams there is room for at first; it doubles when they are too few.
            dims: sizes of free dimensions, as for `stream`; the same in all streams.
            initial: other starts than the contract's, as for `stream` at batch 1.
            check: as for `stream`.

        Raises:
            StreamError: `whole-only`.
            InputError: `no-batch`, `shared-state`, `shared-output` or `wrong-capacity`; or as `stream`.
        """
        return Pool(self, capacity=capacity, dims=dims, initial=initial, check=check)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: what computes lies outside of Python."""
        raise TypeError(
            "expected a session to stay in its process; found a copy or a pickle of one; "
            "fix: share it between threads, or load the model again in the other process"
        )

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        name = self.contract.name or (self.path.name if self.path else "model")
        return f"<rnnx.Session {name!r} on {self.provider}>"


def load(
    source: str | os.PathLike[str] | bytes, provider: str = "cpu", *, options: Mapping[str, Any] | None = None
) -> Session:
    """Load an exported model.

    Args:
        source: path of the ONNX file, or its bytes. A model with weights beside it needs the path.
        provider: `cpu` (the default: it is there on every machine, and the fastest for single steps of
            small networks), `cuda`, `native`, or `auto`: cuda where it works, else cpu; the session's
            `provider` says which. A provider that does not work here is an error, never another one.
        options: settings of the engine; for ONNX Runtime those of `rnnx.engines.ort_options.Options`:
            threads, spinning, shared_threads, graph_optimization, arena, memory_pattern, device, tf32,
            cuda_graph, pinned (the last four for cuda alone); for `native` chunk, weights, instructions.

    Raises:
        FileError: `file-missing` or `cannot-read`.
        ModelError: `not-onnx`, `no-contract`, `contract-invalid`, `contract-newer`, `contract-requires`,
            `contract-graph`, `external-data-missing` or `engine-refused`.
        ProviderError: `provider-unknown`, `provider-unavailable`, `onnxruntime-missing`,
            `onnxruntime-conflict` or `no-pinned-memory`.
        UsageError: `unknown-option` or `wrong-option`.
        TypeError: `source` is neither path nor bytes, or `options` no dict.
    """
    model = read_model(source)
    contract = read_contract(model)
    engine = open_engine(model, contract, provider=provider, options=options)
    return Session(contract, engine, model_id=model.id, path=model.path)
