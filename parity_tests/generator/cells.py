"""Cells of one step: for each its code as an author writes it, and its recurrence in numpy.

The code is text in which `{z}` is the step's input, [rows, F], `{x}` the network's own input, `{p}` the
prefix of the cell's weights, `{r}` the index of all rows, `{a}` the axis behind the rows, and a slot's name
its local variable. The recurrence knows nothing of that text: it takes and gives values by slot, each
[rows, ...] or, where the slot is one for all rows, a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Values = dict[str, Array]
Step = Callable[[Mapping[str, Array], Array, Array, Values], tuple[Array, Values]]
Lines = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Slot:
    """One tensor of a cell's state: [*lead, rows, *shape], or () where it is one for all rows."""

    name: str
    shape: tuple[str, ...] = ("F",)
    dtype: str = "float32"
    rows: bool = True
    lead: int = 0
    start: float = 0.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        slots: its state.
        init: lines of the constructor.
        before: lines ahead of the update.
        new: the next value of each slot.
        output: what it gives, after the update, or before it where `early`.
        special: other ways to write the update of a slot, in place unless the name says `replaced`.
        implied: lines for a chunk, of a network that keeps nothing itself: its memory is implied by time.
        step: the recurrence: (weights, z, x, values) -> (output, next values).
    """

    slots: tuple[Slot, ...]
    new: Mapping[str, str]
    output: str
    step: Step
    init: Lines = ()
    before: Lines = ()
    early: bool = False
    special: Mapping[str, Mapping[str, Lines]] = dataclasses.field(default_factory=dict)
    implied: Lines = ()


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a))."""
    return 1 / (1 + np.exp(-a))


