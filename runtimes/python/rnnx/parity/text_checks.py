"""Models over symbols beside their reference: the text they sample, and how well they predict a given one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rnnx.model.contract import Contract
from rnnx.model.shapes import Array
from rnnx.parity.invariants import Check
from rnnx.parity.reference import Reference
from rnnx.session import Session
from rnnx.text.generation import vocabulary_of
from rnnx.text.sampling import Sampler
from rnnx.text.vocabulary import encode
from rnnx.tolerance import level_of

LENGTH = 500
# A draw nearer than this to the next symbol may fall to either side: logits differ by rounding.
NEAR = 1e-4


class _Ids:
    """Ids one behind the other as rows [step, ...] of batch 1, the latest put in while they are read."""

    def __init__(self, contract: Contract, steps: int) -> None:
        vocabulary = contract.vocabulary
        assert vocabulary is not None
        spec = next(spec for spec in contract.inputs if spec.name == vocabulary.input)
        self._shape = [1 for size in spec.shape if size != "time"]
        self._dtype, self._steps = np.dtype(spec.dtype), steps
        self.latest = 0

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Array:
        return np.full(self._shape, self.latest, self._dtype)


def check_text(session: Session, reference: Reference, text: str | None, *, seed: int = 0) -> list[Check]:
    """Compare the text that both sample, and what a symbol of held-out text costs them.

    Args:
        session: a model over symbols.
        reference: the network.
        text: held-out text; characters that the vocabulary lacks are left out. None for no such check.
        seed: of the draws, which are the same for both.

    Returns:
        `sampled text`: both draw the same symbols, or differ first where a draw lies so close to the
        boundary between two symbols that rounding decides. `held-out text`: nats a character of both; they
        may differ by the drift tolerance.
    """
    checks = [_sampled(session, reference, seed)]
    if text is not None:
        checks.append(_held_out(session, reference, text))
    return checks


def _sampled(session: Session, reference: Reference, seed: int) -> Check:
    contract, vocabulary = session.contract, vocabulary_of(session)
    ours, theirs = Sampler(seed), Sampler(seed)
    stream = session.stream()
    ids = _Ids(contract, LENGTH)
    start = reference.start({"batch": 1})
    for count, (outputs, _) in enumerate(reference.steps({vocabulary.input: ids}, start)):
        got = stream.step({vocabulary.input: ids[count]})[vocabulary.output].reshape(-1)
        expected = np.asarray(outputs[vocabulary.output]).reshape(-1)
        room = _room(theirs, expected)
        drawn, wanted = ours.sample(got), theirs.sample(expected)
        if drawn != wanted:
            said = f"{count} of {LENGTH} symbols agree; then {vocabulary.symbols[wanted]!r} is expected, got "
            said += f"{vocabulary.symbols[drawn]!r}, the draw {room:.1e} from a boundary"
            return Check("sampled text", room < NEAR, said)
        ids.latest = wanted
    return Check("sampled text", True, f"{LENGTH} of {LENGTH} symbols agree")


def _room(sampler: Sampler, scores: Array) -> float:
    """Return how far the next draw is from the nearest boundary between symbols, in probability."""
    ahead = Sampler(sampler.state)
    values = np.asarray(scores, np.float64)
    weights = np.exp(values - values.max())
    running = np.add.accumulate(weights) / weights.sum()
    return float(np.abs(running - ahead.uniform()).min())


def _held_out(session: Session, reference: Reference, text: str) -> Check:
    contract, vocabulary = session.contract, vocabulary_of(session)
    known = set(vocabulary.symbols)
    kept = "".join(symbol for symbol in text if symbol in known)
    if len(kept) < 2:
        return Check("held-out text", None, "no two characters of it are in the vocabulary")
    tokens = encode(vocabulary.symbols, kept, what="text")
    ids = _Ids(contract, len(tokens) - 1)
    stream, total = session.stream(), np.zeros(2)
    for step, outputs in enumerate(_outputs_after(reference, vocabulary.input, ids, tokens)):
        scores = stream.step({vocabulary.input: ids[step]})[vocabulary.output]
        pair = (scores, outputs[vocabulary.output])
        total += [_nats(np.asarray(each).reshape(-1), tokens[step + 1]) for each in pair]
    ours, theirs = (total / (len(tokens) - 1)).tolist()
    spec = next(spec for spec in contract.outputs if spec.name == vocabulary.output)
    bound = level_of(spec.dtype, session.provider).drift.absolute
    said = f"{ours:.6f} nats a character, the reference {theirs:.6f}: {ours - theirs:+.1e} over "
    return Check(
        "held-out text",
        abs(ours - theirs) <= bound,
        f"{said}{len(tokens) - 1:,} characters",
        abs(ours - theirs),
    )


def _outputs_after(reference: Reference, name: str, ids: _Ids, tokens: Array) -> Iterator[Any]:
    """Yield the reference's outputs after each token."""
    ids.latest = int(tokens[0])
    for step, (outputs, _) in enumerate(reference.steps({name: ids}, reference.start({"batch": 1}))):
        yield outputs
        ids.latest = int(tokens[step + 1])


def _nats(scores: Array, token: int) -> float:
    values = scores.astype(np.float64)
    highest = values.max()
    return float(highest + np.log(np.exp(values - highest).sum()) - values[token])
