"""Drift is measured against the float64 reference, chaos is told from a fault, and memory is bounded."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import rnnx
from cases import onnx_models
from rnnx.errors import UsageError
from rnnx.parity.compare import compare_runtimes, compare_steps
from rnnx.parity.drift import Curve, Track
from rnnx.parity.lazy_inputs import BLOCK, drawn_inputs, loops
from rnnx.parity.random_inputs import random_inputs

Array = np.ndarray[Any, Any]


class Chaos:
    """x' = 3.9 x (1 - x) + u, in one dtype, with a perturbation in the first step: rounding, or a fault."""

    resumes = True

    def __init__(
        self, dtype: type[Any], perturb: float = 0.0, rate: float = 3.9, always: float = 0.0
    ) -> None:
        self.name = f"logistic map in {np.dtype(dtype).name}"
        self._dtype, self._perturb, self._rate, self._always = dtype, perturb, rate, always

    def later(self) -> Chaos:
        """Return the same system after its first step."""
        return Chaos(self._dtype, self._always, self._rate)

    def rough(self, seed: int) -> Chaos:
        """Return the same system in float32."""
        return Chaos(np.float32, self._perturb, self._rate, self._always)

    def start(self, sizes: Mapping[str, int]) -> dict[str, Array]:
        return {"h": np.full((1, sizes["batch"], 5), 0.3, np.float32)}

    def steps(self, inputs: Any, states: Any) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        state = states["h"].astype(self._dtype)
        rate, one = self._dtype(self._rate), self._dtype(1)
        for step in range(len(inputs["x"])):
            state = rate * state * (one - state) + self._dtype(self._perturb if not step else self._always)
            yield {"y": state[0].astype(np.float32)}, {"h": state.astype(np.float32)}


class Fake:
    """A session whose streams run a `Chaos`; everything else is the GRU's."""

    def __init__(self, system: Chaos) -> None:
        real = rnnx.load(onnx_models.gru())
        self.contract, self.id, self.provider, self.path = real.contract, real.id, "cpu", None
        self._system = system

    def stream(self, *, batch: int = 1, **others: Any) -> FakeStream:
        return FakeStream(self._system, batch)


class FakeStream:
    def __init__(self, system: Chaos, batch: int) -> None:
        self._system = system
        self.state: dict[str, Array] = system.start({"batch": batch})
        self._fresh = True

    def step(self, inputs: dict[str, Array]) -> dict[str, Array]:
        system = self._system if self._fresh else self._system.later()
        self._fresh = False
        outputs, self.state = next(iter(system.steps({"x": [0]}, self.state)))
        return outputs

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        rows = [self.step(inputs)["y"] for _ in range(inputs["x"].shape[1])]
        return {"y": np.stack(rows, 1)}

    def close(self) -> None:
        pass


def compare(perturbation: float, *, always: float = 0.0, steps: int = 120, reference64: bool = True) -> Any:
    session = Fake(Chaos(np.float32, perturbation, always=always))
    inputs = {"x": np.zeros((steps, 2, 2), np.float32)}
    return compare_runtimes(
        [session],  # type: ignore[list-item]
        Chaos(np.float32),
        inputs=inputs,
        sizes={"batch": 2},
        reference64=Chaos(np.float64) if reference64 else None,
    )[0]


def test_a_chaotic_network_agrees_until_pytorch_itself_is_lost() -> None:
    result = compare(1e-7)
    assert result.agrees, result.failure
    drift = result.drift["state.h"]
    assert drift.left is not None
    assert drift.reference_left is not None
    assert 5 < drift.left <= drift.reference_left < 60
    assert drift.ratio is not None
    assert drift.ratio < 30
    # The Lyapunov exponent of the map at 3.9 is 0.5 a step.
    assert 0.25 < drift.growth_per_step < 0.9
    # Without a float64 reference: the same run is a failure.
    assert not compare(1e-7, reference64=False).agrees


def test_a_lucky_run_of_pytorch_is_no_measure_of_chaos() -> None:
    """PyTorch happens to compute the float64 values exactly; a runtime one rounding away is right too."""
    exact, rounded = Chaos(np.float32), Chaos(np.float32, 1e-7)

    def against_itself(runtime: Chaos) -> Any:
        return compare_runtimes(
            [Fake(runtime)],  # type: ignore[list-item]
            exact,
            inputs={"x": np.zeros((60, 2, 2), np.float32)},
            sizes={"batch": 2},
            reference64=exact,
        )[0]

    result = against_itself(rounded)
    assert result.agrees, result.failure
    # Perturbations have the size of a rounding: a fault of a hundred, still within a step's bound, shows.
    fault = against_itself(Chaos(np.float32, 1.5e-5)).failure
    assert fault is not None
    assert fault.way == "free"