def linear(w: Mapping[str, Array], name: str, a: Array) -> Array:
    """Return a @ weight.T + bias."""
    return a @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _leak(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    level = 0.9 * s["level"] + z
    return np.tanh(level), {"level": level}


def _average(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    mean = s["mean"] + 0.125 * (z - s["mean"])
    return z - mean, {"mean": mean}


def _power(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    power = 0.75 * s["power"] + 0.25 * z * z
    return z / np.sqrt(power + 0.5), {"power": power}


def _linear(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    hidden = np.tanh(linear(w, "inner", z) + s["hidden"] @ w["mix"])
    return linear(w, "out", hidden), {"hidden": hidden}


def gru(w: Mapping[str, Array], z: Array, h: Array, end: str = "") -> Array:
    """Return the next h of a GRU, [rows, H]."""
    given = z @ w[f"weight_ih{end}"].T + w[f"bias_ih{end}"]
    kept = h @ w[f"weight_hh{end}"].T + w[f"bias_hh{end}"]
    (gr, gz, gn), (kr, kz, kn) = np.split(given, 3, -1), np.split(kept, 3, -1)
    update = sigmoid(gz + kz)
    return (1 - update) * np.tanh(gn + sigmoid(gr + kr) * kn) + update * h


def lstm(w: Mapping[str, Array], z: Array, h: Array, c: Array, end: str = "") -> tuple[Array, Array]:
    """Return the next h and c of an LSTM, [rows, H] each."""
    gates = z @ w[f"weight_ih{end}"].T + w[f"bias_ih{end}"] + h @ w[f"weight_hh{end}"].T + w[f"bias_hh{end}"]
    i, f, g, o = np.split(gates, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def inside(w: Mapping[str, Array], name: str) -> dict[str, Array]:
    """Return the weights of a part by their names in it."""
    return {key[len(name) + 1 :]: value for key, value in w.items() if key.startswith(f"{name}.")}


def _gru(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    h = gru(inside(w, "cell"), z, s["h"])
    return linear(w, "out", h), {"h": h}


def _lstm(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    h, c = lstm(inside(w, "cell"), z, s["h"], s["c"])
    return linear(w, "out", h), {"h": h, "c": c}


def _counter(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    count = s["count"] + 1
    return z * np.cos(0.25 * count), {"count": count}


def _welford(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    seen = s["seen"] + 1
    mean = s["mean"] + (z - s["mean"]) / seen
    return z - mean, {"seen": seen, "mean": mean}


def _window(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    past = np.concatenate([s["past"][:, 1:], z[:, None]], 1)
    return np.einsum("bkf,k->bf", past, w["taps"]), {"past": past}


def _delay(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    line = np.concatenate([z[:, :, None], s["line"][:, :, :-1]], 2)
    return np.einsum("bfk,k->bf", line, w["taps"]), {"line": line}


def _ring(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    ring, place, size = s["ring"].copy(), int(s["place"]), s["ring"].shape[1]
    ring[:, place] = z
    aged = np.stack([ring[:, (place - age) % size] for age in range(size)], 1)
    return np.einsum("bkf,k->bf", aged, w["taps"]), {"ring": ring, "place": np.array((place + 1) % size)}


def _peak(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    peak = np.maximum(0.875 * s["peak"], z)
    return z - peak, {"peak": peak}


def _difference(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    return z - 0.5 * s["last"], {"last": z}


def _memory(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    key, value, query = (np.tanh(linear(w, name, z)) for name in ("key", "value", "query"))
    matrix = 0.75 * s["matrix"] + key[:, :, None] * value[:, None, :]
    norm = 0.75 * s["norm"] + key
    below = np.maximum(np.abs((query * norm).sum(-1, keepdims=True)), 1)
    return np.einsum("bh,bhf->bf", query, matrix) / below, {"matrix": matrix, "norm": norm}


def _spikes(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    charge = s["charge"] + np.floor(4 * np.clip(x, -1, 2)) / 4  # sums of quarters: exact, so no spike flips
    fired = (charge >= 1).astype(np.float64)
    return z + fired, {"charge": charge - fired}


def _hold(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    tripped = s["tripped"] | (x > 1.5)
    return np.where(tripped, 0.5 * z, z), {"tripped": tripped}


def _biquad(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    out = 0.5 * z + s["one"]
    return out, {"one": 0.25 * z + 0.5 * out + s["two"], "two": 0.125 * z - 0.25 * out}


READ = ("self.{p}out = nn.Linear({H}, {F})",)
TAPS = ("self.{p}taps = nn.Parameter(torch.zeros({K}))",)

CELLS: dict[str, Cell] = {
    "leak": Cell(
        (Slot("level"),),
        {"level": "0.9 * {level} + {z}"},
        "torch.tanh({level})",
        _leak,
        special={
            "level": {
                "methods": ("{level}.mul_(0.9).add_({z})",),
                "augmented": ("{level} *= 0.9", "{level} += {z}"),
                "replaced after use": ("{level} *= 0.9", "{level} = {level} + {z}"),
            }
        },
    ),
    "average": Cell(
        (Slot("mean"),),
        {"mean": "{mean} + 0.125 * ({z} - {mean})"},
        "{z} - {mean}",
        _average,
        special={
            "mean": {
                "methods": ("{mean}.lerp_({z}, 0.125)",),
                "augmented": ("{mean} += 0.125 * ({z} - {mean})",),
            }
        },
    ),
    "gru": Cell(
        (Slot("h", ("H",)),),
        {"h": "self.{p}cell({z}, {h})"},
        "self.{p}out({h})",
        _gru,
        ("self.{p}cell = nn.GRUCell({F}, {H})", *READ),
    ),
    "lstm": Cell(
        (Slot("h", ("H",)), Slot("c", ("H",))),
        {"h": "{h}_new", "c": "{c}_new"},
        "self.{p}out({h})",
        _lstm,
        ("self.{p}cell = nn.LSTMCell({F}, {H})", *READ),
        ("{h}_new, {c}_new = self.{p}cell({z}, ({h}, {c}))",),
    ),
    "linear": Cell(
        (Slot("hidden", ("H",)),),
        {"hidden": "torch.tanh(self.{p}inner({z}) + {hidden} @ self.{p}mix)"},
        "self.{p}out({hidden})",
        _linear,
        ("self.{p}inner = nn.Linear({F}, {H})", "self.{p}mix = nn.Parameter(torch.zeros({H}, {H}))", *READ),
    ),
    "window": Cell(
        (Slot("past", ("K", "F")),),
        {"past": "torch.cat([{past}[{r}1:], {z}.unsqueeze({a})], {a})"},
        'torch.einsum("...kf,k->...f", {past}, self.{p}taps)',
        _window,
        TAPS,
        special={
            "past": {
                "roll and write": ("{past}.copy_(torch.roll({past}, -1, {a}))", "{past}[{r}-1] = {z}"),
                "shift and write": ("{past}[{r}:-1] = {past}[{r}1:].clone()", "{past}[{r}-1] = {z}"),
                "replaced by roll": ("{past} = torch.roll({past}, -1, {a})", "{past}[{r}-1] = {z}"),
            }
        },
    ),
    "ring": Cell(
        (Slot("ring", ("K", "F")), Slot("place", (), "int64", rows=False)),
        {
            "ring": "torch.where((torch.arange({K}) == {place})[:, None], {z}.unsqueeze({a}), {ring})",
            "place": "({place} + 1) % {K}",
        },
        'torch.einsum("...kf,k->...f", {ring}[{r}({place} - 1 - torch.arange({K})) % {K}], self.{p}taps)',
        _ring,
        TAPS,
        special={
            "ring": {
                "index write": ("{ring}[{r}{place}] = {z}",),
                "index_copy_": ("{ring}.index_copy_({a}, {place}.reshape(1), {z}.unsqueeze({a}))",),
                "replaced by index": ("{ring} = {ring}.clone()", "{ring}[{r}{place}] = {z}"),
            },
            "place": {"augmented": ("{place} += 1", "{place} %= {K}")},
        },
    ),
    "counter": Cell(
        (Slot("count", (), "int64", rows=False),),
        {"count": "{count} + 1"},
        "{z} * torch.cos(0.25 * {count})",
        _counter,
        special={"count": {"augmented": ("{count} += 1",), "methods": ("{count}.add_(1)",)}},
    ),
    "row counter": Cell(
        (Slot("count", ("1",)),),
        {"count": "{count} + 1"},
        "{z} * torch.cos(0.25 * {count})",
        _counter,
        special={"count": {"augmented": ("{count} += 1",)}},
    ),
    "difference": Cell(
        (Slot("last"),),
        {"last": "{z}"},
        "{z} - 0.5 * {last}",
        _difference,
        early=True,
    ),
    "peak": Cell(
        (Slot("peak"),),
        {"peak": "torch.maximum(0.875 * {peak}, {z})"},
        "{z} - {peak}",
        _peak,
        special={"peak": {"augmented": ("{peak} *= 0.875", "{peak}.clamp_(min={z})")}},
    ),
    "power": Cell(
        (Slot("power"),),
        {"power": "0.75 * {power} + 0.25 * {z} * {z}"},
        "{z} * torch.rsqrt({power} + 0.5)",
        _power,
        special={"power": {"methods": ("{power}.mul_(0.75).addcmul_({z}, {z}, value=0.25)",)}},
    ),
    "memory": Cell(
        (Slot("matrix", ("H", "F")), Slot("norm", ("H",))),
        {
            "matrix": "0.75 * {matrix} + {p}k.unsqueeze(-1) * {p}v.unsqueeze(-2)",
            "norm": "0.75 * {norm} + {p}k",
        },
        "({p}q.unsqueeze(-2) @ {matrix}).squeeze(-2)"
        " / ({p}q * {norm}).sum(-1, keepdim=True).abs().clamp(min=1)",
        _memory,
        (
            "self.{p}key, self.{p}query = nn.Linear({F}, {H}), nn.Linear({F}, {H})",
            "self.{p}value = nn.Linear({F}, {F})",
        ),
        (
            "{p}k, {p}q = torch.tanh(self.{p}key({z})), torch.tanh(self.{p}query({z}))",
            "{p}v = torch.tanh(self.{p}value({z}))",
        ),
        special={
            "matrix": {"methods": ("{matrix}.mul_(0.75).add_({p}k.unsqueeze(-1) * {p}v.unsqueeze(-2))",)},
            "norm": {"augmented": ("{norm} *= 0.75", "{norm} += {p}k")},
        },
    ),
    "welford": Cell(
        (Slot("seen", (), rows=False), Slot("mean")),
        {"seen": "{seen} + 1", "mean": "{mean} + ({z} - {mean}) / {seen}"},
        "{z} - {mean}",
        _welford,
        special={
            "seen": {"augmented": ("{seen} += 1",)},
            "mean": {"augmented": ("{mean} += ({z} - {mean}) / {seen}",)},
        },
    ),
    "spikes": Cell(
        (Slot("charge"),),
        {"charge": "{p}full - {p}fired"},
        "{z} + {p}fired",
        _spikes,
        before=(
            "{p}full = {charge} + torch.floor(4 * {x}.clamp(-1, 2)) / 4",
            "{p}fired = ({p}full >= 1).to({x}.dtype)",
        ),
    ),
    "hold": Cell(
        (Slot("tripped", dtype="bool"),),
        {"tripped": "{tripped} | ({x} > 1.5)"},
        "torch.where({tripped}, 0.5 * {z}, {z})",
        _hold,
        special={
            "tripped": {
                "augmented": ("{tripped} |= {x} > 1.5",),
                "methods": ("{tripped}.logical_or_({x} > 1.5)",),
            }
        },
    ),
    "delay": Cell(
        (Slot("line", ("F", "K")),),
        {"line": "torch.cat([{z}.unsqueeze(-1), {line}[..., :-1]], -1)"},
        "({line} * self.{p}taps).sum(-1)",
        _delay,
        TAPS,
        special={
            "line": {
                "roll and write": ("{line}.copy_({line}.roll(1, -1))", "{line}[..., 0] = {z}"),
                "replaced by roll": ("{line} = {line}.roll(1, -1)", "{line}[..., 0] = {z}"),
            }
        },
    ),
    "biquad": Cell(
        (Slot("one"), Slot("two")),
        {"one": "0.25 * {z} + 0.5 * {p}out + {two}", "two": "0.125 * {z} - 0.25 * {p}out"},
        "{p}out",
        _biquad,
        before=("{p}out = 0.5 * {z} + {one}",),
    ),
}
