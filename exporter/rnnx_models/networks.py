"""The reference networks: six recurrent cells, alone over vectors and as a character network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnnx.errors import UsageError
from rnnx_models.cells import Cell, Concat, Elman, Gates, over_time

CELLS = ("elman", "concat", "gates", "rnn", "lstm", "gru")
CELLS_WITH_NONLINEARITY = ("elman", "rnn")
CELLS_WITH_C = ("gates", "lstm")
NONLINEARITIES = ("tanh", "relu")
ENCODINGS = ("one-hot", "embedding")

States = dict[str, Tensor]


@dataclass(frozen=True)
class NetworkConfig:
    """What a character network is made of; everything but its weights.

    Attributes:
        cell: one of `CELLS`.
        vocabulary_size: how many symbols there are; ids are 0..vocabulary_size-1.
        hidden_size: elements of the hidden state of one layer.
        num_layers: recurrent layers, each fed the hidden state of the one below.
        nonlinearity: "tanh" or "relu"; relu only for the cells `elman` and `rnn`.
        encoding: how a token enters, "one-hot" or "embedding".
        embedding_size: elements of the embedding; unused with one-hot.
        dropout: share of elements set to zero in training, between layers and before the readout.
        batch_first: axes are [batch, time] if true, [time, batch] if not.

    Raises:
        UsageError: `network-invalid`, naming the field.
    """

    cell: str
    vocabulary_size: int
    hidden_size: int
    num_layers: int = 1
    nonlinearity: str = "tanh"
    encoding: str = "one-hot"
    embedding_size: int = 64
    dropout: float = 0.0
    batch_first: bool = True

    def __post_init__(self) -> None:
        _check_choice("cell", self.cell, CELLS)
        _check_choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        _check_choice("encoding", self.encoding, ENCODINGS)
        for field in ("vocabulary_size", "hidden_size", "num_layers", "embedding_size"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise _invalid(
                    f"{field} to be a positive whole number", repr(value), f"set {field} to 1 or more"
                )
        if not 0.0 <= self.dropout < 1.0:
            raise _invalid("dropout to be at least 0 and below 1", repr(self.dropout), "try 0.2")
        if self.nonlinearity == "relu" and self.cell not in CELLS_WITH_NONLINEARITY:
            raise _invalid(
                f"nonlinearity tanh for the cell {self.cell}, whose equation has it built in",
                "relu",
                f"leave nonlinearity out, or use one of the cells {', '.join(CELLS_WITH_NONLINEARITY)}",
            )

    @property
    def input_size(self) -> int:
        """Elements of the vector that stands for one token."""
        return self.vocabulary_size if self.encoding == "one-hot" else self.embedding_size

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the states, in order: ("h",) or ("h", "c")."""
        return ("h", "c") if self.cell in CELLS_WITH_C else ("h",)


