"""Memory that time implies: causal convolutions, running sums, shifts; and what looks ahead."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

X = {"x": "float32[batch, time, 6]"}
CHANNELS = {"x": "float32[batch, 6, time]"}


@case("causal_conv_pad", "causal", states=["past"], route="direct", inputs=CHANNELS)
class PadConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 3)

    def forward(self, x):
        return self.conv(F.pad(x, (2, 0)))


@case("causal_conv_chomp", "causal", states=["conv.past"], route="direct", inputs=CHANNELS)
class Chomp(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 3, padding=4, dilation=2)

    def forward(self, x):
        return self.conv(x)[:, :, :-4]


@case("causal_conv_constant_pad_module", "causal", states=["net.0.past"], route="direct", inputs=CHANNELS)
def _pad_module():
    return _Wrapped(nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(6, 6, 5), nn.ReLU()))


class _Wrapped(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


@case("causal_conv_cat_zeros", "causal", states=["past"], route="direct", inputs=CHANNELS)
class CatConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 4)

    def forward(self, x):
        zeros = torch.zeros(x.shape[0], 6, 3)
        return self.conv(torch.cat([zeros, x], -1))


@case("causal_conv2d", "causal", states=["past"], inputs={"x": "float32[batch, 1, time, 8]"})
class Conv2d(nn.Module):
    """Time in one axis, frequency padded on both sides of the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (3, 3))

    def forward(self, x):
        return torch.relu(self.conv(F.pad(x, (1, 1, 2, 0))))


@case("tcn", "causal", states=["net.0.conv.past", "net.1.conv.past", "net.2.conv.past"], inputs=X)
class Tcn(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.ModuleList([_Block(6, d) for d in (1, 2, 4)])

    def forward(self, x):
        x = x.transpose(1, 2)
        for block in self.net:
            x = block(x)
        return x.transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, width, dilation):
        super().__init__()
        self.cut = 2 * dilation
        self.conv = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(width, width, 3, padding=self.cut, dilation=dilation)
        )
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x)))
        return x + y[:, :, : -self.cut].contiguous()


@case("wavenet", "causal", inputs=X)
class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates = nn.ModuleList([nn.Conv1d(6, 12, 2, dilation=d) for d in (1, 2, 4, 8)])
        self.skips = nn.ModuleList([nn.Conv1d(6, 8, 1) for _ in range(4)])

    def forward(self, x):
        x, total = x.transpose(1, 2), 0
        for gate, skip in zip(self.gates, self.skips, strict=True):
            a, b = gate(F.pad(x, (gate.dilation[0], 0))).chunk(2, 1)
            z = torch.tanh(a) * torch.sigmoid(b)
            total, x = total + skip(z), x + z
        return torch.relu(total).transpose(1, 2)


@case("gru_between_convolutions", "causal", states=["past", "gru.h", "past_2"], route="direct", inputs=X)
class Speech(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_in, self.gru, self.conv_out = (
            nn.Conv1d(6, 8, 3),
            nn.GRU(8, 8, batch_first=True),
            nn.Conv1d(8, 6, 2),
        )

    def forward(self, x):
        z = torch.relu(self.conv_in(F.pad(x.transpose(1, 2), (2, 0)))).transpose(1, 2)
        z, _ = self.gru(z)
        mask = self.conv_out(F.pad(z.transpose(1, 2), (1, 0))).transpose(1, 2)
        return x * torch.sigmoid(mask)


@case("running_mean", "causal", inputs=X)
class RunningMean(nn.Module):
    def forward(self, x):
        count = torch.ones_like(x[:, :, :1]).cumsum(1)
        return x.cumsum(1) / count


@case("running_max", "causal", states=["max"], inputs=X)
class RunningMax(nn.Module):
    def forward(self, x):
        return torch.cummax(x, dim=1).values


@case("running_logsumexp", "causal", states=["logsumexp"], inputs=X)
class RunningLogSumExp(nn.Module):
    def forward(self, x):
        return torch.logcumsumexp(x, dim=1)


@case("token_shift", "causal", states=["shift.past"], inputs=X)
class TokenShift(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift, self.mix = nn.ZeroPad2d((0, 0, 1, -1)), nn.Parameter(torch.rand(6))

    def forward(self, x):
        return torch.lerp(self.shift(x), x, self.mix)


@case("difference", "causal", states=["past"], inputs=X)
class Difference(nn.Module):
    def forward(self, x):
        return x - torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)


@case("depthwise_two_branches", "causal", inputs=CHANNELS)
class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(6, 6, 7, groups=6), nn.Conv1d(6, 6, 3)

    def forward(self, x):
        return self.a(F.pad(x, (6, 0))) * torch.sigmoid(self.b(F.pad(x, (2, 0))))


@case("looks_ahead_same", "whole", whole="looks 2 steps ahead", inputs=CHANNELS)
class Same(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 5, padding="same")

    def forward(self, x):
        return self.conv(x)


@case("looks_ahead_one", "whole", whole="looks 1 step ahead", inputs=CHANNELS)
class OneAhead(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 3)

    def forward(self, x):
        return self.conv(F.pad(x, (1, 1)))


@case("mean_over_time", "whole", whole="mean over time", inputs=X)
class MeanPool(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0].mean(1))


