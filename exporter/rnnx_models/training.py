"""Training a character network: truncated back-propagation through time, best checkpoint kept.

Werbos (1990) and Williams and Peng (1990): each batch is back-propagated through alone, while the state at
its end, cut off from the gradient, is the state that the next batch begins with. AdamW (Loshchilov and
Hutter 2019) with a cosine decay of the learning rate, gradients clipped to a norm (Pascanu et al. 2013).
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rnnx
from rnnx.errors import UsageError
from rnnx.files import check_output
from rnnx_models.batches import Batches
from rnnx_models.checkpoint import TrainingRecord, load_checkpoint, save_checkpoint
from rnnx_models.evaluation import nats_per_character
from rnnx_models.networks import CharNetwork, NetworkConfig, cross_entropy
from rnnx_models.run_state import History, RunState, load_run, resume_path, save_run
from rnnx_models.text import Corpus

VALIDATIONS = 20
FIRST_VALIDATION_STEP = 50
VALIDATION_CHARACTERS = 65_536
CURVE_STEPS = 10


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        steps: batches to learn from. Exactly one of `steps` and `minutes` is set.
        minutes: time to learn for, validation included.
        batch_size: rows of text read side by side.
        sequence_length: time steps that are back-propagated through.
        learning_rate: at the beginning; decays to 0 along a half cosine.
        clip_norm: the norm that gradients are clipped to.
        seed: of weights and dropout, 0..2^64-1. The same seed gives the same weights on the same CPU,
            number of threads and version of PyTorch, if `steps` is what ends the run.

    Raises:
        UsageError: `training-options-invalid`, naming the field.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 32
    sequence_length: int = 48
    learning_rate: float = 5e-3
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise _invalid("either steps or minutes", "both" if self.steps is not None else "neither")
        for field in ("steps", "batch_size", "sequence_length"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise _invalid(f"{field} of 1 or more", str(value))
        for field in ("minutes", "learning_rate", "clip_norm"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise _invalid(f"{field} above 0", str(value))
        if not 0 <= self.seed < 1 << 64:
            raise _invalid("seed in 0..18446744073709551615", str(self.seed))


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: steps taken.
        share: how much is done, 0..1.
        loss: of the last batch, in nats a character.
        validation_nats: of the last validation; None before the first.
        best_nats: the lowest so far; infinite before the first.
        characters_per_second: speed since this part of the run began.
        seconds_left: what remains at that speed.
    """

    step: int
    share: float
    loss: float
    validation_nats: float | None
    best_nats: float
    characters_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave.

    Attributes:
        checkpoint: the file with the best weights; None, as are the figures on them, if the run was
            interrupted before it kept any.
        resume: the file with the run itself.
        steps: steps taken, over all parts of the run.
        best_step: the step of the best weights.
        validation_nats: loss of the best weights on the part of the held-out text used while training.
        held_out_nats: their loss on all of the held-out text, in nats a character.
        history: the loss curve.
        interrupted: whether Ctrl-C ended it.
    """

    checkpoint: Path | None
    resume: Path
    steps: int
    best_step: int | None
    validation_nats: float | None
    held_out_nats: float | None
    history: History
    interrupted: bool


def train(
    corpus: Corpus,
    config: NetworkConfig,
    options: TrainingOptions,
    output: Path,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train a network and keep its best weights at `output`.

    The checkpoint is written at the first validation, early, and whenever a later one is better; the run
    itself at each validation (see `run_state`). Ctrl-C ends the run after the current step: the best weights
    so far are kept, and the run can be resumed. If nothing was validated yet, the current weights are kept,
    unless an older checkpoint lies at `output`: that one stays. torch's global generator is left as it was.

    Args:
        corpus: the text.
        config: the network; its `vocabulary_size` is that of the corpus.
        options: how to train.
        output: the checkpoint to write.
        resume: go on with the run beside `output`: it ends as it would have without the stop.
        progress: called after each step.

    Raises:
        UsageError: `text-too-short`, `network-invalid`, `resume-differs`, or `training-diverged` when the
            loss is no longer finite.
        FileError: see `rnnx.files.writing`; with `resume` also `file-missing` and `resume-damaged`.
    """
    output = check_output(output)
    check_output(resume_path(output))
    if config.vocabulary_size != len(corpus.symbols):
        raise UsageError(
            "network-invalid",
            expected=f"vocabulary_size {len(corpus.symbols)}, as the text has",
            found=str(config.vocabulary_size),
            fix="make the configuration from the corpus",
        )
    with torch.random.fork_rng(devices=[]), _ctrl_c() as stop:
        torch.default_generator.manual_seed(options.seed)
        return _Training(corpus, config, options, output, resume, progress or (lambda _: None), stop).all()


