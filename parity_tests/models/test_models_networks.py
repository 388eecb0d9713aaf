"""Character networks: shapes, state in and out, all combinations, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from rnnx.errors import UsageError
from rnnx_models.networks import (
    CELLS,
    CELLS_WITH_C,
    CELLS_WITH_NONLINEARITY,
    ENCODINGS,
    CharNetwork,
    NetworkConfig,
    Recurrent,
)

CONFIGS = [
    NetworkConfig(cell, 5, 7, layers, nonlinearity, encoding, 3, batch_first=batch_first)
    for cell, layers, encoding, batch_first in itertools.product(CELLS, (1, 2), ENCODINGS, (True, False))
    for nonlinearity in (("tanh", "relu") if cell in CELLS_WITH_NONLINEARITY else ("tanh",))
]


def name(config: NetworkConfig) -> str:
    order = "batch-first" if config.batch_first else "time-first"
    return f"{config.cell}-{config.nonlinearity}-{config.num_layers}-{config.encoding}-{order}"


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_shapes_and_chunks(config: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = CharNetwork(config).eval()
    token = torch.randint(0, 5, (3, 8))  # [batch, time]

    def run(part: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        logits, following = network(part if config.batch_first else part.T, state)
        return (logits if config.batch_first else logits.transpose(0, 1)), following

    whole, end = run(token)
    assert whole.shape == (3, 8, 5)
    assert whole.dtype == torch.float32
    assert list(end) == (["h", "c"] if config.cell in CELLS_WITH_C else ["h"])
    assert all(state.shape == (config.num_layers, 3, 7) for state in end.values())
    zeros, _ = run(token, network.initial_state(3))
    torch.testing.assert_close(zeros, whole)
    pieces, state = [], None
    for part in token.split([1, 4, 3], dim=1):
        piece, state = run(part, state)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    for key in end:
        torch.testing.assert_close(state[key], end[key])


@pytest.mark.parametrize("cell", CELLS)
def test_the_axes_mean_the_same_in_both_orders(cell: str) -> None:
    torch.manual_seed(0)
    first = Recurrent(cell, 4, 6, num_layers=2).eval()
    second = Recurrent(cell, 4, 6, num_layers=2, batch_first=False).eval()
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 5, 4)
    y, state = first(x)
    turned, turned_state = second(x.transpose(0, 1))
    torch.testing.assert_close(turned.transpose(0, 1), y)
    for key in state:
        torch.testing.assert_close(turned_state[key], state[key])


@pytest.mark.parametrize("cell", CELLS)
def test_rows_do_not_touch_each_other(cell: str) -> None:
    torch.manual_seed(0)
    network = CharNetwork(NetworkConfig(cell, 5, 7, 2)).eval()
    token = torch.randint(0, 5, (3, 6))
    whole, _ = network(token)
    for row in range(3):
        torch.testing.assert_close(network(token[row : row + 1])[0], whole[row : row + 1])


@pytest.mark.parametrize("cell", ["elman", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_dropout_acts_in_training_only(cell: str, num_layers: int) -> None:
    torch.manual_seed(0)
    network = CharNetwork(NetworkConfig(cell, 5, 16, num_layers, dropout=0.5))
    token = torch.randint(0, 5, (2, 6))
    assert not torch.equal(network(token)[0], network(token)[0])
    network.eval()
    assert torch.equal(network(token)[0], network(token)[0])


def test_written_out_cells_drop_between_layers() -> None:
    torch.manual_seed(0)
    network = Recurrent("elman", 4, 16, num_layers=2, dropout=0.5)
    x = torch.randn(2, 6, 4)
    assert not torch.equal(network(x)[0], network(x)[0])


def test_elman_has_no_bias_anywhere() -> None:
    network = CharNetwork(NetworkConfig("elman", 5, 7, 2))
    assert not [name for name, _ in network.named_parameters() if "bias" in name]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"cell": "transformer"}, "cell"),
        ({"nonlinearity": "gelu"}, "nonlinearity"),
        ({"nonlinearity": "relu"}, "lstm"),
        ({"encoding": "bytes"}, "encoding"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_layers": -1}, "num_layers"),
        ({"vocabulary_size": 0}, "vocabulary_size"),
        ({"embedding_size": 0}, "embedding_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
    ],
)
def test_impossible_networks_are_refused(change: dict[str, Any], names: str) -> None:
    with pytest.raises(UsageError, match=names) as caught:
        NetworkConfig(**{"cell": "lstm", "vocabulary_size": 5, "hidden_size": 7, **change})
    assert caught.value.code == "network-invalid"


def test_the_tutorial_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) == 7
    code = "\n".join(blocks)
    for shape in ("(6, 5)", "(1, 1, 5)", "(2, 1, 5)", "(2, 2, 5)"):
        assert f".shape == {shape}" in code
    with torch.random.fork_rng(devices=[]):
        exec(compile(code, "docs/tutorial.md", "exec"), {})
