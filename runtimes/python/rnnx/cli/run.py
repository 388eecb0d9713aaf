"""`rnnx run`: text from a model over symbols, or arrays through any model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnx.cli.flags import MaxBytes, refuse
from rnnx.errors import UsageError

if TYPE_CHECKING:
    from rnnx.session import Session

_STANDARD = "-"


def run(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="An ONNX file written by rnnx.", metavar="MODEL")],
    prompt: Annotated[str | None, typer.Option(help="Text to continue (models over symbols).")] = None,
    length: Annotated[int, typer.Option(help="Number of symbols to make.", min=0)] = 400,
    temperature: Annotated[
        float | None, typer.Option(help="0 for the best symbol each time; 1 unless given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the random numbers; 0 unless given.")] = None,
    input: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", help=".npy, .npz, .safetensors or .wav; '-' for .npy or raw values on stdin."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help=".npy, .npz, .safetensors or .wav; '-' for raw values on stdout."
        ),
    ] = None,
    chunk: Annotated[int, typer.Option(help="Steps that run at a time (--input).", min=1)] = 256,
    pad: Annotated[
        bool, typer.Option("--pad", help="Fill up a last step that is not whole (--input), with zeros.")
    ] = False,
    pool: Annotated[
        bool, typer.Option("--pool", help="Run many sequences: a folder of such files, or a .jsonl.")
    ] = False,
    capacity: Annotated[int, typer.Option(help="Sequences that run at a time (--pool).", min=1)] = 64,
    provider: Annotated[str, typer.Option(help="cpu, cuda, native or auto.")] = "cpu",
    load_state: Annotated[Path | None, typer.Option(help="Continue where --save-state stopped.")] = None,
    save_state: Annotated[Path | None, typer.Option(help="Write what it takes to continue.")] = None,
    max_bytes: MaxBytes = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors, and the text or arrays made.")
    ] = False,
) -> None:
    """Run a model: make text, or stream arrays through it.

    A model over symbols prints the prompt and what follows it, symbol by symbol. Any model takes arrays in
    the shape of a chunk, with the batch and time axes that 'rnnx inspect' shows; raw values are
    little-endian, one step after the other, batch 1. A run continued with --load-state gives exactly what
    one run would have given, sampling included.

    A .wav is an input or output of samples; its rate is held to the model's. An 'N*time' axis takes N
    entries a step: with --pad the last ones are filled up, and the outputs cut to their share.

    With --pool, each file of the folder --input is a sequence of batch 1, and its results get its name in
    the folder --output. Or each line of a .jsonl is one: {"x": [[...], ...]}, without the batch axis. So
    many sequences as --capacity says run as one batch; one that ends makes room for the next.

    Example:

        rnnx run poet.onnx --prompt "def " --length 400 --temperature 0.7 --seed 7
        rnnx run denoiser.onnx --input noisy.npy --output clean.npy --save-state s.safetensors
        rnnx run voice.onnx --input noisy.wav --output clean.wav --pad
        rnnx run denoiser.onnx --pool --input recordings/ --output cleaned/
    """
    import rnnx

    _check_flags(context, input, pool)
    if pool:
        from rnnx.cli.run_pool import check_pool

        check_pool(model, input, output, load_state or save_state)
    else:
        _check_arguments(model, input, output, load_state, save_state)
    session = rnnx.load(model, provider)
    if provider == "auto" and not quiet:
        typer.echo(f"provider: {session.provider}", err=True)
    if pool:
        from rnnx.cli.run_pool import run_pool

        assert input is not None
        run_pool(session, input, output or _STANDARD, capacity, chunk, quiet=quiet)
        return
    saved = _read_state(load_state)
    if input is None:
        _make_text(session, prompt or "", length, temperature, seed, saved, save_state)
    else:
        from rnnx.cli.run_arrays import run_arrays

        run_arrays(session, input, output or _STANDARD, chunk, saved, save_state, pad=pad, quiet=quiet)


def _check_flags(context: typer.Context, source: str | None, pool: bool) -> None:
    """Refuse flags that would be ignored."""
    if source is None:
        fix = "leave it out: text is made in steps"
        refuse(context, "chunk", "pad", expected="--input with --chunk and --pad", fix=fix)
    else:
        text = ("prompt", "length", "temperature", "seed")
        refuse(context, *text, expected="--input alone, or the flags of text", fix="leave one of them out")
    if pool:
        refuse(context, "pad", expected="--pad without --pool", fix="leave it out: give whole steps")
    else:
        refuse(context, "capacity", expected="--pool with --capacity", fix="add --pool, or leave it out")


def _check_arguments(
    model: Path,
    source: str | None,
    output: str | None,
    load_state: Path | None,
    save_state: Path | None,
) -> None:
    """Refuse what cannot end well before anything is loaded or computed."""
    from rnnx.files import check_output, followed

    if source is None and output is not None:
        fix = "name the arrays with --input; text goes to standard output: '> FILE' keeps it"
        raise _usage("--output with --input", "--output alone", fix)
    if source is not None and (Path(source).is_dir() or Path(source).suffix.lower() == ".jsonl"):
        raise _usage(
            "--pool with many sequences as --input", source, "add --pool, or name one file of arrays"
        )
    if source is not None and output is None:
        raise _usage("an --output for the results", "none", "add --output y.npy, or '-' for raw values")
    read = [model] if source is None or source == _STANDARD else [model, Path(source)]
    if output is not None and output != _STANDARD:
        check_output(output, inputs=(*read, *([load_state] if load_state else [])))
    if save_state is not None:
        # The state that was read may be written over: it has been read whole, and is replaced whole.
        check_output(save_state, inputs=tuple(read))
        if output is not None and followed(Path(output)) == followed(save_state):
            raise _usage("different files for --output and --save-state", output, "rename one")


def _usage(expected: str, found: str, fix: str) -> UsageError:
    return UsageError("arguments", expected=expected, found=found, fix=fix)


def _read_state(path: Path | None) -> bytes | None:
    from rnnx.files import read_bytes

    return None if path is None else read_bytes(path, what="a snapshot")


def _make_text(
    session: Session,
    prompt: str,
    length: int,
    temperature: float | None,
    seed: int | None,
    saved: bytes | None,
    save_state: Path | None,
) -> None:
    from rnnx.files import write_bytes
    from rnnx.text.generation import TextStream
    from rnnx.text.sampling import Sampler

    first = Sampler(0 if seed is None else seed, 1.0 if temperature is None else temperature)
    text = TextStream(session, seed=first.state, temperature=first.temperature)
    if saved is not None:
        text.restore(saved)
        # What is named again on the command line wins over what was saved.
        text.sampler.state = text.sampler.state if seed is None else seed
        text.sampler.temperature = text.sampler.temperature if temperature is None else first.temperature
    text.read(prompt)
    tokens = text.write(length)
    _print(prompt)
    for token in tokens:
        _print(token)
    if sys.stdout.isatty():
        _print("\n")
    if save_state is not None:
        write_bytes(save_state, text.snapshot())


def _print(text: str) -> None:
    # As bytes: what a model writes does not depend on the encoding of the terminal it is started from.
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.buffer.flush()
