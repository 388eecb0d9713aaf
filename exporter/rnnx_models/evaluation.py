"""How well a network predicts a text it has not seen."""

from __future__ import annotations

import math

import torch

from rnnx.text.vocabulary import IdArray
from rnnx_models.networks import CharNetwork, cross_entropy

_STEPS_AT_ONCE = 64


@torch.no_grad()
def nats_per_character(
    network: CharNetwork, ids: IdArray, *, rows: int = 64, limit: int | None = None
) -> float:
    """Return the mean of -log P(character | those before it), in nats, in evaluation mode.

    The text is read as `rows` pieces side by side, spread evenly, each of 256 characters at least (fewer
    rows in a short text) and each from a zero state: a slight handicap, never an advantage.

    Args:
        network: the network; its mode is left as it was.
        ids: the text, int64 [characters], at least two.
        rows: pieces read side by side.
        limit: how many characters to judge at most, spread over the whole text; None for all.
    """
    rows = max(1, min(rows, (len(ids) - 1) // 256))
    columns = (len(ids) - 1) // rows
    text = torch.from_numpy(ids)
    token = text[: rows * columns].reshape(rows, columns)  # int64 [batch, time]
    target = text[1 : rows * columns + 1].reshape(rows, columns)  # int64 [batch, time]
    if limit is not None:
        columns = min(columns, max(1, limit // rows))
    was_training = network.training
    network.eval()
    try:
        return _mean_loss(network, token[:, :columns], target[:, :columns])
    finally:
        network.train(was_training)


def _mean_loss(network: CharNetwork, token: torch.Tensor, target: torch.Tensor) -> float:
    state = None
    losses = []
    for start in range(0, token.shape[1], _STEPS_AT_ONCE):
        here, there = (tensor[:, start : start + _STEPS_AT_ONCE] for tensor in (token, target))
        if not network.config.batch_first:
            here, there = here.T, there.T
        logits, state = network(here, state)  # [batch, time, symbols]
        losses.append(cross_entropy(logits, there).item() * here.numel())
    return math.fsum(losses) / token.numel()