@case("flattened_output", "whole", whole="batch and time", inputs=X)
class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.out(y.reshape(-1, 8))


@case("self_attention", "whole", whole="attention", inputs=X)
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 18)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@case("normalised_over_time", "whole", whole="", inputs=CHANNELS)
class InstanceNorm(nn.Module):
    def forward(self, x):
        return F.instance_norm(x)


@case(
    "cumulative_layer_norm", "causal", states=["position", "sum", "sum_2", "gru.h"], route="direct", inputs=X
)
class CumulativeLayerNorm(nn.Module):
    """Normalised by all steps so far, whose number is counted with arange."""

    def __init__(self):
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))
        self.gru = nn.GRU(6, 6, batch_first=True)

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)[None, :, None] * 6
        mean = x.sum(-1, keepdim=True).cumsum(1) / count
        square = (x * x).sum(-1, keepdim=True).cumsum(1) / count
        return self.gru((x - mean) / torch.sqrt(square - mean * mean + 1e-5) * self.gain + self.bias)[0]


@case("position_table", "causal", states=["position", "gru.h"], route="direct", inputs=X)
class PositionTable(nn.Module):
    """Sines of the position from a table, as in transformers."""

    def __init__(self):
        super().__init__()
        angle = torch.arange(512)[:, None] * torch.tensor([1.0, 0.1, 0.01])
        self.register_buffer("table", torch.cat([torch.sin(angle), torch.cos(angle)], 1)[None])
        self.gru = nn.GRU(6, 6, batch_first=True)

    def forward(self, x):
        return self.gru(x + self.table[:, : x.size(1)])[0]


@case("position_embedding", "causal", states=["position", "rnn.h"], route="direct", inputs=X)
class PositionEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(512, 6)
        self.rnn = nn.RNN(6, 6, batch_first=True)

    def forward(self, x):
        return self.rnn(x + self.embedding(torch.arange(x.shape[1], device=x.device)))[0]


@case(
    "mask_by_length",
    "causal",
    states=["gru.h"],
    route="direct",
    inputs={"x": "float32[batch, time, 6]", "lengths": "int64[batch] in 1..time"},
)
class MaskByLength(nn.Module):
    """Here arange counts the steps of the call, and must not go on counting."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(6, 4, batch_first=True)

    def forward(self, x, lengths):
        valid = torch.arange(x.shape[1])[None] < lengths[:, None]
        return self.gru(x)[0] * valid[..., None].to(x.dtype)


@case(
    "returned_lengths",
    "causal",
    states=["past", "gru.h"],
    route="direct",
    inputs={"x": "float32[batch, time, 6]", "lengths": "int64[batch] in 1..time"},
)
class ReturnedLengths(nn.Module):
    """The lengths come back as they are and as shares: no output of a step, and the caller has them."""

    def __init__(self):
        super().__init__()
        self.conv, self.gru = nn.Conv1d(6, 6, 3), nn.GRU(6, 4, batch_first=True)

    def forward(self, x, lengths):
        seen = self.conv(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
        return {"y": self.gru(seen)[0], "lengths": lengths, "shares": lengths / x.shape[1]}


@case(
    "mask_as_wide_as_the_longest",
    "causal",
    states=["gru.h"],
    route="direct",
    inputs={"x": "float32[batch, time, 6]", "lengths": "int64[batch] in 1..time"},
)
class MaskOfLongest(nn.Module):
    """The width of the mask is the longest row's length, which has to be the chunk's."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(6, 4, batch_first=True)

    def forward(self, x, lengths):
        width = int(torch.max(lengths).item())
        valid = torch.arange(width, dtype=lengths.dtype).expand(len(lengths), width) < lengths[:, None]
        return self.gru(x * valid[..., None])[0]


@case(
    "quasi_recurrent",
    "causal",
    states=["c", "past"],
    route="scan",
    inputs=X,
    state={"c": "float32[batch, 5]"},
)
class QuasiRecurrent(nn.Module):
    """Gates by a causal convolution, then a loop that pools them (Bradbury et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 15, 2)

    def forward(self, x, c):
        gates = self.conv(F.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2)
        z, f, o = gates.chunk(3, -1)
        ys = []
        for t in range(x.shape[1]):
            c = torch.sigmoid(f[:, t]) * c + (1 - torch.sigmoid(f[:, t])) * torch.tanh(z[:, t])
            ys.append(torch.sigmoid(o[:, t]) * c)
        return torch.stack(ys, 1), c