def test_a_fault_in_a_chaotic_network_is_caught_by_single_steps() -> None:
    result = compare(0.0, always=1e-4)
    assert result.failure is not None
    assert result.failure.way == "fed"


class Constant(Chaos):
    """Gives 0.5, and from one step on a little more, whatever its states are."""

    def __init__(self, since: int, more: float) -> None:
        super().__init__(np.float32)
        self.name, self._since, self._more = "constant", since, more

    def rough(self, seed: int) -> Constant:
        return Constant(99, 0)

    def steps(self, inputs: Any, states: Any) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        for step in range(len(inputs["x"])):
            value = np.full((2, 5), 0.5 + (self._more if step >= self._since else 0), np.float32)
            yield {"y": value}, {"h": value[None]}


@pytest.mark.parametrize(("since", "agrees"), [(8, False), (12, True)])
def test_nothing_is_compared_past_the_step_at_which_pytorch_is_lost(since: int, agrees: bool) -> None:
    """PyTorch leaves the tolerance at step 10: a runtime that is 160 times as far may be so from then on."""

    class Runs(FakeStream):
        def __init__(self) -> None:
            super().__init__(Constant(since, 0.1), 2)
            self._rows = self._system.steps({"x": range(20)}, {})

        def step(self, inputs: dict[str, Array]) -> dict[str, Array]:
            outputs, self.state = next(self._rows)
            return outputs

    session = Fake(Constant(since, 0.1))
    reference64, opened = Constant(10, 6e-4), itertools.cycle((True, False, False))

    class TeacherForced(FakeStream):
        def step(self, inputs: dict[str, Array]) -> dict[str, Array]:
            outputs, self.state = next(iter(Constant(99, 0).steps({"x": [0]}, {})))
            return outputs

    session.stream = lambda **others: TeacherForced(Constant(99, 0), 2) if next(opened) else Runs()  # type: ignore[method-assign]
    result = compare_runtimes(
        [session],  # type: ignore[list-item]
        Constant(99, 0),
        inputs={"x": np.zeros((20, 2, 2), np.float32)},
        sizes={"batch": 2},
        initial={"h": np.full((1, 2, 5), 0.5, np.float32)},
        reference64=reference64,
    )[0]
    assert result.agrees is agrees, result.failure


def test_free_running_states_of_a_network_that_is_not_chaotic_are_held_to_the_tolerance() -> None:
    """What PyTorch's own drift excuses is measured by it, and here it has none."""
    calm = Chaos(np.float32, rate=2.5)

    class Forgetful(FakeStream):
        def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
            results = super().run(inputs)
            self.state["h"] = self.state["h"] + np.float32(1e-2)
            return results

    session = Fake(calm)
    session.stream = lambda **others: Forgetful(calm, 2)  # type: ignore[method-assign]
    result = compare_runtimes(
        [session],  # type: ignore[list-item]
        calm,
        inputs={"x": np.zeros((40, 2, 2), np.float32)},
        sizes={"batch": 2},
        reference64=Chaos(np.float64, rate=2.5),
    )[0]
    assert result.failure is not None
    assert result.failure.way == "chunks"


def test_a_track_says_when_an_error_leaves_the_tolerance() -> None:
    own, bad = Track({"y": 1e-4}), Track({"y": 1e-4})
    for step in range(100):
        own.add(step, "y", 1e-7)
        bad.add(step, "y", 1e-3 if step > 40 else 1e-7)
    found = bad.against(own, {})["y"]
    assert (found.left, found.reference_left, found.ratio, found.ratios) == (41, None, None, [])


def test_a_curve_keeps_the_largest_errors_in_bounded_memory() -> None:
    curve = Curve()
    for step in range(100_000):
        curve.add(step, 1.0 if step == 77_777 else 1e-6)
    points = curve.points()
    assert len(points) <= 256
    (peak,) = [step for step, error in points if error == 1.0]
    assert peak <= 77_777 < peak + curve.width
    assert curve.maximum == 1.0


def test_growth_is_that_of_the_error() -> None:
    curve = Curve()
    for step in range(400):
        curve.add(step, min(1e-7 * math.exp(0.05 * step), 0.5))
    assert curve.growth() == pytest.approx(0.05, rel=0.1)
    flat = Curve()
    random = np.random.default_rng(0)
    for step in range(400):
        flat.add(step, 1e-7 * random.uniform(0.5, 2))
    assert flat.growth() == 0
    assert Curve().growth() == 0


