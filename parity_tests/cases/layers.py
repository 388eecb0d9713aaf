"""torch's recurrent layers, in every form they are used in."""

from __future__ import annotations

import torch
from torch import nn

from cases.registry import case

X = {"x": "float32[batch, time, 6]"}


class Tagger(nn.Module):
    """A layer that starts from nothing, and a readout: the ordinary model that returns only y."""

    def __init__(self, layer, width=8):
        super().__init__()
        self.rnn = layer
        self.out = nn.Linear(width, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.out(y)


class Stateful(nn.Module):
    """A layer whose state is passed in and handed back."""

    def __init__(self, layer):
        super().__init__()
        self.rnn = layer

    def forward(self, x, state):
        y, state = self.rnn(x, state)
        return y, state


_LAYERS = {
    "rnn_tanh": (lambda **k: nn.RNN(6, 8, batch_first=True, **k), ["rnn.h"]),
    "rnn_relu": (lambda **k: nn.RNN(6, 8, nonlinearity="relu", batch_first=True, **k), ["rnn.h"]),
    "lstm": (lambda **k: nn.LSTM(6, 8, batch_first=True, **k), ["rnn.h", "rnn.c"]),
    "gru": (lambda **k: nn.GRU(6, 8, batch_first=True, **k), ["rnn.h"]),
}
for _name, (_make, _states) in _LAYERS.items():
    case(_name, "layers", states=_states, route="direct", inputs=X)(lambda m=_make: Tagger(m()))
    case(f"{_name}_2", "layers", states=_states, route="direct", inputs=X)(
        lambda m=_make: Tagger(m(num_layers=2))
    )
    case(f"{_name}_no_bias", "layers", states=_states, route="direct", inputs=X)(
        lambda m=_make: Tagger(m(bias=False))
    )
    case(f"{_name}_dropout", "layers", states=_states, route="direct", inputs=X)(
        lambda m=_make: Tagger(m(num_layers=3, dropout=0.5)).train()
    )
    case(f"{_name}_bidirectional", "layers", whole="bidirectional", inputs=X)(
        lambda m=_make: Tagger(m(bidirectional=True), 16)
    )
    case(f"{_name}_float16", "layers", states=_states, inputs={"x": "float16[batch, time, 6]"})(
        lambda m=_make: Tagger(m()).half()
    )
    case(f"{_name}_bfloat16", "layers", states=_states, inputs={"x": "bfloat16[batch, time, 6]"})(
        lambda m=_make: Tagger(m()).bfloat16()
    )
    case(f"{_name}_float64", "layers", states=_states, inputs={"x": "float64[batch, time, 6]"})(
        lambda m=_make: Tagger(m(num_layers=2)).double()
    )
    case(
        f"{_name}_time_first",
        "layers",
        states=_states,
        route="direct",
        inputs={"x": "float32[time, batch, 6]"},
    )(lambda m=_make: Tagger(_time_first(m(num_layers=2))))
    case(f"{_name}_unbatched", "layers", states=_states, route="direct", inputs={"x": "float32[time, 6]"})(
        lambda m=_make: Tagger(_time_first(m()))
    )


def _time_first(layer):
    layer.batch_first = False
    return layer


case("lstm_projection", "layers", states=["rnn.h", "rnn.c"], inputs=X)(
    lambda: Tagger(nn.LSTM(6, 8, 2, proj_size=5, batch_first=True), 5)
)
case("lstm_projection_bidirectional", "layers", whole="bidirectional", inputs=X)(
    lambda: Tagger(nn.LSTM(6, 8, proj_size=5, bidirectional=True, batch_first=True), 10)
)
case("lstm_alone", "layers", states=["h", "c"], inputs={"input": "float32[batch, time, 6]"})(
    lambda: nn.LSTM(6, 8, batch_first=True)
)
case("gru_declared", "layers", states=["state"], inputs=X, state={"state": "float32[2, batch, 8]"})(
    lambda: Stateful(nn.GRU(6, 8, 2, batch_first=True))
)
case(
    "lstm_declared_tuple",
    "layers",
    states=["state.0", "state.1"],
    inputs=X,
    state={"state": ("float32[1, batch, 8]", "float32[1, batch, 8]")},
)(lambda: Stateful(nn.LSTM(6, 8, batch_first=True)))


@case("lstm_weight_norm", "layers", states=["rnn.h", "rnn.c"], inputs=X)
def _weight_norm():
    layer = nn.LSTM(6, 8, batch_first=True)
    nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    return Tagger(layer)


@case("linear_parametrized", "layers", states=["rnn.h"], inputs=X)
def _parametrized():
    net = Tagger(nn.GRU(6, 8, batch_first=True))
    nn.utils.parametrizations.spectral_norm(net.out)
    return net


@case("shared_layer_twice", "layers", states=["rnn.h", "rnn.h_2"], inputs=X)
class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 6, batch_first=True)

    def forward(self, x):
        y, _ = self.rnn(x)
        z, _ = self.rnn(torch.tanh(y) + x)
        return y + z


