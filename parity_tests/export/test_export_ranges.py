"""Which range an input gets: the one its spec says, else the rows of the tables that it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

import rnnx
from rnnx.engines.registry import availability
from rnnx.errors import InputError, UsageError
from rnnx.formats.safetensors_file import decode_tensors
from rnnx.model.contract import InputSpec, input_text
from rnnx.testing import assert_parity
from rnnx_export.graph.index_ranges import rows_named
from rnnx_export.module.spec import parse

STEP: dict[str, Any] = {"inputs": {"ids": "int64[batch]"}, "state": {"h": "float32[batch, 4]"}}
CHUNK: dict[str, Any] = {"inputs": {"ids": "int64[batch, time]"}}


class Sequence(nn.Module):
    """A GRU behind a way of looking ids up in a table of 37 rows, or one of 7."""

    def __init__(self, look_up: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look_up, self.rnn = look_up, nn.GRU(5, 4, batch_first=True)
        self.large, self.small = nn.Parameter(torch.randn(37, 5)), nn.Parameter(torch.randn(7, 5))

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.rnn(self.look_up(ids, self.large, self.small))[0]
        return y


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell = nn.Embedding(11, 5), nn.GRUCell(5, 4)

    def forward(self, ids: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(self.table(ids), h)
        return h.tanh(), h


class Loop(Cell):
    """A Python loop over time, which is exported as a Scan."""

    def forward(self, ids: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        rows = []
        for step in range(ids.shape[1]):
            h = self.cell(self.look_up(ids[:, step]), h)
            rows.append(h)
        return torch.stack(rows, 1), h

    def look_up(self, ids: Tensor) -> Tensor:
        found: Tensor = self.table(ids)
        return found


class IndexedLoop(Loop):
    def look_up(self, ids: Tensor) -> Tensor:
        return self.table.weight[ids]


class Said(nn.Module):
    """Inputs of several kinds, none of which names a row."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, kind: Tensor, level: Tensor, flag: Tensor) -> Tensor:
        y: Tensor = self.rnn(x * level[:, None, None] + kind[..., None] * 0.1)[0]
        return torch.where(flag[:, None, None], y, -y)


def export(module: nn.Module, folder: Path, **arguments: Any) -> rnnx.Exported:
    torch.manual_seed(0)
    return rnnx.export(module.eval(), folder / "m.onnx", **arguments)


def recorded(made: Any, name: str) -> np.ndarray[Any, Any]:
    """Return an input of the trace that lies beside a model."""
    values: np.ndarray[Any, Any] = decode_tensors(made.trace.read_bytes(), what="a trace")[0][f"input.{name}"]
    return values


def range_of(made: Any, name: str = "ids") -> Any:
    return next(spec.range for spec in made.contract.inputs if spec.name == name)


