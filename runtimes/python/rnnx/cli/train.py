"""`rnnx train`: a character network from text to checkpoint."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnx.cli.console import Json, Quiet, progress, remark
from rnnx.cli.flags import refuse
from rnnx.errors import UsageError
from rnnx.files import check_output

if TYPE_CHECKING:
    from rnnx_models.networks import NetworkConfig
    from rnnx_models.text import Corpus
    from rnnx_models.training import Progress, TrainingOptions, TrainingResult

DEFAULT_MINUTES = 2.0
COUNT_MODEL_ORDER = 3
INTERRUPTED = 130


def train(
    context: typer.Context,
    texts: Annotated[
        list[Path],
        typer.Argument(metavar="TEXT_OR_FOLDER", help="Text files, and folders to search for them."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write, .safetensors.")],
    cell: Annotated[str, typer.Option(help="elman, concat, gates, rnn, lstm or gru.")] = "lstm",
    hidden_size: Annotated[int, typer.Option(help="Elements of the hidden state of a layer.")] = 192,
    num_layers: Annotated[int, typer.Option(help="Recurrent layers.")] = 1,
    nonlinearity: Annotated[str, typer.Option(help="tanh or relu; relu for elman and rnn only.")] = "tanh",
    encoding: Annotated[str, typer.Option(help="How a character enters: one-hot or embedding.")] = "one-hot",
    embedding_size: Annotated[int, typer.Option(help="Elements of the embedding, if it is one.")] = 64,
    dropout: Annotated[
        float, typer.Option(help="Share of elements dropped between layers and before the readout.")
    ] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Rows of text read side by side.")] = 32,
    sequence_length: Annotated[int, typer.Option(help="Time steps to back-propagate through.")] = 48,
    steps: Annotated[int | None, typer.Option(help="Batches to learn from.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help=f"Time to learn for; {DEFAULT_MINUTES:g} without --steps.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="At the start; decays to 0.")] = 5e-3,
    seed: Annotated[int, typer.Option(help="With --steps, the same seed gives the same run on a CPU.")] = 0,
    held_out: Annotated[float, typer.Option(help="Share of the text kept for validation.")] = 0.05,
    vocabulary_size: Annotated[int, typer.Option(help="Most symbols; rarer characters become U+FFFD.")] = 256,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave out files and folders named so; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run beside the output.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a character network on text and keep its best weights.

    Beside the checkpoint lie the run itself (poet.resume.safetensors) and the loss curve (poet.loss.png).
    Ctrl-C keeps the best weights so far and returns 130; the same command with --resume goes on.

    Example:

        rnnx train texts/ -o poet.safetensors
        rnnx train a.txt b.txt -o novel.safetensors --cell gru --hidden-size 256 --minutes 5
        rnnx train texts/ -o poet.safetensors --steps 2000 --resume
    """
    from rnnx_models.count_model import CountModel
    from rnnx_models.networks import NetworkConfig
    from rnnx_models.text import read_corpus
    from rnnx_models.training import TrainingOptions

    if steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
    options = TrainingOptions(
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        sequence_length=sequence_length,
        learning_rate=learning_rate,
        seed=seed,
    )
    shape = (hidden_size, num_layers, nonlinearity, encoding, embedding_size, dropout)
    NetworkConfig(cell, 1, *shape)  # refuse before a long text is read
    if encoding != "embedding":
        refuse(
            context,
            "embedding_size",
            expected="--encoding embedding with --embedding-size",
            fix="add it, or leave this one out",
        )
    _check_outputs(output, texts, exclude or [])
    corpus = read_corpus(texts, held_out=held_out, vocabulary_size=vocabulary_size, exclude=exclude or [])
    _describe(corpus, quiet)
    result = _train(corpus, NetworkConfig(cell, len(corpus.symbols), *shape), options, output, resume, quiet)
    count_model = CountModel(corpus.training, len(corpus.symbols), COUNT_MODEL_ORDER)
    count_model_nats = count_model.nats_per_character(corpus.held_out)
    picture = _draw(result, output, f"{output.stem}: {cell} {hidden_size}", count_model_nats, quiet)
    summary = {
        "checkpoint": str(result.checkpoint) if result.checkpoint else None,
        "resume": str(result.resume),
        "loss_curve": str(picture) if picture else None,
        "steps": result.steps,
        "best_step": result.best_step,
        "held_out_nats": result.held_out_nats,
        "count_model_nats": count_model_nats,
        "count_model_order": COUNT_MODEL_ORDER,
        "symbols": len(corpus.symbols),
        "training_characters": len(corpus.training),
        "held_out_characters": len(corpus.held_out),
        "interrupted": result.interrupted,
    }
    if json:
        typer.echo(json_module.dumps(summary))
    elif not quiet:
        typer.echo(_summary(result, count_model_nats, picture))
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _check_outputs(output: Path, texts: list[Path], exclude: list[str]) -> None:
    from rnnx_models.loss_curve import loss_curve_path
    from rnnx_models.run_state import resume_path
    from rnnx_models.text import find_files

    inputs = tuple(find_files(texts, exclude=exclude))
    for path in (output, resume_path(output), loss_curve_path(output)):
        check_output(path, inputs=inputs)


