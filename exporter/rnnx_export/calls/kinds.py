"""Kinds of recorded calls: what each carries, and under which names."""

from __future__ import annotations

RANDOM = (
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli",
    "multinomial", "poisson", "normal_", "uniform_", "bernoulli_", "exponential_", "random_", "dropout",
    "alpha_dropout", "feature_dropout", "gumbel_softmax", "rrelu",
)  # fmt: skip


RUNNING = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")


LOOKS_EVERYWHERE: dict[str, str] = {
    "bidirectional": "a bidirectional layer",
    "mean": "a mean over time",
    "sum": "a sum over time",
    "amax": "a maximum over time",
    "max": "a maximum over time",
    "min": "a minimum over time",
    "std": "a deviation over time",
    "var": "a variance over time",
    "softmax": "a softmax over time",
    "flip": "a reversal of time",
    "adaptive_avg_pool1d": "a mean over time",
    "adaptive_max_pool1d": "a maximum over time",
    "scaled_dot_product_attention": "attention over all steps of a call",
}


RECURRENT: dict[str, tuple[str, ...]] = {
    "lstm": ("h", "c"),
    "lstm_cell": ("h", "c"),
    **dict.fromkeys(("gru", "rnn_tanh", "rnn_relu", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), ("h",)),
}


# Which step it is. Within a call that may also be meant (a mask by length), so a fallback rule lifts them.
POSITIONS = ("arange", "first")


# Cuts and fills along time, which may also be meant within a call: see `shifts`.
SHIFTS = ("later", "earlier", "roll", "front", "repeat")


PASTS = ("pad", "cat", "conv", "pool", "conv_transpose", "fold", "mirror", "earlier", "roll", "repeat")


SLOTS: dict[str, tuple[str, ...]] = {
    **RECURRENT,
    **dict.fromkeys((*POSITIONS, "front"), ("position",)),
    **dict.fromkeys(PASTS, ("past",)),
    "later": (),
    "repeat": ("past", "position"),
    "cumsum": ("sum",),
    "cumprod": ("product",),
    "cummax": ("max",),
    "cummin": ("min",),
    "logcumsumexp": ("logsumexp",),
}
