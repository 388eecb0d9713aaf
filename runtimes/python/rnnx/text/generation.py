"""Text from a model over symbols, symbol by symbol, the same for the same seed in every language."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rnnx.arguments import instance, number
from rnnx.errors import InputError, UsageError
from rnnx.formats.snapshot import Sampling
from rnnx.model.contract import Vocabulary
from rnnx.model.shapes import Array, chunk_shape, to_steps
from rnnx.session import Session
from rnnx.text.sampling import Sampler
from rnnx.text.vocabulary import encode


class TextStream:
    """Text being made: a stream of batch 1, a sampler, and the scores that the next symbol is drawn from.

    Args:
        session: a model with a vocabulary.
        seed: 0..2^64-1.
        temperature: 0 for the best symbol each time, 1 for the model's own probabilities.

    Raises:
        UsageError: `not-symbols` for a model without vocabulary, `seed-invalid`, `temperature-invalid`.
    """

    def __init__(self, session: Session, *, seed: int = 0, temperature: float = 1.0) -> None:
        self.vocabulary = vocabulary_of(session)
        self.sampler = Sampler(seed, temperature)
        self._stream = session.stream()
        self._scores: Array | None = None  # of the latest step; nothing is drawn from them yet

    def read(self, text: str) -> None:
        """Run `text` through the model; its symbols draw no number.

        Raises:
            InputError: `character-outside-vocabulary`; nothing was run.
        """
        ids = encode(self.vocabulary.symbols, instance("the prompt", text, str, "text"), what="prompt")
        if not len(ids):
            return
        contract = self._stream.session.contract
        input_spec = next(spec for spec in contract.inputs if spec.name == self.vocabulary.input)
        output_spec = next(spec for spec in contract.outputs if spec.name == self.vocabulary.output)
        shape = chunk_shape(contract, input_spec)
        chunk = ids.astype(input_spec.dtype).reshape([len(ids) if size == "time" else 1 for size in shape])
        before = self._stream._now
        try:
            results = self._stream.run({input_spec.name: chunk})
            steps = to_steps(results[output_spec.name], chunk_shape(contract, output_spec))
            self._scores = steps[-1].reshape(-1)
        except BaseException:
            self._stream._now = before  # what a call begins with stays in the other buffers
            raise

    def write(self, length: int) -> Iterator[str]:
        """Yield `length` symbols that continue what was read and written so far.

        Raises:
            InputError: `prompt-empty` if nothing was read yet.
            UsageError: `length-invalid`.
        """
        length = number(length, "a length of 0 or more", code="length-invalid")
        if self._scores is None and length:
            raise InputError(
                "prompt-empty",
                expected="a prompt of at least one character",
                found="none",
                fix="give the characters the text should begin with",
            )
        return (self._write_one() for _ in range(length))

    def snapshot(self) -> bytes:
        """Return all that is needed to continue exactly here, sampling included."""
        if self._scores is None:
            return self._stream.snapshot()
        sampling = Sampling(
            generator=np.array([self.sampler.state], np.uint64),
            temperature=np.array([self.sampler.temperature]),
            scores=self._scores.reshape(1, -1),
        )
        return self._stream.snapshot(sampling=sampling)

    def restore(self, data: bytes) -> None:
        """Continue where a snapshot was made, with its generator and temperature if it has them.

        Raises:
            FileError: as `Stream.restore`.
        """
        sampling = self._stream.restore(data)
        self._scores = None
        if sampling is not None:
            self.sampler = Sampler(int(sampling.generator[0]), float(sampling.temperature[0]))
            self._scores = sampling.scores[0]

    def _write_one(self) -> str:
        assert self._scores is not None
        before, drawn_before = self._stream._now, self.sampler.state
        try:
            drawn = self.sampler.sample(self._scores)
            # Run before it is given out, so that the scores always belong to the latest symbol given.
            results = self._stream.step({self.vocabulary.input: self._token(drawn)})
            self._scores = results[self.vocabulary.output].reshape(-1)
        except BaseException:
            self._stream._now = before  # what a call begins with stays in the other buffers
            self.sampler.state = drawn_before
            raise
        return self.vocabulary.symbols[drawn]

    def _token(self, drawn: int) -> Array:
        contract = self._stream.session.contract
        input_spec = next(spec for spec in contract.inputs if spec.name == self.vocabulary.input)
        rank = sum(size != "time" for size in input_spec.shape)
        return np.full((1,) * rank, drawn, input_spec.dtype)


def vocabulary_of(session: Session) -> Vocabulary:
    """Return the vocabulary of a model over symbols.

    Raises:
        UsageError: `not-symbols` if it has none.
    """
    instance("session", session, Session, "what rnnx.load returns")
    if session.contract.vocabulary is None:
        raise UsageError(
            "not-symbols",
            expected="a model with a vocabulary, to make text with",
            found="one without, which takes arrays",
            fix="give it arrays: 'rnnx run MODEL --input x.npy --output y.npy'",
        )
    return session.contract.vocabulary


def generate(
    session: Session, prompt: str, length: int, *, temperature: float = 1.0, seed: int = 0
) -> Iterator[str]:
    """Yield `length` symbols that continue `prompt`, which itself is not yielded.

    Args:
        session: a model with a vocabulary.
        prompt: at least one character; it draws no random number.
        length: how many symbols to make.
        temperature: 0 for the best symbol each time, 1 for the model's own probabilities.
        seed: 0..2^64-1; the same seed gives the same text in every language.

    Raises:
        InputError: `prompt-empty` or `character-outside-vocabulary`.
        UsageError: `not-symbols`, `length-invalid`, `seed-invalid` or `temperature-invalid`.
    """
    text = TextStream(session, seed=seed, temperature=temperature)
    text.read(prompt)
    return text.write(length)