def _describe(corpus: Corpus, quiet: bool) -> None:
    held_out = f"{corpus.held_out_files} files" if corpus.held_out_files else "the end"
    remark(
        f"read {corpus.files} files: {len(corpus.training):,} characters to learn from, "
        f"{len(corpus.held_out):,} held out ({held_out}), {len(corpus.symbols)} symbols",
        quiet=quiet,
    )
    if corpus.replaced:
        remark(
            f"{corpus.replaced:,} rare characters stand as U+FFFD; --vocabulary-size keeps more", quiet=quiet
        )


def _train(
    corpus: Corpus, config: NetworkConfig, options: TrainingOptions, output: Path, resume: bool, quiet: bool
) -> TrainingResult:
    from rnnx_models.training import train as train_network

    began: float | None = None
    with progress("training", 1.0, unit="", quiet=quiet) as bar:

        def show(now: Progress) -> None:
            # The bar covers this part of the run, so that its time left holds after --resume too.
            nonlocal began
            began = now.share if began is None else began
            bar.update((now.share - began) / (1 - began) if began < 1 else 1.0, _note(now))

        return train_network(corpus, config, options, output, resume=resume, progress=show)


def _note(now: Progress) -> str:
    held_out = f"held out {now.validation_nats:.3f}" if now.validation_nats is not None else ""
    speed = f"{now.characters_per_second:,.0f} characters/s"
    return "  ".join(part for part in (f"step {now.step:,}", f"loss {now.loss:.3f}", held_out, speed) if part)


def _draw(
    result: TrainingResult, output: Path, title: str, count_model_nats: float, quiet: bool
) -> Path | None:
    from rnnx_models.loss_curve import loss_curve_path, save_loss_curve

    path = loss_curve_path(output)
    try:
        save_loss_curve(path, result.history, title=title, count_model_nats=count_model_nats)
    except UsageError as error:
        if error.code != "matplotlib-missing":
            raise
        remark(f"no loss curve drawn: matplotlib is not installed; {error.fix}", quiet=quiet)
        return None
    return path


def _summary(result: TrainingResult, count_model_nats: float, picture: Path | None) -> str:
    lines = []
    if result.interrupted:
        lines.append(f"interrupted after {result.steps:,} steps; the same command with --resume goes on")
    if result.checkpoint is None:
        lines.append("nothing was validated yet: the checkpoint that was there stays as it was")
    else:
        lines += [
            f"checkpoint   {result.checkpoint} (best of {result.steps:,} steps: {result.best_step:,})",
            f"held out     {result.held_out_nats:.3f} nats a character",
            f"count model  {count_model_nats:.3f} nats a character (order {COUNT_MODEL_ORDER}, Witten-Bell)",
        ]
    if picture is not None:
        lines.append(f"loss curve   {picture}")
    if result.checkpoint is not None and not result.interrupted:
        onnx = result.checkpoint.with_suffix(".onnx")
        lines.append(f"next         rnnx export {result.checkpoint} -o {onnx}")
    return "\n".join(lines)
