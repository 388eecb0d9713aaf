"""Cells that take a whole chunk: layers, causal convolutions, running sums: as in `cells`.

Here `{z}` is a chunk, `{t}` its axis of time, `{q}` the index in front of it, and `{rnn}` the arguments of a
layer. Each either keeps its state itself, or (`implied`) keeps nothing and means the state that its padding
or start stands for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from generator.cells import CELLS, READ, TAPS, Array, Cell, Slot, Values, gru, inside, linear, lstm


def _rnn(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    w_rnn = inside(w, "rnn")
    given = z @ w_rnn["weight_ih_l0"].T + w_rnn["bias_ih_l0"]
    h = np.tanh(given + s["h"] @ w_rnn["weight_hh_l0"].T + w_rnn["bias_hh_l0"])
    return linear(w, "out", h), {"h": h}


def _gru(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    h = gru(inside(w, "rnn"), z, s["h"], "_l0")
    return linear(w, "out", h), {"h": h}


def _lstm(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    h, c = lstm(inside(w, "rnn"), z, s["h"], s["c"], "_l0")
    return linear(w, "out", h), {"h": h, "c": c}


def _conv(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    frames = np.concatenate([s["frames"], z[:, None]], 1)
    return np.einsum("bkf,ofk->bo", frames, w["conv.weight"]) + w["conv.bias"], {"frames": frames[:, 1:]}


def _sum(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    total = s["total"] + z
    return np.tanh(0.25 * total), {"total": total}


def _top(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    top = np.maximum(s["top"], z)
    return z - top, {"top": top}


def _shift(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    return 0.75 * z + 0.25 * s["last"], {"last": z}


def _positions(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    count = s["count"] + 1
    return z * np.cos(0.25 * count), {"count": count}


def _taps(w: Any, z: Array, x: Array, s: Values) -> tuple[Array, Values]:
    frames = np.concatenate([s["past"], z[:, None]], 1)
    return np.einsum("bkf,k->bf", frames, w["taps"]), {"past": frames[:, 1:]}


_H = Slot("h", ("H",), lead=1)
CHUNK_CELLS: dict[str, Cell] = {
    "nn.GRU": Cell(
        (_H,),
        {"h": "{h}_new"},
        "self.{p}out({o})",
        _gru,
        ("self.{p}rnn = nn.GRU({F}, {H}{rnn})", *READ),
        ("{o}, {h}_new = self.{p}rnn({z}, {h})",),
        implied=("{o} = self.{p}out(self.{p}rnn({z})[0])",),
    ),
    "nn.LSTM": Cell(
        (_H, Slot("c", ("H",), lead=1)),
        {"h": "{h}_new", "c": "{c}_new"},
        "self.{p}out({o})",
        _lstm,
        ("self.{p}rnn = nn.LSTM({F}, {H}{rnn})", *READ),
        ("{o}, ({h}_new, {c}_new) = self.{p}rnn({z}, ({h}, {c}))",),
        implied=("{o}, _ = self.{p}rnn({z})", "{o} = self.{p}out({o})"),
    ),
    "nn.RNN": Cell(
        (_H,),
        {"h": "{h}_new"},
        "self.{p}out({o})",
        _rnn,
        ("self.{p}rnn = nn.RNN({F}, {H}{rnn})", *READ),
        ("{o}, {h}_new = self.{p}rnn({z}, {h})",),
        implied=("{o} = self.{p}out(self.{p}rnn({z})[0])",),
    ),
    "conv": Cell(
        (Slot("frames", ("K-1", "F")),),
        {"frames": "{p}seen[{q}-{K1}:]"},
        "self.{p}conv({p}seen.transpose(-1, -2)).transpose(-1, -2)",
        _conv,
        ("self.{p}conv = nn.Conv1d({F}, {F}, {K})",),
        ("{p}seen = torch.cat([{frames}, {z}], {t})",),
        implied=(
            "{p}seen = nn.functional.pad({z}.transpose(-1, -2), ({K1}, 0))",
            "{o} = self.{p}conv({p}seen).transpose(-1, -2)",
        ),
    ),
    "cumsum": Cell(
        (Slot("total"),),
        {"total": "{p}sums[{q}-1]"},
        "torch.tanh(0.25 * {p}sums)",
        _sum,
        before=("{p}sums = {total}.unsqueeze({t}) + torch.cumsum({z}, {t})",),
        special={"total": {"augmented": ("{total} += {z}.sum({t})",)}},
        implied=("{o} = torch.tanh(0.25 * torch.cumsum({z}, {t}))",),
    ),
    "cummax": Cell(
        (Slot("top", start=float("-inf")),),
        {"top": "{p}tops[{q}-1]"},
        "{z} - {p}tops",
        _top,
        before=("{p}tops = torch.maximum({top}.unsqueeze({t}), torch.cummax({z}, {t}).values)",),
        implied=("{o} = {z} - torch.cummax({z}, {t}).values",),
    ),
    "shift": Cell(
        (Slot("last"),),
        {"last": "{z}[{q}-1]"},
        "0.75 * {z} + 0.25 * {p}before",
        _shift,
        before=("{p}before = torch.cat([{last}.unsqueeze({t}), {z}[{q}:-1]], {t})",),
        implied=(
            "{p}zeros = torch.zeros_like({z}[{q}:1])",
            "{o} = 0.75 * {z} + 0.25 * torch.cat([{p}zeros, {z}[{q}:-1]], {t})",
        ),
    ),
    "positions": Cell(
        (Slot("count", (), "int64", rows=False),),
        {"count": "{count} + {z}.shape[{t}]"},
        "{z} * torch.cos(0.25 * {p}steps)[{deep}]",
        _positions,
        before=("{p}steps = {count} + 1 + torch.arange({z}.shape[{t}])",),
        special={"count": {"augmented": ("{count} += {z}.shape[{t}]",)}},
    ),
    "taps": Cell(
        (Slot("past", ("K-1", "F")),),
        {"past": "{p}seen[{q}-{K1}:]"},
        "torch.stack([{p}seen[{q}i : i + {z}.shape[{t}]] * self.{p}taps[i] for i in range({K})]).sum(0)",
        _taps,
        TAPS,
        ("{p}seen = torch.cat([{past}, {z}], {t})",),
    ),
}


ALL_CELLS = CELLS | CHUNK_CELLS