class Recurrent(nn.Module):
    """Layers of one cell over vectors, with the state in and out.

    Args:
        cell: one of `CELLS`.
        input_size: elements of x.
        hidden_size: elements of the hidden state of one layer.
        num_layers: layers, each fed the hidden state of the one below.
        nonlinearity: "tanh" or "relu", for `elman` and `rnn`.
        dropout: share of elements set to zero between layers in training.
        batch_first: axes are [batch, time, ...] if true, [time, batch, ...] if not.

    Raises:
        UsageError: `network-invalid`.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        dropout: float = 0.0,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        config = NetworkConfig(  # for its checks: one place says what fits together
            cell, input_size, hidden_size, num_layers, nonlinearity, dropout=dropout, batch_first=batch_first
        )
        self.cell = cell
        self.state_names = config.state_names
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = nn.Dropout(dropout)
        self.layers: nn.Module
        if cell in ("elman", "concat", "gates"):
            sizes = [input_size] + [hidden_size] * (num_layers - 1)
            self.layers = nn.ModuleList(_cell(cell, size, hidden_size, nonlinearity) for size in sizes)
        else:
            options: dict[str, Any] = {"num_layers": num_layers, "batch_first": batch_first}
            if cell == "rnn":
                options["nonlinearity"] = nonlinearity
            if num_layers > 1:
                options["dropout"] = dropout
            kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
            self.layers = kind(input_size, hidden_size, **options)

    def initial_state(self, batch: int) -> States:
        """Return the state before the first step: zeros, each float32 [num_layers, batch, hidden_size]."""
        like = next(self.parameters())
        shape = (self.num_layers, batch, self.hidden_size)
        return {name: torch.zeros(shape, dtype=like.dtype, device=like.device) for name in self.state_names}

    def forward(self, x: Tensor, state: States | None = None) -> tuple[Tensor, States]:
        """Run over a sequence.

        Args:
            x: float32 [batch, time, input_size], or [time, batch, input_size] with batch_first false.
            state: "h", and "c" for lstm and gates, each float32 [num_layers, batch, hidden_size];
                None means zeros.

        Returns:
            The hidden state of the last layer at each step, float32 [batch, time, hidden_size] (or time
            first), and the state after the last step, as `state`.
        """
        if state is None:
            state = self.initial_state(x.shape[0 if self.batch_first else 1])
        if isinstance(self.layers, nn.ModuleList):
            return self._written_out(self.layers, x, state)
        if self.cell == "lstm":
            y, (h, c) = self.layers(x, (state["h"], state["c"]))
            return y, {"h": h, "c": c}
        y, h = self.layers(x, state["h"])
        return y, {"h": h}

    def _written_out(self, cells: nn.ModuleList, x: Tensor, state: States) -> tuple[Tensor, States]:
        y = x.transpose(0, 1) if self.batch_first else x  # [time, batch, input_size]
        ends = []
        for index, cell in enumerate(cells):
            assert isinstance(cell, Cell)
            if index:
                y = self.dropout(y)
            start = tuple(state[name][index] for name in self.state_names)  # each [batch, hidden_size]
            y, end = over_time(cell, y, start)  # [time, batch, hidden_size]
            ends.append(end)
        following = {
            name: torch.stack([end[place] for end in ends])  # [num_layers, batch, hidden_size]
            for place, name in enumerate(self.state_names)
        }
        return (y.transpose(0, 1) if self.batch_first else y), following


class CharNetwork(nn.Module):
    """A network over tokens: token in, scores of the next token out, state in and out.

    token -> one-hot or embedding -> recurrent layers -> readout. The readout of `elman` is V h_t
    without a bias, as its equation has it; the others have one. The outputs are logits: softmax over the
    last axis gives probabilities (`probabilities`), cross entropy on logits gives the loss.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = (
            nn.Embedding(config.vocabulary_size, config.embedding_size)
            if config.encoding == "embedding"
            else None
        )
        self.recurrent = Recurrent(
            config.cell,
            config.input_size,
            config.hidden_size,
            num_layers=config.num_layers,
            nonlinearity=config.nonlinearity,
            dropout=config.dropout,
            batch_first=config.batch_first,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.readout = nn.Linear(config.hidden_size, config.vocabulary_size, bias=config.cell != "elman")

    def initial_state(self, batch: int) -> States:
        """Return the state before the first token: zeros, each float32 [num_layers, batch, hidden_size]."""
        return self.recurrent.initial_state(batch)

    def forward(self, token: Tensor, state: States | None = None) -> tuple[Tensor, States]:
        """Score the token that follows each token.

        Args:
            token: int64 [batch, time] in 0..vocabulary_size-1, or [time, batch] with batch_first false.
            state: "h", and "c" for lstm and gates, each float32 [num_layers, batch, hidden_size];
                None means zeros.

        Returns:
            logits, float32 [batch, time, vocabulary_size] (or time first), and the state after the last
            step, as `state`.
        """
        hidden, following = self.recurrent(self.encode(token), state)  # [batch, time, hidden_size]
        return self.readout(self.dropout(hidden)), following

    def encode(self, token: Tensor) -> Tensor:
        """Return the vectors of tokens: token int64 [...] to float32 [..., input_size]."""
        if self.embedding is not None:
            encoded: Tensor = self.embedding(token)
            return encoded
        return functional.one_hot(token, self.config.vocabulary_size).to(self.readout.weight.dtype)


def probabilities(logits: Tensor) -> Tensor:
    """Return the softmax over the last axis, the vocabulary: float32 [..., symbols] as `logits`."""
    return torch.softmax(logits, dim=-1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean of -log softmax(logits)[target], in nats a token, as a scalar.

    Args:
        logits: float32 [..., symbols].
        target: int64 [...], the token that came next.
    """
    return functional.cross_entropy(logits.flatten(0, -2), target.flatten())


def _cell(name: str, input_size: int, hidden_size: int, nonlinearity: str) -> Cell:
    if name == "elman":
        return Elman(input_size, hidden_size, nonlinearity)
    return Concat(input_size, hidden_size) if name == "concat" else Gates(input_size, hidden_size)


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise _invalid(f"{field} to be one of {', '.join(choices)}", repr(value), "choose one of these")


def _invalid(expected: str, found: str, fix: str) -> UsageError:
    return UsageError("network-invalid", expected=expected, found=found, fix=fix)
