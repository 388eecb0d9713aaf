"""Text from a character network in PyTorch, character by character, as the exported model gives it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rnnx.errors import InputError
from rnnx.text.sampling import Sampler
from rnnx.text.vocabulary import encode
from rnnx_models.networks import CharNetwork


def generate(
    network: CharNetwork,
    symbols: Sequence[str],
    prompt: str,
    length: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Yield `length` characters that continue `prompt`, which itself is not yielded.

    Args:
        network: the network, in evaluation mode.
        symbols: its vocabulary.
        prompt: at least one character; it draws no random number.
        length: how many characters to make.
        temperature: 0 for the best character each time, 1 for the network's own probabilities.
        seed: 0..2^64-1. The same seed gives the same text as the exported model.

    Raises:
        InputError: `prompt-empty` or `character-outside-vocabulary`.
        UsageError: `seed-invalid` or `temperature-invalid`.
    """
    sampler = Sampler(seed, temperature)
    if not prompt:
        raise InputError(
            "prompt-empty",
            expected="a prompt of at least one character",
            found="none",
            fix="give the characters the text should begin with",
        )
    token = torch.from_numpy(encode(symbols, prompt, what="prompt"))[None, :]  # [batch 1, time]
    return _continue(network, symbols, token, length, sampler)


@torch.no_grad()
def _continue(
    network: CharNetwork, symbols: Sequence[str], token: torch.Tensor, length: int, sampler: Sampler
) -> Iterator[str]:
    state = None
    for _ in range(length):
        laid_out = token if network.config.batch_first else token.T
        logits, state = network(laid_out, state)  # [1, time, symbols], or [time, 1, symbols]
        drawn = sampler.sample(logits.reshape(-1, len(symbols))[-1].cpu().numpy())
        yield symbols[drawn]
        token = torch.tensor([[drawn]])
