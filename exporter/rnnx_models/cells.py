"""Recurrent cells written out as their equations, one time step at a time.

Every cell takes one step with `step(x, state)`: x is float32 [batch, input_size] and state a tuple of
float32 [batch, hidden_size], the hidden state h first. `over_time` loops a cell over a sequence.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class Cell(nn.Module):
    """One recurrent layer; a subclass says in `step` what one time step computes."""

    state_names: tuple[str, ...] = ("h",)

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size

    def start_weights(self) -> None:
        """Draw all weights from U(-k, k), k = 1/sqrt(hidden_size), as torch.nn.RNN and LSTM do."""
        bound = self.hidden_size**-0.5
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def step(self, x: Tensor, state: State) -> State:
        """Return the next state. x: float32 [batch, input_size]; each state: float32 [batch, hidden_size]."""
        raise NotImplementedError


class Elman(Cell):
    """Elman (1990), "Finding structure in time", without biases: h_t = f(W x_t + U h_{t-1}).

    f is tanh or ReLU. The output, V h_t, is the readout of the network around it.
    """

    def __init__(self, input_size: int, hidden_size: int, nonlinearity: str = "tanh") -> None:
        super().__init__(input_size, hidden_size)
        self.W = nn.Linear(input_size, hidden_size, bias=False)  # weight [hidden_size, input_size]
        self.U = nn.Linear(hidden_size, hidden_size, bias=False)  # weight [hidden_size, hidden_size]
        self.f = torch.relu if nonlinearity == "relu" else torch.tanh
        self.start_weights()

    def step(self, x: Tensor, state: State) -> State:
        """Return (h_t,). x: float32 [batch, input_size]; state: (h_{t-1}: float32 [batch, hidden_size],)."""
        (h,) = state
        return (self.f(self.W(x) + self.U(h)),)  # [batch, hidden_size]


class Concat(Cell):
    """One map over input and hidden state side by side: h_t = tanh(W [x_t, h_{t-1}] + b)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = nn.Linear(input_size + hidden_size, hidden_size)  # weight [hidden_size, input + hidden]
        self.start_weights()

    def step(self, x: Tensor, state: State) -> State:
        """Return (h_t,). x: float32 [batch, input_size]; state: (h_{t-1}: float32 [batch, hidden_size],)."""
        (h,) = state
        x_h = torch.cat([x, h], dim=-1)  # [batch, input_size + hidden_size]
        return (torch.tanh(self.W(x_h)),)  # [batch, hidden_size]


class Gates(Cell):
    """The LSTM gate by gate (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000).

    forget:   f_t = sigmoid(W_f [h, x] + b_f),  C' = C f_t
    learn:    N_t = tanh(W_c [h, x] + b_c),  i_t = sigmoid(W_i [h, x] + b_i),  L_t = N_t i_t
    remember: C_t = L_t + C'
    output:   o_t = sigmoid(W_o [h, x] + b_o),  h_t = o_t tanh(C_t)
    """

    state_names = ("h", "c")

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        both = hidden_size + input_size
        self.W_f = nn.Linear(both, hidden_size)  # weight [hidden_size, hidden_size + input_size]
        self.W_c = nn.Linear(both, hidden_size)
        self.W_i = nn.Linear(both, hidden_size)
        self.W_o = nn.Linear(both, hidden_size)
        self.start_weights()

    def step(self, x: Tensor, state: State) -> State:
        """Return (h_t, C_t).

        x: float32 [batch, input_size]; state: (h_{t-1}, C_{t-1}), each float32 [batch, hidden_size].
        """
        h, c = state
        h_x = torch.cat([h, x], dim=-1)  # [batch, hidden_size + input_size]
        kept = c * self._forget(h_x)  # C' [batch, hidden_size]
        c = self._learn(h_x) + kept  # C_t [batch, hidden_size]
        h = self._output(h_x) * torch.tanh(c)  # h_t [batch, hidden_size]
        return h, c

    def _forget(self, h_x: Tensor) -> Tensor:
        return torch.sigmoid(cast(Tensor, self.W_f(h_x)))  # f_t [batch, hidden_size]

    def _learn(self, h_x: Tensor) -> Tensor:
        new = torch.tanh(self.W_c(h_x))  # N_t [batch, hidden_size]
        share = torch.sigmoid(self.W_i(h_x))  # i_t [batch, hidden_size]
        return new * share  # L_t [batch, hidden_size]

    def _output(self, h_x: Tensor) -> Tensor:
        return torch.sigmoid(cast(Tensor, self.W_o(h_x)))  # o_t [batch, hidden_size]


def over_time(cell: Cell, x: Tensor, state: State) -> tuple[Tensor, State]:
    """Run `cell` over a sequence, in Python, one step after the other.

    Args:
        cell: the layer.
        x: float32 [time, batch, input_size].
        state: the state before the first step, each float32 [batch, hidden_size].

    Returns:
        h of every step, float32 [time, batch, hidden_size], and the state after the last.
    """
    hidden = []
    for t in range(x.shape[0]):
        state = cell.step(x[t], state)
        hidden.append(state[0])  # [batch, hidden_size]
    return torch.stack(hidden), state
