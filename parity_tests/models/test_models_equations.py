"""The cells against their equations: worked by hand, and against torch.nn with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rnnx_models.cells import Concat, Elman, Gates
from rnnx_models.networks import CharNetwork, NetworkConfig, Recurrent, cross_entropy, probabilities


def weights(layer: nn.Linear, weight: list[list[float]], bias: list[float] | None = None) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is None:
            assert layer.bias is None
        else:
            layer.bias.copy_(torch.tensor(bias))


def elman_by_hand(nonlinearity: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden state and first output of two steps of the network that is worked out below."""
    config = NetworkConfig("elman", 2, 2, nonlinearity=nonlinearity)
    network = CharNetwork(config)
    cell = network.recurrent.layers[0]
    weights(cell.W, [[0.5, -1.0], [0.25, 0.75]])
    weights(cell.U, [[0.1, 0.2], [-0.3, 0.4]])
    weights(network.readout, [[2.0, -1.0], [1.0, 1.0]])
    logits, _ = network(torch.tensor([[0, 1]]))  # x_1 = (1, 0), x_2 = (0, 1)
    hidden, _ = network.recurrent(network.encode(torch.tensor([[0, 1]])))
    return hidden[0], logits[0, :, 0]


def test_elman_with_tanh_by_hand() -> None:
    # h_1 = tanh(0.5, 0.25); W x_2 + U h_1 = (-1 + 0.0462 + 0.0490, 0.75 - 0.1386 + 0.0980)
    hidden, output = elman_by_hand("tanh")
    expected = torch.tensor([[0.462117157, 0.244918662], [-0.718629249, 0.610257976]])
    torch.testing.assert_close(hidden, expected, rtol=0, atol=2e-7)
    # V h: 2 * 0.462117157 - 0.244918662, 2 * -0.718629249 - 0.610257976
    torch.testing.assert_close(output, torch.tensor([0.679315652, -2.047516473]), rtol=0, atol=5e-7)


def test_elman_with_relu_by_hand() -> None:
    # h_1 = (0.5, 0.25); W x_2 + U h_1 = (-1 + 0.05 + 0.05, 0.75 - 0.15 + 0.1) = (-0.9, 0.7)
    hidden, output = elman_by_hand("relu")
    torch.testing.assert_close(hidden, torch.tensor([[0.5, 0.25], [0.0, 0.7]]), rtol=0, atol=1e-7)
    torch.testing.assert_close(output, torch.tensor([0.75, -0.7]), rtol=0, atol=2e-7)


def test_concat_by_hand() -> None:
    cell = Concat(2, 1)
    weights(cell.W, [[1.0, -0.5, 2.0]], [0.25])  # x, x, h: the input comes first
    (h,) = cell.step(torch.tensor([[0.5, 1.0]]), (torch.zeros(1, 1),))
    assert h.item() == pytest.approx(0.244918662, abs=2e-7)  # tanh(0.5 - 0.5 + 0 + 0.25)
    (h,) = cell.step(torch.tensor([[1.0, 0.0]]), (h,))
    assert h.item() == pytest.approx(0.940207771, abs=2e-7)  # tanh(1 - 0 + 0.489837 + 0.25)


def test_gates_by_hand() -> None:
    cell = Gates(1, 1)
    weights(cell.W_f, [[0.5, 1.0]], [0.0])  # h, x: the hidden state comes first
    weights(cell.W_c, [[-1.0, 2.0]], [0.1])
    weights(cell.W_i, [[0.25, -0.5]], [0.2])
    weights(cell.W_o, [[1.0, 0.5]], [-0.3])
    h, c = cell.step(torch.tensor([[1.0]]), (torch.tensor([[0.2]]), torch.tensor([[0.5]])))
    # f = sigmoid(1.1) = 0.750260, C' = 0.375130; N = tanh(1.9) = 0.956237, i = sigmoid(-0.25) = 0.437823,
    # L = 0.418663; C = 0.793793; o = sigmoid(0.4) = 0.598688; h = o tanh(C)
    assert c.item() == pytest.approx(0.793793283, abs=2e-7)
    assert h.item() == pytest.approx(0.395464665, abs=2e-7)


