"""Random networks are exported and give what they are by construction, or are refused; the check can fail."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import rnnx
from generator import axes, trial
from generator.axes import MEMORY, QUICK, Network, Part, draw, from_seed
from generator.cells import CELLS
from generator.chunk_cells import ALL_CELLS
from generator.compose import build, source
from generator.layout import entries
from generator.trial import MismatchError, Verdict, attempt
from rnnx.errors import RefusedError
from rnnx.model.contract import Contract
from rnnx.model.onnx_file import read_contract, read_model, write_contract

NETWORKS, GROUPS = 100, 10
REFUSED = 3  # of a group; docs/benchmarks/generator.md has the share of 2,000
FIRST_SEED = int(os.environ.get("RNNX_GENERATOR_SEED") or secrets.randbelow(2**40))

MIXED = Network(
    (Part("window", "argument", ("roll and write",)), Part("leak", "argument", ("replaced",))),
    container="dict",
)
LSTM = Network((Part("lstm", "argument", ("replaced", "copy_")),), container="tuple")


def told(network: Network, verdict: Verdict) -> str:
    """Return what one needs to see a failure again."""
    return f"{verdict.kind} {verdict.code}: {verdict.detail}\n{network}\n{source(network)}"


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_hundred_new_networks_are_equal_or_refused(group: int) -> None:
    first, count = FIRST_SEED + group * NETWORKS // GROUPS, NETWORKS // GROUPS
    drawn = {seed: from_seed(seed, QUICK) for seed in range(first, first + count)}
    ended = {seed: attempt(network) for seed, network in drawn.items()}
    again = f"\nsee them again: RNNX_GENERATOR_SEED={first}, group 0"
    bad = [seed for seed, verdict in ended.items() if verdict.kind in ("wrong", "exception")]
    assert not bad, "\n".join(f"seed {seed}: {told(drawn[seed], ended[seed])}" for seed in bad) + again
    refused = [seed for seed, verdict in ended.items() if verdict.kind == "refused"]
    listed = "\n".join(f"seed {seed}: {ended[seed].detail}" for seed in refused)
    assert len(refused) <= REFUSED, f"{len(refused)} refused\n{listed}{again}"


@st.composite
def networks(choose: st.DrawFn) -> Network:
    def one_of(options: Any) -> Any:
        return choose(st.sampled_from(options))

    return draw(one_of, choose(st.integers(0, 2**16)))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_what_fails_shrinks_to_a_small_network(network: Network) -> None:
    verdict = attempt(network)
    assert verdict.kind in ("equal", "refused"), told(network, verdict)


def test_networks_give_in_pytorch_what_they_are_by_construction() -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + 300):
        network = from_seed(seed)
        try:
            trial.check_itself(network, build(network), steps=20)
        except MismatchError as error:
            pytest.fail(f"seed {seed}: {error}\n{network}\n{source(network)}")


def test_every_kind_of_part_occurs() -> None:
    drawn = [from_seed(seed) for seed in range(2000)]
    parts = [part for network in drawn for part in network.parts]
    assert {part.cell for part in parts} == set(ALL_CELLS)
    assert {part.home for part in parts} == {*MEMORY, "argument", "local", "implied"}
    special = {way for cell in ALL_CELLS.values() for ways in cell.special.values() for way in ways}
    assert {way for part in parts for way in part.updates} == {"replaced", *axes.GENERIC, *special}
    for name, values in {
        "time": axes.TIMES,
        "container": axes.CONTAINERS,
        "keeper": (*axes.CONTAINERS[1:], "separate"),
        "store": axes.STORES,
        "result": axes.RESULTS,
        "none": axes.NONES,
        "start": axes.STARTS,
        "loop": axes.LOOPS,
        "batched": (True, False),
        "idle": (True, False),
        "time_first": (True, False),
    }.items():
        assert {getattr(network, name) for network in drawn} == set(values), name
    mixed = [n for n in drawn if len({axes.is_replaced(e.update) for e in entries(n, "argument")}) == 2]
    assert len(mixed) > 300, "networks of which some states are replaced and others written in place"


def changed(change: Callable[[Contract], Contract]) -> Callable[[Path], None]:
    """Return what puts another contract into a file."""

    def spoil(path: Path) -> None:
        contract = read_contract(read_model(path))
        path.write_bytes(write_contract(path.read_bytes(), change(contract)))

    return spoil


def swapped(contract: Contract) -> Contract:
    one, two = contract.states
    states = [replace(one, output=two.output), replace(two, output=one.output)]
    return replace(contract, states=states)


def started_elsewhere(contract: Contract) -> Contract:
    first, *others = contract.states
    return replace(contract, states=[replace(first, initial=1.0), *others])


def never_stepped(contract: Contract) -> Contract:
    return replace(contract, whole_only="a reason")


def edited(edit: Callable[[onnx.ModelProto, Contract], None]) -> Callable[[Path], None]:
    """Return what edits the graph of a file and leaves its contract."""

    def spoil(path: Path) -> None:
        contract = read_contract(read_model(path))
        model = onnx.load(path)
        edit(model, contract)
        path.write_bytes(write_contract(model.SerializeToString(), contract))

    return spoil


def update_dropped(model: onnx.ModelProto, contract: Contract) -> None:
    """Hand the last state back unchanged, as a file does whose exporter took its next value for an output."""
    state = contract.states[-1]
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == state.output:
                node.output[index] = "elsewhere"
        for index, name in enumerate(node.input):
            if name == state.output:
                node.input[index] = "elsewhere"
    model.graph.node.append(onnx.helper.make_node("Identity", [state.input], [state.output]))


def weights_scaled(model: onnx.ModelProto, contract: Contract) -> None:
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == "float32" and value.ndim >= 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array((value * 1.01).astype("float32"), tensor.name))


@pytest.mark.parametrize(
    ("network", "spoil", "said"),
    [
        pytest.param(LSTM, changed(swapped), "output 0", id="two states swapped"),
        pytest.param(MIXED, edited(update_dropped), "output 0", id="the update of one of two states dropped"),
        pytest.param(MIXED, changed(started_elsewhere), "output 0", id="another start"),
        pytest.param(LSTM, edited(weights_scaled), "output 0", id="weights off by a hundredth"),
    ],
)
def test_a_spoilt_file_is_wrong(network: Network, spoil: Callable[[Path], None], said: str) -> None:
    assert attempt(network) == Verdict("equal")
    verdict = attempt(network, change=spoil)
    assert verdict.kind == "wrong"
    assert said in verdict.detail


def test_a_file_that_cannot_be_stepped_counts_as_refused() -> None:
    verdict = attempt(LSTM, change=changed(never_stepped))
    assert (verdict.kind, verdict.code) == ("refused", "whole-only")


def test_a_refusal_and_a_bare_exception_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RefusedError("some-code", expected="this", found="that", fix="so")

    def crash(*_: Any, **__: Any) -> None:
        raise KeyError("part")

    monkeypatch.setattr(rnnx, "export", refuse)
    assert attempt(LSTM).code == "some-code"
    monkeypatch.setattr(rnnx, "export", crash)
    assert attempt(LSTM) == Verdict("exception", "KeyError", "'part'")


def test_a_recurrence_that_is_not_the_networks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    leak = CELLS["leak"]
    other = dataclasses.replace(leak, new={"level": "0.901 * {level} + {z}"})
    monkeypatch.setitem(ALL_CELLS, "leak", other)
    with pytest.raises(MismatchError, match="PyTorch"):
        attempt(MIXED)