def test_drawn_inputs_are_the_same_however_they_are_read() -> None:
    contract = rnnx.load(onnx_models.lstm()).contract
    sizes, steps = {"batch": 2}, 3 * BLOCK + 5
    rows = drawn_inputs(contract, steps=steps, sizes=sizes, seed=7)["x"]
    whole = np.asarray(rows)
    assert whole.shape == (steps, 2, 3)
    assert len(rows) == steps
    for step in (0, BLOCK - 1, BLOCK, steps - 1, 3):
        assert (rows[step] == whole[step]).all()
    assert (rows[BLOCK - 2 : BLOCK + 2] == whole[BLOCK - 2 : BLOCK + 2]).all()
    assert np.unique(whole).size > 0.99 * whole.size  # no block repeats another
    with pytest.raises(IndexError):
        rows[steps]
    other = np.asarray(drawn_inputs(contract, steps=steps, sizes=sizes, seed=8)["x"])
    assert not np.isin(other, whole).any()


def test_extremes_are_what_they_say() -> None:
    contract = rnnx.load(onnx_models.lstm()).contract

    def values(kind: Any) -> Array:
        return np.asarray(drawn_inputs(contract, steps=9, sizes={"batch": 2}, kind=kind)["x"])

    assert not values("zeros").any()
    assert np.abs(values("large")).max() > 1000
    tiny = np.abs(values("denormal"))
    assert tiny.any()
    assert tiny.max() < np.finfo(np.float32).smallest_normal
    assert values("denormal").dtype == np.float32


def test_memory_does_not_grow_with_the_steps() -> None:
    session = rnnx.load(onnx_models.lstm(width=64, features=500))

    class Itself:
        name = "itself"
        resumes = True

        def start(self, sizes: Any) -> Any:
            return dict(session.stream(batch=2).state)

        def steps(self, inputs: Any, states: Any) -> Any:
            stream = session.stream(batch=2, initial=states)
            for step in range(len(inputs["x"])):
                yield stream.step(inputs["x"][step]), dict(stream.state)

    def peak(steps: int) -> int:
        inputs = drawn_inputs(session.contract, steps=steps, sizes={"batch": 2})
        tracemalloc.start()
        result = compare_steps(session, Itself(), inputs=inputs, sizes={"batch": 2})
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result.agrees
        assert result.steps == steps
        return found

    short, long = peak(5 * BLOCK), peak(15 * BLOCK)
    # Ten more blocks of inputs alone would be ten megabytes.
    assert long < short + 1_500_000


def test_an_output_is_fed_back_only_where_it_fits() -> None:
    assert loops(rnnx.load(onnx_models.lstm(width=3, features=3)).contract) == {"x": "y"}
    with pytest.raises(UsageError, match="an output with the dtype and shape of an input"):
        loops(rnnx.load(onnx_models.lstm()).contract)
    session = rnnx.load(onnx_models.lstm(width=3, features=3))
    seen: list[Array] = []

    class Watched:
        name = "watched"
        resumes = True

        def start(self, sizes: Any) -> Any:
            return dict(session.stream(batch=2).state)

        def steps(self, inputs: Any, states: Any) -> Any:
            stream = session.stream(batch=2, initial=states)
            for step in range(len(inputs["x"])):
                seen.append(inputs["x"][step])
                outputs = stream.step(inputs["x"][step])
                seen.append(outputs["y"])
                yield outputs, dict(stream.state)

    inputs = random_inputs(session.contract, steps=6, sizes={"batch": 2})
    result = compare_runtimes([session], Watched(), inputs=inputs, sizes={"batch": 2}, loops={"x": "y"})[0]
    assert result.agrees
    for output, fed_back in zip(seen[1:-1:2], seen[2::2], strict=True):
        assert (output == fed_back).all()


def test_an_interrupt_leaves_a_verdict_on_what_was_done() -> None:
    """Wherever it comes, what agreed until then agrees, in chunks too."""
    calm = Chaos(np.float32, rate=2.5)

    class Interrupted(Chaos):
        def steps(self, inputs: Any, states: Any) -> Iterator[Any]:
            for step, found in enumerate(super().steps(inputs, states)):
                if step == 17:
                    raise KeyboardInterrupt
                yield found

    for reference, reference64 in (
        (calm, Interrupted(np.float64, rate=2.5)),
        (Interrupted(np.float32, rate=2.5), Chaos(np.float64, rate=2.5)),
    ):
        result = compare_runtimes(
            [Fake(calm)],  # type: ignore[list-item]
            reference,
            inputs={"x": np.zeros((60, 2, 2), np.float32)},
            sizes={"batch": 2},
            reference64=reference64,
        )[0]
        assert result.interrupted
        assert result.agrees, result.failure
        assert result.steps == 17
