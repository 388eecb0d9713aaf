"""`rnnx parity` and `rnnx trace` where nothing can be compared: exit code 2, and what stands in the way."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import Result

import rnnx
from rnnx.cli.source import open_network
from rnnx.errors import InputError, UsageError
from rnnx.testing import assert_parity

Command = Callable[..., Result]

NETWORKS = """
import torch
from torch import nn

class Tags(nn.Module):
    def __init__(self, width=6, rows=20):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(rows, 4)
        self.gru = nn.GRU(4, width, batch_first=True)

    def forward(self, ids):
        return self.gru(self.table(ids))[0]

class Distances(Tags):  # of which nothing says how large they may be
    def forward(self, ids):
        return super().forward(ids.abs())

class Wide(Tags):
    def forward(self, ids):
        y = super().forward(ids)
        return torch.cat([y, y], -1)

class Broken(Tags):
    def forward(self, ids):
        raise KeyError("weights")

class Whole(Distances):
    def forward(self, ids):
        return super().forward(ids).mean(1)
"""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A network file, and the models that were exported from it."""

    path: Path

    def model(self, name: str) -> Path:
        return self.path / f"{name}.onnx"

    def source(self, name: str) -> str:
        return f"{self.path / 'net.py'}:{name}"

    def ids(self, values: object) -> Path:
        np.save(self.path / "ids.npy", np.asarray(values, np.int64))
        return self.path / "ids.npy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made = Folder(tmp_path_factory.mktemp("usage"))
    (made.path / "net.py").write_text(NETWORKS)
    for name, bounds in (("Tags", " in 0..19"), ("Whole", ""), ("Distances", "")):
        network = open_network(made.source(name), inputs=[f"ids=int64[batch, time]{bounds}"])
        rnnx.export(network.module, made.model(name), **network.arguments)
    return made


def refusal(result: Result) -> str:
    """Return the one line of a command that could not be carried out."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["Distances", "Whole"])
def test_inputs_that_the_network_does_not_run_on_are_named(
    folder: Folder, command: Command, tmp_path: Path, name: str
) -> None:
    model, source = folder.model(name), folder.source(name)
    outside = folder.ids([[3, 19, 20, 1], [0, 1, 2, 3]])
    place = (
        "the inputs of step 2: ids int64[2] of 2..20"
        if name == "Distances"
        else "the inputs: ids int64[2, 4] of 0..20"
    )
    for line in (
        ("parity", model, "--against", source, "--input", outside),
        ("trace", source, "--model", model, "-o", tmp_path / "t.safetensors", "--input", outside),
    ):
        told = refusal(command(*line))
        assert f"rnnx: error[forward-failed]: expected {name}.forward (net.py:" in told
        assert f"to run on {place}; found IndexError: index out of range in self at net.py:" in told
        assert "ids have to lie in its tables" in told
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="index out of range"):
        assert_parity(model, open_network(source).module, inputs=np.load(outside))


def test_a_step_that_the_engine_refuses_names_the_integers(folder: Folder, command: Command) -> None:
    stream = rnnx.load(folder.model("Distances")).stream()
    with pytest.raises(rnnx.ModelError) as caught:
        stream.run(np.array([[4, 20, 7]]))
    assert caught.value.code == "engine-failed"
    assert "see whether the model takes the integers in 'ids', which holds 4..20; else" in caught.value.fix
    assert stream.position == 0
    stream.run(np.array([[4, 19, 7]]))
    assert stream.position == 3


@pytest.mark.parametrize(
    ("name", "flags", "told"),
    [
        (
            "Tags",
            ("--kwargs", "width=7"),
            r"state 'gru.h' as float32\[1, batch, 6\]; found .* float32\[1, batch, 7\]",
        ),
        ("Wide", (), r"output 'y' as float32\[batch, time, 6\]; found .* float32\[batch, time, 12\]"),
    ],
)
def test_a_network_of_another_size_is_told_by_its_sizes(
    folder: Folder, command: Command, tmp_path: Path, name: str, flags: tuple[str, ...], told: str
) -> None:
    model, source = folder.model("Tags"), folder.source(name)
    for line in (
        ("parity", model, "--against", source, *flags),
        ("trace", source, "--model", model, "-o", tmp_path / "t.safetensors", *flags),
    ):
        line_of_error = refusal(command(*line))
        assert "error[other-network]: expected a network of the model's size, with " in line_of_error
        assert re.search(told, line_of_error), line_of_error
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_does_not_run_at_all_is_no_disagreement(folder: Folder, command: Command) -> None:
    told = refusal(command("parity", folder.model("Tags"), "--against", folder.source("Broken")))
    assert "error[forward-failed]" in told
    assert "KeyError: 'weights' at net.py:" in told
    with pytest.raises(UsageError):
        assert_parity(folder.model("Tags"), torch.nn.Bilinear(2, 2, 2))
