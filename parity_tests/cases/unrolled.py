"""Loops whose states only a comparison of their first steps shows, and those that it does not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases.registry import case

X = {"x": "float32[batch, time, 6]"}


@case("loop_after_cumsum", "loops", states=["carried", "h"], route="scan", inputs=X)
class AfterCumsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 6)

    def forward(self, x):
        total = 0.1 * torch.cumsum(x, 1)
        h = torch.zeros_like(x[:, 0])
        ys = []
        for t in range(x.shape[1]):
            h = torch.tanh(self.into(total[:, t]) + h)
            ys.append(h)
        return torch.stack(ys, 1)


@case("loop_after_filter_and_shift", "loops", states=["past", "past_2", "h"], route="scan", inputs=X)
class AfterFilterAndShift(nn.Module):
    """What is shifted by a step came out of a convolution, which lets no single step through."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Conv1d(6, 6, 3)

    def forward(self, x):
        seen = self.filter(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
        mixed = 0.75 * seen + 0.25 * torch.cat([torch.zeros_like(seen[:, :1]), seen[:, :-1]], 1)
        h = torch.zeros(x.shape[0], 6)
        ys = []
        for t in range(x.shape[1]):
            h = 0.9 * h + mixed[:, t]
            ys.append(torch.tanh(h))
        return torch.stack(ys, 1)


@case("loop_after_running_maximum", "loops", states=["max", "h"], route="scan", inputs=X)
class AfterRunningMaximum(nn.Module):
    def forward(self, x):
        below = x - torch.cummax(x, 1).values
        h = torch.zeros(x.shape[0], 6)
        ys = []
        for t in range(x.shape[1]):
            h = torch.tanh(below[:, t] + 0.5 * h)
            ys.append(h)
        return torch.stack(ys, 1)


@case(
    "loop_after_carried_sum",
    "loops",
    states=["total", "level"],
    route="scan",
    inputs=X,
    state={"total": "float32[batch, 6]", "level": "float32[batch, 6]"},
)
class AfterCarriedSum(nn.Module):
    """The sum goes on from a state, and so does the loop."""

    def forward(self, x, total, level):
        sums = total.unsqueeze(1) + torch.cumsum(x, 1)
        ys = []
        for frame in torch.tanh(0.25 * sums).unbind(1):
            level = 0.9 * level + frame
            ys.append(torch.tanh(level))
        return torch.stack(ys, 1), sums[:, -1], level


@case("loop_from_a_number", "loops", states=["past", "layer.h", "h"], route="scan", inputs=X)
class FromANumber(nn.Module):
    """A start whose product with the decay has no exact float32."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Conv1d(6, 6, 4)
        self.layer = nn.RNN(6, 6, batch_first=True)

    def forward(self, x):
        h = torch.full((x.shape[0], 6), 0.5)
        seen = self.filter(F.pad(x.transpose(1, 2), (3, 0))).transpose(1, 2)
        ys = torch.zeros_like(seen)
        for t, frame in enumerate(self.layer(seen)[0].unbind(1)):
            h = 0.9 * h + frame
            ys[:, t] = torch.tanh(h)
        return ys


@case("loop_from_one_row", "loops", states=["power"], route="scan", inputs=X)
class FromOneRow(nn.Module):
    """An attribute that begins as one row for all rows of the batch."""

    def __init__(self):
        super().__init__()
        self.power = torch.full((1, 6), 0.5)

    def forward(self, x):
        power = self.power.expand(x.shape[0], 6).clone()
        ys = []
        for frame in x.unbind(1):
            power.mul_(0.75).addcmul_(frame, frame, value=0.25)
            ys.append(frame * torch.rsqrt(power + 0.5))
        self.power = power
        return torch.stack(ys, 1)


@case("loop_after_token_shift", "loops", route="scan", inputs=X)
class AfterTokenShift(nn.Module):
    """What a loop takes is mixed from this step and the last, all rows together (Peng et al. 2024)."""

    def __init__(self):
        super().__init__()
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.down, self.up = nn.Parameter(torch.randn(6, 4) / 4), nn.Parameter(torch.randn(2, 2, 6) / 4)
        self.key = nn.Linear(6, 6, bias=False)

    def forward(self, x):
        batch, steps, width = x.shape
        change = self.shift(x) - x
        low = torch.tanh((x + change) @ self.down).view(batch * steps, 2, 2).transpose(0, 1)
        mix, decay = torch.bmm(low, self.up).view(2, batch, steps, width).unbind(0)
        keys, keep = self.key(x + change * mix), torch.exp(-torch.exp(decay))
        h = torch.zeros(batch, width)
        ys = []
        for t in range(steps):
            h = keep[:, t] * h + keys[:, t]
            ys.append(h)
        return torch.stack(ys, 1)


@case("loop_after_shift", "loops", route="scan", inputs={"price": "float32[batch, time] in 1..2"})
class AfterShift(nn.Module):
    """The volatility of returns, of which the first is 0."""

    def forward(self, price):
        log = price.log()
        change = torch.cat([torch.zeros_like(log[:, :1]), log[:, 1:] - log[:, :-1]], 1)
        variance = torch.zeros(price.size(0))
        ys = []
        for t in range(price.size(1)):
            variance = 0.94 * variance + 0.06 * change[:, t] ** 2
            ys.append(variance)
        return torch.stack(ys, 1).sqrt()


@case("loop_without_say", "loops", states=["mean", "variance"], route="scan", inputs=X)
class Filter(nn.Module):
    """A Kalman filter: no input has a say in how sure it is."""

    def __init__(self):
        super().__init__()
        self.noise = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        mean, variance = torch.zeros_like(x[:, 0]), torch.ones(x.size(0), 1)
        ys = []
        for t in range(x.shape[1]):
            variance = variance + self.noise
            gain = variance / (variance + 1)
            mean = mean + gain * (x[:, t] - mean)
            variance = (1 - gain) * variance
            ys.append(mean)
        return torch.stack(ys, 1)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, potential):
        return (potential > 0).float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@case("loop_of_delays", "loops", route="scan", inputs=X)
class Delays(nn.Module):
    """A spiking network: it takes three steps until an input shows (Eshraghian et al. 2023)."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        current = potential = torch.zeros(x.size(0), 8)
        read = torch.zeros(x.size(0), 3)
        ys = []
        for t in range(x.size(1)):
            spike = _Spike.apply(potential - 0.3)
            current, potential = 0.8 * current + self.into(x[:, t]), (0.9 * potential + current) * (1 - spike)
            read = 0.95 * read + self.out(spike)
            ys.append(read)
        return torch.stack(ys, 1)


@case(
    "loop_looks_two_back",
    "loops",
    states=["carried", "carried_2"],
    route="scan",
    inputs={"x": "float32[time, 6]"},
)
class TwoBack(nn.Module):
    """The last two hidden states, of one row each, in a list that grows."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(14, 4)

    def forward(self, x):
        hs = [torch.zeros(1, 4), torch.zeros(1, 4)]
        for row in x:
            hs.append(torch.tanh(self.into(torch.cat([row.unsqueeze(0), hs[-1], hs[-2]], -1))))
        return torch.vstack(hs[2:])


@case("refused_loop_line", "refused", refused="not-exported", mentions="at unrolled.py", inputs=X)
class NoForm(nn.Module):
    """The line in the loop is named."""

    def forward(self, x):
        h = torch.zeros(x.shape[0], 6, 6)
        ys = []
        for t in range(x.shape[1]):
            h = 0.9 * h + x[:, t, :, None] * x[:, t, None, :]
            ys.append(torch.linalg.eigvalsh(h + torch.eye(6)))
        return torch.stack(ys, 1)


@case(
    "refused_decoder_start",
    "refused",
    refused="not-exported",
    mentions="'decoder' starts from a state computed from an input",
    inputs={"source": "float32[batch, words, 6]", "target": "float32[batch, time, 4]"},
)
class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.GRU(6, 8, batch_first=True), nn.GRUCell(4, 8)

    def forward(self, source, target):
        h = self.encoder(source)[1][0]
        ys = []
        for t in range(target.size(1)):
            h = self.decoder(target[:, t], h)
            ys.append(h)
        return torch.stack(ys, 1)


@case("refused_table_of_steps", "refused", refused="not-exported", mentions="inside its table", inputs=X)
class TableOfSteps(nn.Module):
    """Statistics for each of the first steps, and the last of them ever after."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.randn(5, 6))

    def forward(self, x):
        h = torch.zeros_like(x[:, 0])
        ys = []
        for t in range(x.size(1)):
            h = torch.tanh(x[:, t] - self.mean[min(t, 4)] + h)
            ys.append(h)
        return torch.stack(ys, 1)


@case("refused_kernel", "refused", refused="not-exported", mentions="no kernel for MatMul", inputs=X)
class InAutocast(nn.Module):
    """What ONNX Runtime says of it is put in plain words."""

    def __init__(self):
        super().__init__()
        self.into, self.rnn = nn.Linear(6, 6), nn.GRU(6, 8, batch_first=True)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.into(x)
        return self.rnn(y.float())[0]


@case(
    "refused_single_step",
    "refused",
    refused="not-exported",
    mentions="does not run on a single step",
    inputs={"x": "float32[batch, time]"},
)
class Pooled(nn.Module):
    def forward(self, x):
        return F.interpolate(F.max_pool1d(x[:, None], 3, 3), size=6)[:, 0]


@case(
    "refused_list_grows",
    "refused",
    refused="growing-state",
    mentions="'line'",
    inputs={"x": "float32[batch, 6]"},
)
class ListGrows(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = []

    def forward(self, x):
        self.line.append(x)
        if len(self.line) > 5:
            self.line.pop(0)
        return self.line[0] * 2