class _Training:
    """One part of a run, from its beginning or where it was resumed, to its end or a Ctrl-C."""

    def __init__(
        self,
        corpus: Corpus,
        config: NetworkConfig,
        options: TrainingOptions,
        output: Path,
        resume: bool,
        progress: Callable[[Progress], None],
        stop: threading.Event,
    ) -> None:
        self.corpus, self.options, self.output, self.progress = corpus, options, output, progress
        self.stop = stop
        self.batches = Batches(corpus.training, options.batch_size, options.sequence_length)
        network = CharNetwork(config)
        optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
        self.run = RunState(network, optimizer, network.initial_state(options.batch_size))
        self.settings = _settings(corpus, config, options)
        if resume:
            load_run(resume_path(output), self.run, self.settings)
            if not output.exists():
                self.run.best_nats = math.inf
        self.began = time.monotonic() - self.run.elapsed_seconds
        self.steps_before, self.seconds_before = self.run.step, self.run.elapsed_seconds
        self.kept = math.isfinite(self.run.best_nats)
        self.next_validation_share = self.share() + 1 / VALIDATIONS

    def all(self) -> TrainingResult:
        run = self.run
        while self.share() < 1 and not self.stop.is_set():
            loss = self.one_step()
            run.elapsed_seconds = time.monotonic() - self.began
            if self.validation_due():
                self.validate()
            self.progress(self.report(loss))
        if math.isinf(run.best_nats) and not self.stop.is_set():
            self.validate()  # a finished run was resumed whose checkpoint is gone
        elif math.isinf(run.best_nats) and not self.output.exists():
            # Not recorded as the run's best: a resumed run must end as one that was never stopped.
            self.keep(self.judge())
        save_run(resume_path(self.output), run, self.settings)
        return self.result()

    def share(self) -> float:
        """Return how much of the run is done, 0..1."""
        if self.options.steps is not None:
            return min(self.run.step / self.options.steps, 1.0)
        assert self.options.minutes is not None
        return min(self.run.elapsed_seconds / (self.options.minutes * 60), 1.0)

    def one_step(self) -> float:
        """Learn from one batch; return its loss in nats a character."""
        run, number = self.run, self.run.step
        token, target = self.batches.at(number)  # int64 [batch, time]
        if not run.network.config.batch_first:
            token, target = token.T, target.T
        if self.batches.begins_anew(number):
            run.states = run.network.initial_state(self.options.batch_size)
        for group in run.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * self.share()))
        logits, states = run.network(token, run.states)
        loss = cross_entropy(logits, target)
        run.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(run.network.parameters(), self.options.clip_norm)
        self.finite(loss.item())
        run.optimizer.step()
        run.states = {name: state.detach() for name, state in states.items()}
        run.step += 1
        self.remember(loss.item())
        return loss.item()

    def remember(self, loss: float) -> None:
        run = self.run
        run.recent.append(loss)
        if len(run.recent) == CURVE_STEPS:
            run.history.steps.append(run.step)
            run.history.losses.append(math.fsum(run.recent) / len(run.recent))
            run.recent = []

    def validation_due(self) -> bool:
        if self.run.step == FIRST_VALIDATION_STEP or self.share() >= 1:
            return True
        if self.options.steps is not None:
            # By step number, so that a resumed run validates when an uninterrupted one would.
            return self.run.step % max(1, self.options.steps // VALIDATIONS) == 0
        due = self.share() >= self.next_validation_share
        while self.share() >= self.next_validation_share:
            self.next_validation_share += 1 / VALIDATIONS
        return due

    def validate(self) -> None:
        run = self.run
        nats = self.judge()
        run.history.validation_steps.append(run.step)
        run.history.validation_losses.append(nats)
        if nats < run.best_nats:
            run.best_nats = nats
            self.keep(nats)
        run.elapsed_seconds = time.monotonic() - self.began
        save_run(resume_path(self.output), run, self.settings)

    def judge(self) -> float:
        nats = nats_per_character(self.run.network, self.corpus.held_out, limit=VALIDATION_CHARACTERS)
        return self.finite(nats)

    def finite(self, nats: float) -> float:
        if not math.isfinite(nats):
            raise UsageError(
                "training-diverged",
                expected="a finite loss",
                found=f"{nats} at step {self.run.step}",
                fix="lower --learning-rate, or use --nonlinearity tanh"
                + ("; the best weights so far are kept" if self.kept else ""),
            )
        return nats

    def keep(self, nats: float) -> None:
        record = TrainingRecord(
            self.run.step, nats, self.options.seed, str(torch.__version__), rnnx.__version__
        )
        save_checkpoint(self.output, self.run.network, self.corpus.symbols, record)
        self.kept = True

    def report(self, loss: float) -> Progress:
        run = self.run
        seconds = max(run.elapsed_seconds - self.seconds_before, 1e-9)
        steps_per_second = (run.step - self.steps_before) / seconds
        if self.options.steps is not None:
            left = (self.options.steps - run.step) / steps_per_second
        else:
            assert self.options.minutes is not None
            left = self.options.minutes * 60 - run.elapsed_seconds
        losses = run.history.validation_losses
        return Progress(
            step=run.step,
            share=self.share(),
            loss=loss,
            validation_nats=losses[-1] if losses else None,
            best_nats=run.best_nats,
            characters_per_second=steps_per_second * self.options.batch_size * self.options.sequence_length,
            seconds_left=max(left, 0.0),
        )

    def result(self) -> TrainingResult:
        best = load_checkpoint(self.output) if self.kept else None
        record = best.record if best else None
        return TrainingResult(
            checkpoint=self.output if best else None,
            resume=resume_path(self.output),
            steps=self.run.step,
            best_step=record.steps if record else None,
            validation_nats=record.validation_nats if record else None,
            held_out_nats=nats_per_character(best.module, self.corpus.held_out) if best else None,
            history=self.run.history,
            interrupted=self.stop.is_set(),
        )


def _settings(corpus: Corpus, config: NetworkConfig, options: TrainingOptions) -> dict[str, Any]:
    ends = ("steps", "minutes")
    return {
        **asdict(config),
        **{name: value for name, value in asdict(options).items() if name not in ends},
        "text": corpus.digest(),
    }


@contextlib.contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets, so that no step is cut in half; a second Ctrl-C ends at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _invalid(expected: str, found: str) -> UsageError:
    return UsageError(
        "training-options-invalid", expected=expected, found=found, fix="see 'rnnx train --help'"
    )
