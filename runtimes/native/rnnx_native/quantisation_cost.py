"""What weights of fewer bits cost: a model beside itself with its float32 weights, states free."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from rnnx.errors import UsageError
from rnnx.model.shapes import Array
from rnnx.parity.lockstep import step_inputs
from rnnx.parity.random_inputs import random_inputs
from rnnx.session import Session, load
from rnnx.tolerance import Bound, level_of, relative_error

STEPS = 500
# The level of the tolerance table that weights of a kind are held to.
_LEVELS = {"f16": ("float16", None), "int8": ("float32", "int8")}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What was measured.

    Attributes:
        weights: `f16` or `int8`.
        steps: that ran free, from the start.
        errors: largest by tensor, relative to 1 + |value|: `output.y`, `state.lstm.h`.
        nats: for a model over symbols, what a symbol of the model's own text costs more: the mean of
            KL(float32 || fewer bits) over the steps; else None.
        allowed: the bound on errors for this kind of weights.
    """

    weights: str
    steps: int
    errors: Mapping[str, float]
    nats: float | None
    allowed: float

    @property
    def largest(self) -> float:
        """The largest error."""
        return max(self.errors.values(), default=0.0)

    @property
    def is_allowed(self) -> bool:
        """Whether it is within the tolerance table."""
        return self.largest <= self.allowed

    def __str__(self) -> str:
        """Return it in one line."""
        worst = max(self.errors, key=lambda name: self.errors[name], default="nothing")
        nats = "" if self.nats is None else f", {self.nats:.2g} nats a symbol"
        return (
            f"{self.weights} weights: largest error {self.largest:.2g} in {worst} over {self.steps} steps "
            f"(the tolerance table allows {self.allowed:g}){nats}"
        )


def measure_cost(
    path: str | os.PathLike[str], weights: str, *, dims: Mapping[str, int] | None = None, steps: int = STEPS
) -> Cost:
    """Run a model with and without its full weights on the same random inputs, one stream, states free.

    A model over symbols reads text that it draws itself.

    Args:
        path: of the ONNX file.
        weights: `f16` or `int8`.
        dims: sizes of free dimensions.
        steps: to run.

    Raises:
        ModelError, ProviderError: as `rnnx.load(path, "native")`.
    """
    exact = load(path, "native")
    rough = load(path, "native", options={"weights": weights})
    found = _run(exact, rough, dict(dims or {}), steps)
    return Cost(weights, steps, *found, allowed(weights).relative)


def allowed(weights: str) -> Bound:
    """Return what the tolerance table allows a network with weights of fewer bits."""
    dtype, quantisation = _LEVELS[weights]
    return level_of(dtype, "native", quantisation).drift


def _run(
    exact: Session, rough: Session, dims: dict[str, int], steps: int
) -> tuple[dict[str, float], float | None]:
    contract, random = exact.contract, np.random.default_rng(0)
    inputs = random_inputs(contract, steps=steps, sizes={**dims, "batch": 1}, seed=0)
    one, other = exact.stream(dims=dims), rough.stream(dims=dims)
    vocabulary = contract.vocabulary
    errors: dict[str, float] = {}
    nats, token = 0.0, None
    for step in range(steps):
        row = step_inputs(contract, inputs, step)
        if vocabulary is not None and token is not None:
            row[vocabulary.input] = np.full_like(row[vocabulary.input], token)
        expected, got = one.step(row), other.step(row)
        pairs = {f"output.{name}": (value, got[name]) for name, value in expected.items()}
        pairs |= {f"state.{name}": (value, other.state[name]) for name, value in one.state.items()}
        for name, pair in pairs.items():
            errors[name] = max(errors.get(name, 0.0), float(relative_error(*pair)))
        if vocabulary is not None:
            p, q = (_log_softmax(result[vocabulary.output].reshape(-1)) for result in (expected, got))
            nats += float((np.exp(p) * (p - q)).sum()) / steps
            token = int(random.choice(p.size, p=np.exp(p) / np.exp(p).sum()))
    return errors, None if vocabulary is None else nats


def _log_softmax(scores: Array) -> Array:
    wide = scores.astype(np.float64)
    wide -= wide.max()
    return np.asarray(wide - np.log(np.exp(wide).sum()))


def require_allowed(cost: Cost) -> None:
    """Refuse a cost beyond the tolerance table. Raises UsageError `not-accepted`."""
    if not cost.is_allowed:
        raise UsageError(
            "not-accepted",
            expected=f"weights that cost at most {cost.allowed:g}",
            found=str(cost),
            fix="use float32 weights, or say --accept",
        )
