"""A text as batches for truncated back-propagation: rows that go on where the last batch stopped."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnx.text.vocabulary import IdArray
from rnnx_models.text import too_short


class Batches:
    """The text cut into `batch_size` equal rows that are read side by side.

    Batch number n covers the columns after those of batch n-1, so that the state at the end of a batch is
    the state that the next one begins with. After the last column reading begins again at the first.

    Args:
        ids: the text, int64 [characters].
        batch_size: rows.
        sequence_length: time steps of one batch.

    Raises:
        UsageError: `text-too-short` if the rows are shorter than one sequence.
    """

    def __init__(self, ids: IdArray, batch_size: int, sequence_length: int) -> None:
        needed = batch_size * sequence_length + 1
        if len(ids) < needed:
            raise too_short(needed, len(ids))
        columns = (len(ids) - 1) // batch_size
        text = torch.from_numpy(ids)
        self.sequence_length = sequence_length
        self.per_pass = columns // sequence_length
        self._token = text[: batch_size * columns].reshape(batch_size, columns)
        self._target = text[1 : batch_size * columns + 1].reshape(batch_size, columns)

    def at(self, number: int) -> tuple[Tensor, Tensor]:
        """Return batch `number`: tokens and the tokens that follow them, each int64 [batch, time]."""
        start = number % self.per_pass * self.sequence_length
        columns = slice(start, start + self.sequence_length)
        return self._token[:, columns], self._target[:, columns]

    def begins_anew(self, number: int) -> bool:
        """Whether batch `number` stands at the beginning of the rows, where the state is zero."""
        return number % self.per_pass == 0