def test_gru_by_hand() -> None:
    network = Recurrent("gru", 1, 1)
    values = {
        "weight_ih_l0": [[0.5], [-0.5], [1.0]],  # rows r, z, n
        "weight_hh_l0": [[0.25], [1.0], [-1.0]],
        "bias_ih_l0": [0.1, 0.0, 0.2],
        "bias_hh_l0": [0.0, 0.0, 0.3],
    }
    with torch.no_grad():
        for name, value in values.items():
            getattr(network.layers, name).copy_(torch.tensor(value))
    y, _ = network(torch.tensor([[[1.0]]]), {"h": torch.tensor([[[0.4]]])})
    # r = sigmoid(0.7) = 0.668188, z = sigmoid(-0.1) = 0.475021, n = tanh(1.2 - 0.1 r) = 0.812105
    assert y.item() == pytest.approx(0.616346665, abs=2e-7)  # (1 - z) n + z h


def test_softmax_and_loss_by_hand() -> None:
    logits = torch.tensor([[[1.0, 2.0, 3.0]]])
    torch.testing.assert_close(
        probabilities(logits), torch.tensor([[[0.090030573, 0.244728471, 0.665240956]]]), rtol=0, atol=1e-7
    )
    assert cross_entropy(logits, torch.tensor([[2]])).item() == pytest.approx(0.407605964, abs=2e-7)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_elman_equals_torch_rnn(nonlinearity: str, num_layers: int) -> None:
    torch.manual_seed(1)
    ours = Recurrent("elman", 4, 6, num_layers=num_layers, nonlinearity=nonlinearity)
    theirs = nn.RNN(4, 6, num_layers, nonlinearity=nonlinearity, bias=False, batch_first=True)
    with torch.no_grad():
        for layer, cell in enumerate(ours.layers):
            getattr(theirs, f"weight_ih_l{layer}").copy_(cell.W.weight)
            getattr(theirs, f"weight_hh_l{layer}").copy_(cell.U.weight)
    x, h = torch.randn(3, 50, 4), torch.randn(num_layers, 3, 6)
    y, state = ours(x, {"h": h})
    expected, last = theirs(x, h)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(state["h"], last, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_gates_equal_torch_lstm(num_layers: int) -> None:
    torch.manual_seed(2)
    ours = Recurrent("gates", 4, 6, num_layers=num_layers)
    theirs = nn.LSTM(4, 6, num_layers, batch_first=True)
    with torch.no_grad():
        for layer, cell in enumerate(ours.layers):
            maps = (
                cell.W_i,
                cell.W_f,
                cell.W_c,
                cell.W_o,
            )  # torch keeps its rows as input, forget, cell, output
            both = torch.cat([gate.weight for gate in maps])  # [4 * hidden, hidden + input]
            getattr(theirs, f"weight_hh_l{layer}").copy_(both[:, :6])
            getattr(theirs, f"weight_ih_l{layer}").copy_(both[:, 6:])
            getattr(theirs, f"bias_ih_l{layer}").copy_(torch.cat([gate.bias for gate in maps]))
            getattr(theirs, f"bias_hh_l{layer}").zero_()
    x, h, c = torch.randn(3, 50, 4), torch.randn(num_layers, 3, 6), torch.randn(num_layers, 3, 6)
    y, state = ours(x, {"h": h, "c": c})
    expected, (last_h, last_c) = theirs(x, (h, c))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(state["h"], last_h, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(state["c"], last_c, rtol=1e-5, atol=2e-6)


def test_new_weights_are_drawn_as_torch_draws_them() -> None:
    for cell in (Elman(4, 16), Concat(4, 16), Gates(4, 16)):
        for name, weight in cell.named_parameters():
            assert weight.abs().max() <= 0.25, name  # 1 / sqrt(16)
            assert weight.abs().max() > 0.15, name
