"""Training: it learns, repeats itself, goes on where it stopped, and keeps the best."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from rnnx.errors import FileError, ModelError, UsageError
from rnnx_models.checkpoint import load_checkpoint
from rnnx_models.evaluation import nats_per_character
from rnnx_models.loss_curve import loss_curve_path, save_loss_curve
from rnnx_models.networks import CharNetwork, NetworkConfig
from rnnx_models.run_state import History, resume_path
from rnnx_models.text import Corpus, read_corpus
from rnnx_models.training import Progress, TrainingOptions, TrainingResult, train

WORDS = ["def ", "return ", "self.", "for x in y:\n", "    ", "if not ", "else:\n", "print(x)\n"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_text("".join(random.Random(0).choices(WORDS, k=2000)))
    return read_corpus([path])


def run(
    corpus: Corpus,
    output: Path,
    *,
    steps: int | None = 60,
    cell: str = "lstm",
    dropout: float = 0.2,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> TrainingResult:
    config = NetworkConfig(cell, len(corpus.symbols), 16, num_layers=2, dropout=dropout)
    arguments = {"batch_size": 4, "sequence_length": 8, "learning_rate": 1e-2, **options}
    return train(
        corpus, config, TrainingOptions(steps=steps, **arguments), output, resume=resume, progress=progress
    )


def stop_at(step: int) -> Callable[[Progress], None]:
    """Press Ctrl-C after `step` steps."""

    def press(now: Progress) -> None:
        if now.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return press


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load(path.read_bytes()))


def assert_same_run(one: Path, other: Path) -> None:
    """Check that two runs have the same best and latest weights, optimizer, state and curve, bit for bit."""
    assert one.read_bytes() == other.read_bytes()
    latest, expected = weights_of(resume_path(one)), weights_of(resume_path(other))
    assert latest.keys() == expected.keys()
    assert [name for name in latest if not torch.equal(latest[name], expected[name])] == []
    documents = []
    for path in (one, other):
        data = resume_path(path).read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        document = json.loads(header["__metadata__"]["rnnx.resume"])
        assert document.pop("elapsed_seconds") > 0
        documents.append(document)
    assert documents[0] == documents[1]


def test_it_learns_and_says_how_far_it_is(corpus: Corpus, tmp_path: Path) -> None:
    seen: list[Progress] = []
    output = tmp_path / "poet.safetensors"
    result = run(corpus, output, steps=300, dropout=0.0, progress=seen.append)
    assert [now.step for now in seen] == list(range(1, 301))
    assert seen[-1].share == 1
    assert seen[-1].seconds_left == 0
    assert all(now.characters_per_second > 0 for now in seen)
    assert seen[0].loss > 2.5
    assert result.held_out_nats is not None
    assert result.held_out_nats < 1.2, "a state carried over 8 steps knows these words"
    best = load_checkpoint(output)
    assert best.record is not None
    assert best.record.steps == result.best_step
    assert best.record.validation_nats == result.validation_nats == min(result.history.validation_losses)
    assert nats_per_character(best.module, corpus.held_out) == result.held_out_nats
    assert result.history.steps[:3] == [10, 20, 30]
    assert not result.interrupted


def test_the_state_is_handed_from_batch_to_batch(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    run(corpus, output, steps=3)
    states = {name: tensor for name, tensor in weights_of(resume_path(output)).items() if "state." in name}
    assert sorted(states) == ["state.c", "state.h"]
    assert all(tensor.shape == (2, 4, 16) and tensor.abs().max() > 0 for tensor in states.values())


@pytest.mark.parametrize("cell", ["gates", "lstm"])
def test_the_same_seed_gives_the_same_run(corpus: Corpus, tmp_path: Path, cell: str) -> None:
    one, other, third = (tmp_path / f"{name}.safetensors" for name in ("one", "other", "third"))
    run(corpus, one, cell=cell)
    torch.manual_seed(99)  # whatever the caller's generator did
    before = torch.random.get_rng_state()
    run(corpus, other, cell=cell)
    assert torch.equal(torch.random.get_rng_state(), before), "and it is left alone"
    assert_same_run(one, other)
    run(corpus, third, cell=cell, seed=1)
    assert one.read_bytes() != third.read_bytes()


@pytest.mark.parametrize("stops", [[23], [7, 51, 59]], ids=str)
def test_a_resumed_run_equals_one_never_stopped(corpus: Corpus, tmp_path: Path, stops: list[int]) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    run(corpus, whole)
    for number, step in enumerate(stops):
        result = run(corpus, parts, resume=number > 0, progress=stop_at(step))
        assert result.interrupted
        assert result.steps == step
    result = run(corpus, parts, resume=True)
    assert not result.interrupted
    assert_same_run(whole, parts)


def test_a_finished_run_can_be_lengthened(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    run(corpus, output, steps=10)
    assert run(corpus, output, steps=10, resume=True).steps == 10
    assert run(corpus, output, steps=15, resume=True).steps == 15
    output.unlink()
    assert run(corpus, output, steps=15, resume=True).best_step == 15, "a lost checkpoint is made again"


def test_ctrl_c_keeps_the_best_so_far(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    seen: list[Progress] = []

    def progress(now: Progress) -> None:
        seen.append(now)
        stop_at(33)(now)

    result = run(corpus, output, progress=progress)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert result.interrupted
    assert result.steps == 33, "the step that was running is finished, no other begun"
    assert result.best_step is not None
    assert result.best_step <= 33
    record = load_checkpoint(output).record
    assert record is not None
    assert record.validation_nats == min(now.best_nats for now in seen)


def test_ctrl_c_before_the_first_validation_keeps_what_there_is(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    result = run(corpus, output, steps=2000, progress=stop_at(2))
    assert result.best_step == 2
    assert load_checkpoint(output).record is not None


def test_ctrl_c_before_the_first_validation_leaves_an_older_checkpoint(
    corpus: Corpus, tmp_path: Path
) -> None:
    output = tmp_path / "poet.safetensors"
    run(corpus, output, steps=5)
    before = output.read_bytes()
    result = run(corpus, output, steps=2000, seed=1, progress=stop_at(2))
    assert result.checkpoint is None
    assert output.read_bytes() == before


def test_a_second_ctrl_c_ends_at_once(corpus: Corpus, tmp_path: Path) -> None:
    def press_twice(now: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "poet.safetensors", progress=press_twice)


def test_training_in_another_thread(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    thread = threading.Thread(target=run, args=(corpus, output), kwargs={"steps": 2})
    thread.start()
    thread.join()
    assert output.exists()


def test_the_best_is_there_early_and_never_gets_worse(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "poet.safetensors"
    losses = iter([3.0, 2.0, 2.5, 2.2, 1.9])
    monkeypatch.setattr(
        "rnnx_models.training.nats_per_character",
        lambda network, ids, limit=None: 9.0 if limit is None else next(losses),
    )
    kept: list[tuple[int, float]] = []

    def progress(now: Progress) -> None:
        record = load_checkpoint(output).record if output.exists() else None
        if record is not None and (record.steps, record.validation_nats) not in kept:
            kept.append((record.steps, record.validation_nats))
            assert now.best_nats == record.validation_nats

    # 2000 steps are validated each 100 steps, and first, by the rule for early ones, after 50.
    run(corpus, output, steps=2000, progress=lambda now: stop_at(250)(now) or progress(now))
    assert kept == [(50, 3.0), (100, 2.0)]
    result = run(
        corpus, output, steps=2000, resume=True, progress=lambda now: stop_at(410)(now) or progress(now)
    )
    assert kept == [(50, 3.0), (100, 2.0), (400, 1.9)], "a resumed run knows what the best was"
    assert result.best_step == 400
    assert result.held_out_nats == 9.0


def test_the_learning_rate_decays_and_gradients_are_clipped(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, norms = [], []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW) -> Any:
        rates.append(self.param_groups[0]["lr"])
        gradients = [weight.grad for weight in self.param_groups[0]["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        return real(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run(corpus, tmp_path / "poet.safetensors", steps=4, learning_rate=0.01, clip_norm=0.1)
    # Half a cosine over 4 steps: (1 + cos(0, 45, 90, 135 degrees)) / 2
    assert rates == pytest.approx([0.01, 0.00853553, 0.005, 0.00146447], rel=1e-5)
    assert norms == pytest.approx([0.1] * 4, rel=1e-3)


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_loss_on_held_out_text_by_definition(corpus: Corpus, batch_first: bool) -> None:
    torch.manual_seed(0)
    network = CharNetwork(
        NetworkConfig("lstm", len(corpus.symbols), 16, dropout=0.5, batch_first=batch_first)
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 5  # so that what came before decides
    text = corpus.held_out[:300]
    found = nats_per_character(network, text, rows=1)
    assert network.training, "its mode is left as it was"
    ids = torch.from_numpy(text)
    logits, _ = network.eval()(ids[None, :-1] if batch_first else ids[:-1, None])
    chosen = torch.log_softmax(logits.reshape(299, -1).double(), dim=-1)[torch.arange(299), ids[1:]]
    assert found == pytest.approx(-chosen.mean().item(), rel=1e-5)
    assert nats_per_character(network, text, rows=1, limit=299) == found
    assert nats_per_character(network, text, rows=1, limit=100) == pytest.approx(
        -chosen[:100].mean().item(), rel=1e-5
    )


def test_minutes_end_a_run(corpus: Corpus, tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "poet.safetensors", steps=None, minutes=0.01)
    assert result.steps > 5
    assert len(result.history.validation_steps) >= 5


def test_a_loss_that_is_not_finite_ends_the_run(corpus: Corpus, tmp_path: Path) -> None:
    config = NetworkConfig("elman", len(corpus.symbols), 16, nonlinearity="relu")
    options = TrainingOptions(steps=400, batch_size=4, sequence_length=32, learning_rate=1e30)
    with pytest.raises(UsageError, match="step") as caught:
        train(corpus, config, options, tmp_path / "poet.safetensors")
    assert caught.value.code == "training-diverged"


@pytest.mark.parametrize(
    ("change", "named"), [({"cell": "gru"}, "cell"), ({"seed": 3}, "seed"), ({"batch_size": 5}, "batch_size")]
)
def test_resuming_with_other_settings_is_refused(
    corpus: Corpus, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    output = tmp_path / "poet.safetensors"
    run(corpus, output, steps=4)
    before = output.read_bytes()
    with pytest.raises(UsageError, match=named) as caught:
        run(corpus, output, steps=8, resume=True, **change)
    assert caught.value.code == "resume-differs"
    assert output.read_bytes() == before


def test_resuming_with_another_text_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    run(corpus, output, steps=4)
    other = Corpus(corpus.symbols, corpus.training[1:], corpus.held_out, 1, 0, 0)
    with pytest.raises(UsageError, match="text") as caught:
        run(other, output, steps=8, resume=True)
    assert caught.value.code == "resume-differs"


def test_resuming_nothing_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        run(corpus, tmp_path / "poet.safetensors", resume=True)
    assert caught.value.code == "file-missing"


@pytest.mark.parametrize("name", ["generator", "optimizer.0.exp_avg", "state.h", "weight.readout.bias"])
def test_a_damaged_run_is_refused(corpus: Corpus, tmp_path: Path, name: str) -> None:
    output = tmp_path / "poet.safetensors"
    run(corpus, output, steps=4)
    data = resume_path(output).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = safetensors.torch.load(data)
    del tensors[name]
    resume_path(output).write_bytes(safetensors.torch.save(tensors, header["__metadata__"]))
    with pytest.raises((FileError, ModelError)) as caught:
        run(corpus, output, steps=8, resume=True)
    assert caught.value.code in ("resume-damaged", "weights-missing")


def test_a_run_of_a_later_version_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "poet.safetensors"
    run(corpus, output, steps=4)
    path = resume_path(output)
    path.write_bytes(path.read_bytes().replace(rb"{\"version\":1,", rb"{\"version\":2,"))
    with pytest.raises(FileError, match="version 2") as caught:
        run(corpus, output, steps=8, resume=True)
    assert caught.value.code == "resume-damaged"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"steps": 1, "minutes": 1.0},
        {"steps": 0},
        {"minutes": -1.0},
        {"minutes": float("nan")},
        {"steps": 1, "batch_size": 0},
        {"steps": 1, "sequence_length": 0},
        {"steps": 1, "learning_rate": 0.0},
        {"steps": 1, "seed": 2**64},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        TrainingOptions(**options)
    assert caught.value.code == "training-options-invalid"


def test_a_place_that_cannot_be_written_is_found_before_training(corpus: Corpus, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with pytest.raises(FileError) as caught:
        run(corpus, tmp_path / "missing" / "poet.safetensors", progress=seen.append)
    assert caught.value.code == "output-folder-missing"
    assert seen == []


def test_the_loss_curve_is_a_picture(tmp_path: Path) -> None:
    path = loss_curve_path(tmp_path / "poet.safetensors")
    assert path.name == "poet.loss.png"
    history = History([10, 20], [3.0, 2.0], [20], [2.1])
    save_loss_curve(path, history, title="lstm 16", count_model_nats=1.5)
    assert path.read_bytes().startswith(b"\x89PNG")
    save_loss_curve(path, History(), title="nothing yet")


def test_the_loss_curve_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="report") as caught:
        save_loss_curve(tmp_path / "x.png", History(), title="")
    assert caught.value.code == "matplotlib-missing"
    assert not (tmp_path / "x.png").exists()