@case("last_step_classifier", "layers", states=["rnn.h"], inputs=X)
class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.out(y[:, -1])


@case("final_state_classifier", "layers", states=["rnn.h", "rnn.c"], inputs=X)
class Final(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(6, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        _, (h, _) = self.rnn(x)
        return self.out(h[-1])


@case("learned_start", "layers", states=["rnn.h"], inputs=X)
class LearnedStart(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True)
        self.h0 = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x):
        y, _ = self.rnn(x, self.h0.expand(-1, x.shape[0], -1).contiguous())
        return y


@case(
    "embedding_dict_state",
    "layers",
    states=["state.h", "state.c"],
    inputs={"token": "int64[batch, time] in 0..19"},
    state={"state": {"h": "float32[1, batch, 8]", "c": "float32[1, batch, 8]"}},
)
class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.rnn = nn.LSTM(6, 8, batch_first=True)
        self.out = nn.Linear(8, 20)

    def forward(self, token, state):
        y, (h, c) = self.rnn(self.embedding(token), (state["h"], state["c"]))
        return self.out(y), {"h": h, "c": c}


class Packed(nn.Module):
    """Rows of different lengths, packed in any order."""

    def __init__(self, layer, **pad):
        super().__init__()
        self.rnn = layer
        self.pad = pad

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.rnn(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, **self.pad)
        return y


LENGTHS = {**X, "lengths": "int64[batch] in 1..time"}
case("packed_lstm", "lengths", states=["rnn.h", "rnn.c"], inputs=LENGTHS)(
    lambda: Packed(nn.LSTM(6, 8, 2, batch_first=True))
)
case("packed_gru", "lengths", states=["rnn.h"], inputs=LENGTHS)(
    lambda: Packed(nn.GRU(6, 8, batch_first=True))
)
case("packed_rnn", "lengths", states=["rnn.h"], inputs=LENGTHS)(
    lambda: Packed(nn.RNN(6, 8, batch_first=True))
)
case("packed_projection", "lengths", states=["rnn.h", "rnn.c"], inputs=LENGTHS)(
    lambda: Packed(nn.LSTM(6, 8, proj_size=4, batch_first=True))
)
case("packed_bidirectional", "lengths", whole="bidirectional", inputs=LENGTHS)(
    lambda: Packed(nn.GRU(6, 8, bidirectional=True, batch_first=True))
)


@case("masked_gru", "lengths", states=["h"], inputs=LENGTHS, state={"h": "float32[batch, 8]"})
class Masked(nn.Module):
    """Lengths by hand: a row that has ended keeps its state."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x, lengths, h):
        ys = []
        for t in range(x.shape[1]):
            new = self.cell(x[:, t], h)
            h = torch.where((t < lengths)[:, None], new, h)
            ys.append(h)
        return torch.stack(ys, 1), h