FOUND: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[int, int]]] = {
    "embedding": (lambda: Sequence(lambda ids, a, b: F.embedding(ids, a)), CHUNK, (0, 36)),
    "the smaller of two": (
        lambda: Sequence(lambda ids, a, b: F.embedding(ids, a) + F.embedding(ids, b)),
        CHUNK,
        (0, 6),
    ),
    "indexed": (lambda: Sequence(lambda ids, a, b: a[ids]), CHUNK, (-37, 36)),
    "both": (lambda: Sequence(lambda ids, a, b: a[ids] + F.embedding(ids, b)), CHUNK, (0, 6)),
    "turned": (lambda: Sequence(lambda ids, a, b: F.embedding(ids.T, a).transpose(0, 1)), CHUNK, (0, 36)),
    "int32": (Loop, {**STEP, "inputs": {"ids": "int32[batch, time]"}}, (0, 10)),
    "one step": (Cell, STEP, (0, 10)),
    "given a time axis": (Cell, {**STEP, "time": True}, (0, 10)),
    "in a loop": (Loop, {**STEP, **CHUNK}, (0, 10)),
    "indexed in a loop": (IndexedLoop, {**STEP, **CHUNK}, (-11, 10)),
    "an example": (
        lambda: Sequence(lambda ids, a, b: F.embedding(ids, a)),
        {"inputs": {"ids": torch.tensor([[3, 5, 4]])}},
        (0, 36),
    ),
    "parts that name rows of tables alike": (
        lambda: Sequence(lambda ids, a, b: F.embedding(ids[..., 0], a) * F.embedding(ids[..., 1], a)),
        {"inputs": {"ids": "int64[batch, time, 2]"}},
        (0, 36),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_rows_of_a_table_are_found_and_the_proof_draws_from_all_of_them(
    name: str, tmp_path: Path
) -> None:
    make, arguments, wanted = FOUND[name]
    made = export(make(), tmp_path, **arguments)
    assert range_of(made) == wanted
    drawn = recorded(made, "ids")
    assert wanted[0] <= drawn.min() < drawn.max() <= wanted[1]
    assert len(np.unique(drawn)) > min(5, wanted[1] - wanted[0])
    assert (drawn.min() < 0) == (wanted[0] < 0)
    stream = rnnx.load(made.path).stream(batch=drawn.shape[1])
    inside = np.full_like(drawn[0], wanted[0])
    stream.step({"ids": inside})
    with pytest.raises(
        InputError, match=rf"values in {wanted[0]}\.\.{wanted[1]} in 'ids'; found {wanted[0] - 1} "
    ):
        stream.step({"ids": inside - 1})
    with pytest.raises(InputError, match=f"found {wanted[1] + 1} "):
        stream.step({"ids": np.full_like(inside, wanted[1] + 1)})


NOT_FOUND: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], str]] = {
    "held within bounds": (lambda ids, a, b: F.embedding(ids.clamp(0, 36), a), "int64[batch, time]"),
    "computed with": (lambda ids, a, b: F.embedding(ids * 2, a), "int64[batch, time]"),
    "parts of tables that differ": (
        lambda ids, a, b: F.embedding(ids[..., 0], a) * F.embedding(ids[..., 1], b),
        "int64[batch, time, 2]",
    ),
    "a part beside a number": (
        lambda ids, a, b: F.embedding(ids[..., 0], a) * ids[..., 1:].float(),
        "int64[batch, time, 2]",
    ),
    "all beside a part of a smaller table": (
        lambda ids, a, b: F.embedding(ids, a).sum(-2) * F.embedding(ids[..., 1], b),
        "int64[batch, time, 2]",
    ),
    "no id at all": (lambda ids, a, b: ids[..., None] * a[0], "int64[batch, time]"),
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_no_range_is_made_up(name: str, tmp_path: Path) -> None:
    look_up, spec = NOT_FOUND[name]
    made = export(Sequence(look_up), tmp_path, inputs={"ids": spec})
    assert range_of(made) is None
    assert set(np.unique(recorded(made, "ids"))) <= {0, 1}


def test_a_range_in_numbers_is_kept_and_no_other(tmp_path: Path) -> None:
    specs = {
        "x": "float32[batch, time, 3] in -0.5..2",
        "kind": "int64[batch, time] in -3..95",
        "level": "float32[batch]",
        "flag": "bool[batch] in 0..1",
    }
    made = export(Said(), tmp_path, inputs=specs)
    assert [spec.range for spec in made.contract.inputs] == [(-0.5, 2), (-3, 95), None, None]
    x, kind = recorded(made, "x"), recorded(made, "kind")
    assert -0.5 <= x.min() < x.max() <= 2
    assert -3 <= kind.min() < 0 < 10 < kind.max() <= 95


def test_the_values_of_an_example_are_no_range(tmp_path: Path) -> None:
    specs = {
        "x": torch.rand(1, 4, 3),
        "kind": torch.tensor([[3, 4, 5, 6]]),
        "level": torch.rand(1),
        "flag": torch.tensor([True]),
    }
    made = export(Said(), tmp_path, inputs=specs)
    assert [spec.range for spec in made.contract.inputs] == [None] * 4


def test_lengths_have_no_range(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            steps = torch.arange(x.shape[1])
            return x.cumsum(1) * (steps < lengths[:, None])[..., None]

    specs = {"x": "float32[batch, time, 3]", "lengths": "int64[batch] in 1..time"}
    made = export(Masked(), tmp_path, inputs=specs)
    assert [(spec.role, spec.range) for spec in made.contract.inputs] == [(None, None), ("length", None)]


def test_the_vocabulary_stands_for_the_range_of_its_ids(tmp_path: Path) -> None:
    class Letters(Sequence):
        def __init__(self) -> None:
            super().__init__(lambda ids, a, b: F.embedding(ids, a))
            self.out = nn.Linear(4, 37)

        def forward(self, ids: Tensor) -> Tensor:
            scores: Tensor = self.out(super().forward(ids))
            return scores

    letters = [chr(ord("A") + place) for place in range(37)]
    for spec in ("int64[batch, time]", "int64[batch, time] in 0..36"):
        made = export(Letters(), tmp_path, inputs={"ids": spec}, vocabulary=letters)
        assert range_of(made) is None
        assert recorded(made, "ids").max() > 20
        with pytest.raises(InputError, match=r"ids in 0\.\.36"):
            rnnx.load(made.path).stream().step({"ids": [37]})


def test_a_range_with_negatives_is_kept_and_they_count_from_the_end_everywhere(tmp_path: Path) -> None:
    module = Sequence(lambda ids, a, b: a[ids])
    made = export(module, tmp_path, inputs={"ids": "int64[batch, time] in -3..2"})
    assert range_of(made) == (-3, 2)
    for provider in ("cpu", *(["native"] if availability()["native"] is None else [])):
        assert_parity(made.path, module, steps=40, provider=provider)
        stream = rnnx.load(made.path, provider).stream()
        y = stream.run([[-1, -3]])["y"]
        stream.reset()
        with torch.no_grad():
            np.testing.assert_allclose(y, module(torch.tensor([[36, 34]])), rtol=1e-5, atol=1e-5)


class Optional(nn.Module):
    def __init__(self, look_up: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.look_up, self.table = look_up, nn.Parameter(torch.randn(6, 3))
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, who: Any = -1) -> Tensor:
        y: Tensor = self.rnn(x + self.look_up(torch.as_tensor(who), self.table)[:, None])[0]
        return y


def test_an_optional_input_whose_default_is_no_row_gets_no_range(tmp_path: Path) -> None:
    specs = {"x": "float32[batch, time, 3]", "who": "int64[batch]"}
    indexed = export(Optional(lambda who, table: table[who]), tmp_path, inputs=specs)
    assert [(spec.default, spec.range) for spec in indexed.contract.inputs] == [(None, None), (-1, (-6, 5))]
    embedded = export(Optional(lambda who, table: F.embedding(who, table)), tmp_path, inputs=specs)
    assert [(spec.default, spec.range) for spec in embedded.contract.inputs] == [(None, None), (-1, None)]


def test_a_range_without_the_default_is_refused(tmp_path: Path) -> None:
    specs = {"x": "float32[batch, time, 3]", "who": "int64[batch] in 0..5"}
    with pytest.raises(
        UsageError, match=r"a range of 'who' with its default -1 in it; found int64\[batch\] in 0\.\.5"
    ):
        export(Optional(lambda who, table: table[who]), tmp_path, inputs=specs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spec",
    [
        "int64[batch, time] in 5..1",
        "int64[batch, time] in 0..1.5",
        "int64[batch, time] in 0..inf",
        "int64[batch, time] in nan..1",
        "int64[batch, time] in 0..9007199254740992",
        "uint8[batch, time] in -1..5",
        "int8[batch, time] in 0..128",
        "bool[batch, time] in 1..0",
        "float32[batch, time] in 1..0.5",
        "float32[batch, time] in 0..inf",
    ],
)
def test_a_range_that_its_dtype_cannot_have_is_refused(spec: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whose range is not the least and the largest of") as caught:
        export(Sequence(lambda ids, a, b: F.embedding(ids, a)), tmp_path, inputs={"ids": spec})
    assert caught.value.code == "bad-spec"


def test_ids_that_another_table_does_not_have_are_named(tmp_path: Path) -> None:
    """The graph does not tell that: the proof finds it out, and the user says which ids there are."""
    module = Sequence(lambda ids, a, b: F.embedding(ids, a) + F.embedding(ids // 2, b))
    with pytest.raises(InputError, match="ids have to lie in its tables") as caught:
        export(module, tmp_path, **CHUNK)
    assert caught.value.code == "forward-failed"
    made = export(module, tmp_path, inputs={"ids": "int64[batch, time] in 0..13"})
    assert range_of(made) == (0, 13)


def graph(nodes: list[Any], shape: list[Any]) -> ir.Value:
    """Return the input `ids` of a graph with a table of 9 rows, another input, and some constants."""
    constants = {
        "table": np.zeros((9, 2), np.float32),
        "wide": np.zeros((2, 4), np.float32),
        "flat": np.array([-1]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "first": np.array(0),
    }
    made = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, shape),
            helper.make_tensor_value_info("memory", TensorProto.FLOAT, [9, 2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return ir.from_proto(helper.make_model(made)).graph.inputs[0]


def test_ids_are_followed_through_what_hands_them_on() -> None:
    node = helper.make_node
    look_up = node("Gather", ["table", "a"], ["y"])
    along = [
        node("Cast", ["ids"], ["b"], to=TensorProto.INT32),
        node("Unsqueeze", ["b", "one"], ["c"]),
        node("Transpose", ["c"], ["d"]),
        node("Flatten", ["d"], ["e"]),
        node("Squeeze", ["e", "zero"], ["f"]),
        node("Reshape", ["f", "flat"], ["g"]),
        node("Identity", ["g"], ["a"]),
    ]
    assert rows_named(graph([*along, look_up], ["n"])) == (0, 8)
    assert rows_named(graph([node("Slice", ["ids", "zero", "one"], ["a"]), look_up], ["n"])) == (0, 8)
    assert rows_named(graph([node("Gather", ["ids", "first"], ["a"]), look_up], ["n"])) == (0, 8)
    assert rows_named(graph([node("Split", ["ids"], ["a", "b"], num_outputs=2), look_up], [2])) == (0, 8)
    assert rows_named(graph([node("Gather", ["wide", "ids"], ["y"], axis=1)], ["n"])) == (0, 3)
    assert rows_named(graph([node("Add", ["ids", "one"], ["a"]), look_up], ["n"])) is None
    # What is no constant is no table, and here the indices are pairs.
    assert rows_named(graph([node("Gather", ["memory", "ids"], ["y"])], ["n"])) is None
    assert rows_named(graph([node("GatherND", ["table", "ids"], ["y"])], ["n", 2])) is None


def test_what_was_exported_is_compared_again_from_the_same_range(tmp_path: Path) -> None:
    """The specs that a reference is made from come out of the contract, with the range in them."""
    module = Said()
    specs = {
        "x": "float32[batch, time, 3] in 5..6",
        "kind": "int64[batch, time] in 3..5",
        "level": "float32[batch] in 1..2",
        "flag": "bool[batch]",
    }
    seen: list[dict[str, Tensor]] = []

    class Watched(Said):
        def forward(self, x: Tensor, kind: Tensor, level: Tensor, flag: Tensor) -> Tensor:
            seen.append({"x": x, "kind": kind, "level": level})
            return super().forward(x, kind, level, flag)

    made = export(module, tmp_path, inputs=specs)
    assert [spec.range for spec in made.contract.inputs] == [(5, 6), (3, 5), (1, 2), None]
    watched = Watched()
    watched.load_state_dict(module.state_dict())
    assert_parity(made.path, watched, steps=30)
    assert len(seen) > 30
    spans: dict[str, tuple[float, float]] = {"x": (5, 6), "kind": (3, 5), "level": (1, 2)}
    for values in seen:
        for name, (least, largest) in spans.items():
            concrete = values[name]
            if type(concrete) is Tensor:
                assert least <= concrete.min() <= concrete.max() <= largest, name


def test_specs_of_the_contract_write_ranges_as_users_do() -> None:
    for text in ("int64[batch, time] in -3..95", "float32[batch] in 0.25..1", "uint8[]"):
        spec = parse(text, "x")
        entry = InputSpec(name="x", dtype=text.split("[")[0], shape=list(spec.shape), range=spec.range)  # type: ignore[arg-type]
        assert input_text(entry) == text == spec.text
