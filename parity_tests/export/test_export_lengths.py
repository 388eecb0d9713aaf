"""Lengths that a module wants sorted: drawn so, and told to those who draw others."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnx
from rnnx.errors import ModelError
from rnnx.model.contract import from_json, to_json
from rnnx.parity.lazy_inputs import drawn_inputs
from rnnx.testing import assert_parity
from rnnx_export.module.free_sizes import free_sizes
from rnnx_export.module.subject import Subject
from rnnx_export.states.discover import discover

INPUTS = {"x": "float32[batch, time, 6]", "lengths": "int64[batch] in 1..time"}


class Packed(nn.Module):
    """Packs without `enforce_sorted=False`, or looks at the order itself."""

    def __init__(self, *, looks: bool = False, sorts: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.looks, self.sorts = looks, sorts
        self.layer = nn.GRU(6, 8, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.looks and not torch.all(lengths[:-1] >= lengths[1:]):
            raise ValueError("sort your batch")
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=not self.sorts)
        return pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=x.shape[1])[0]


@pytest.mark.parametrize("looks", [False, True])
def test_lengths_are_drawn_in_the_order_that_forward_takes(looks: bool, tmp_path: Path) -> None:
    module = Packed(looks=looks).eval()
    made = rnnx.export(module, tmp_path / "m.onnx", inputs=INPUTS)
    lengths = next(spec for spec in made.contract.inputs if spec.role == "length")
    assert lengths.order == "descending"
    assert made.contract.longest is None
    assert any("longest first" in note for note in made.notes)
    assert_parity(made.path, module)
    drawn = drawn_inputs(made.contract, steps=50, sizes={"batch": 20}, seed=3)["lengths"]
    assert (np.diff(drawn) <= 0).all()
    assert len(set(drawn.tolist())) > 5
    x, counts = torch.randn(3, 9, 6), torch.tensor([9, 5, 2])
    got = rnnx.load(made.path).stream(batch=3).run({"x": x.numpy(), "lengths": counts.numpy()})["y"]
    expected = module(x, counts).detach().numpy()
    for row, count in enumerate(counts):
        np.testing.assert_allclose(got[row, :count], expected[row, :count], rtol=0, atol=1e-6)


def test_lengths_of_any_order_stay_so(tmp_path: Path) -> None:
    made = rnnx.export(Packed(sorts=True).eval(), tmp_path / "m.onnx", inputs=INPUTS)
    assert [spec.order for spec in made.contract.inputs] == [None, None]
    assert "order" not in to_json(made.contract)


def test_an_order_belongs_to_lengths(tmp_path: Path) -> None:
    contract = rnnx.export(Packed().eval(), tmp_path / "m.onnx", inputs=INPUTS).contract
    text = to_json(contract)
    assert from_json(text) == contract
    with pytest.raises(ModelError, match="is no length"):
        from_json(text.replace('"role":"length",', ""))


class Returned(nn.Module):
    """Gives the lengths back, and how many steps count in all."""

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        valid = torch.arange(x.shape[1]) < lengths[:, None]
        return torch.cumsum(x, 1) * valid[..., None], lengths, x.mean() + lengths


def test_lengths_that_come_back_are_no_output_of_a_step() -> None:
    """What also says of the values stays: whoever returns it means it."""
    plan = discover(Subject(Returned(), INPUTS))
    assert [output.path for output in plan.outputs] == [("0",), ("2",)]
    assert plan.whole_only is not None
    assert any("result.1 says how long the rows are" in note for note in plan.notes)


class AsWide(Packed):
    """Makes a mask that is as wide as the longest row is long, of rows in order or in any."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.looks and not torch.all(lengths[:-1] >= lengths[1:]):
            raise ValueError("sort your batch")
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        return self.layer(x * mask[..., None])[0]


@pytest.mark.parametrize("looks", [False, True])
def test_a_mask_as_wide_as_the_longest_row_is_as_wide_as_the_chunk(looks: bool, tmp_path: Path) -> None:
    module = AsWide(looks=looks).eval()
    made = rnnx.export(module, tmp_path / "m.onnx", inputs=INPUTS)
    assert [spec.order for spec in made.contract.inputs] == [None, "descending" if looks else None]
    assert any("as long as the chunk" in note for note in made.notes)
    assert_parity(made.path, module)
    session = rnnx.load(made.path)
    x = torch.randn(3, 12, 6)
    for steps in (12, 5):  # no size of the example's, and chunks in which no row is whole
        lengths = torch.tensor([steps, 4, 2])
        expected = module(x[:, :steps], lengths).detach().numpy()
        with session.stream(batch=3) as stream:
            given = {"x": x[:, :steps].numpy(), "lengths": lengths.numpy()}
            np.testing.assert_allclose(stream.run(given)["y"], expected, rtol=0, atol=1e-6)
    longer = {"x": x.numpy(), "lengths": np.array([5, 4, 2])}
    with session.stream(batch=3) as stream:
        np.testing.assert_allclose(stream.run(longer)["y"][:, :5], expected, rtol=0, atol=1e-6)


def test_int_and_len_keep_sizes_free_in_a_capture_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = AsWide()
    monkeypatch.setitem(sys.modules, f"{AsWide.__module__}.odd", type("Odd", (), {}))  # as packages may put
    space = vars(sys.modules[AsWide.__module__])
    with free_sizes(module):
        whole, count = space["int"], space["len"]
        assert whole is not builtins.int
        numbers = [whole(2.7), whole("7"), whole("ff", 16), whole(), whole(torch.tensor(3))]
        assert numbers == [2, 7, 255, 0, 3]
        assert {builtins.int: "found"}[whole] == "found"
        assert isinstance(3, whole)
        assert not isinstance(2.5, whole)
        assert [count(torch.zeros(3, 2)), count([1, 2]), count("abcd")] == [3, 2, 4]
    assert not {"int", "len"} & space.keys()
