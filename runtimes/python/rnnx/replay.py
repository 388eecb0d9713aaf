"""The conformance program of Python: `python -m rnnx.replay MODEL TRACE`, as docs/conformance.md says.

It stands on the public parts of rnnx alone, and does by hand what `rnnx parity` does at large, so that it
can be read beside the same program in another language.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnx.errors import RnnxError, StreamError, UsageError
from rnnx.files import read_bytes, write_bytes
from rnnx.formats.safetensors_file import decode_tensors
from rnnx.formats.trace_file import Trace, read_trace, trace_sizes
from rnnx.model.contract import OutputSpec, axis_index, step_shape
from rnnx.model.shapes import Array, chunk_shape, from_steps, has_steps, to_steps
from rnnx.runtime.stream import Stream
from rnnx.session import Session, load
from rnnx.text.generation import generate
from rnnx.text.sampling import Sampler
from rnnx.tolerance import error_beyond

_ATTEMPTS = 1_000_000  # steps after which two threads should have met


@dataclasses.dataclass
class Verdict:
    """How a replay went; its fields are those of the JSON."""

    agrees: bool = True
    steps: int = 0
    calls: int = 0
    max_error: float = 0.0
    failure: dict[str, Any] | None = None


class Replay:
    """A trace being replayed through a stream."""

    def __init__(self, session: Session, trace: Trace) -> None:
        self.contract = session.contract
        self.trace = trace
        self.verdict = Verdict()
        sizes = trace_sizes(trace, self.contract)
        free = {name: size for name, size in sizes.items() if name in self.contract.free_dimensions}
        self.stream = session.stream(batch=sizes.get("batch", 1), dims=free)
        self._lengths = self._valid_steps()

    def run(self, chunks: Sequence[int]) -> Verdict:
        """Replay all of it in chunks of these lengths, in turn; stop where something disagrees."""
        self._compare_states(-1, 0)
        self._begin()
        for begin, end in cuts(self.trace.steps, [0] if self.contract.whole_only is not None else chunks):
            if self.verdict.failure is None:
                stepped = end - begin == 1 and self.contract.whole_only is None
                self._compare_outputs(self.call(begin, end), begin, end, stepped=stepped)
                self._compare_states(end - 1, end)
        return self.verdict

    def run_blocks(self, blocks: Sequence[int], omitted: int) -> Verdict:
        """Replay all of it through `feed`, in blocks of so many entries, in turn, and then `flush`.

        The last `omitted` entries of each input are left out: `flush` has to fill them up.
        """
        self._compare_states(-1, 0)
        self._begin()
        left = self._inputs(0, self.trace.steps, stepped=False)
        axes = {
            spec.name: axis_index(chunk_shape(self.contract, spec), "time") for spec in self.contract.inputs
        }
        timed = {name: axis for name, axis in axes.items() if axis is not None and name in left}
        left |= {name: _entries(left[name], axis, 0, -omitted or None) for name, axis in timed.items()}
        for count in itertools.cycle(blocks):
            block = {name: _entries(left[name], axis, 0, count or None) for name, axis in timed.items()}
            left |= {
                name: _entries(left[name], axis, block[name].shape[axis], None)
                for name, axis in timed.items()
            }
            ended = not any(value.size for value in block.values())
            outputs = self.stream.flush() if ended else self.stream.feed({**left, **block})
            begin, end = self.verdict.steps, self.stream.position
            self.verdict.steps, self.verdict.calls = end, self.verdict.calls + 1
            if end > begin:
                self._compare_outputs(outputs, begin, end, stepped=False)
                self._compare_states(end - 1, end)
            if ended or self.verdict.failure is not None:
                break
        return self.verdict

    def to_step(self, steps: int) -> Stream:
        """Replay the first `steps` steps, one at a time, and return the stream."""
        if not 0 <= steps <= self.trace.steps:
            raise _usage("steps of the trace", str(steps))
        self._begin()
        for step in range(steps):
            self.call(step, step + 1)
        return self.stream

    def call(self, begin: int, end: int) -> dict[str, Array]:
        """Run steps begin..end-1; return the outputs as `step` or, for several steps, `run` gives them."""
        stepped = end - begin == 1 and self.contract.whole_only is None
        inputs = self._inputs(begin, end, stepped=stepped)
        self.verdict.steps, self.verdict.calls = end, self.verdict.calls + 1
        return self.stream.step(inputs) if stepped else self.stream.run(inputs)

    def _inputs(self, begin: int, end: int, *, stepped: bool) -> dict[str, Array]:
        inputs = {}
        for spec in self.contract.inputs:
            value = self.trace.inputs.get(spec.name)
            if value is None:
                continue
            if spec.role == "length":
                value = np.clip(value - begin, 0, end - begin)
            elif has_steps(self.contract, spec):
                rows = value[begin:end]
                value = rows[0] if stepped else from_steps(rows, chunk_shape(self.contract, spec))
            inputs[spec.name] = value
        return inputs

    def _begin(self) -> None:
        self.stream.state.update({name: rows[0] for name, rows in self.trace.states.items()})

    def _compare_outputs(self, outputs: dict[str, Array], begin: int, end: int, *, stepped: bool) -> None:
        for spec in self.contract.outputs:
            got, first = outputs[spec.name], begin
            if stepped:
                got = got[None]
            elif has_steps(self.contract, spec):
                got = to_steps(got, chunk_shape(self.contract, spec))
            else:
                got, first = got[None], end - 1
            for step, row in enumerate(got, first):
                keep = self._is_valid(spec, row.shape, step)
                self._compare(f"output.{spec.name}", step, self.trace.outputs[spec.name][step], row, keep)

    def _compare_states(self, step: int, row: int) -> None:
        for spec in self.contract.states:
            expected = self.trace.states[spec.name][row]
            got = self.stream.state[spec.name]
            self._compare(f"state.{spec.name}", step, expected, got, np.ones(got.shape, bool))

    def _compare(self, tensor: str, step: int, expected: Array, got: Array, keep: Array) -> None:
        """Compare one row of a tensor, where `keep` is true."""
        wrong = keep & (error_beyond(self.trace.tolerances[tensor], expected, got) > 0)
        wanted, have = expected.astype(np.float64), got.astype(np.float64)
        with np.errstate(invalid="ignore"):
            errors = np.abs(have - wanted) / (1 + np.abs(wanted))
        finite = keep & np.isfinite(errors)
        self.verdict.max_error = max(self.verdict.max_error, float(errors[finite].max(initial=0.0)))
        if wrong.any() and self.verdict.failure is None:
            index = tuple(int(entry) for entry in np.argwhere(wrong)[0])
            self.verdict.agrees = False
            self.verdict.failure = {
                "tensor": tensor,
                "step": step,
                "index": list(index),
                "expected": plain(expected[index].item()),
                "got": plain(got[index].item()),
            }

    def _valid_steps(self) -> Array | None:
        """Return how many steps of each row are valid, int64 [batch] or [], None for all."""
        lengths = [self.trace.inputs.get(spec.name) for spec in self.contract.inputs if spec.role == "length"]
        return next((value for value in lengths if value is not None), None)

    def _is_valid(self, spec: OutputSpec, shape: tuple[int, ...], step: int) -> Array:
        """Return, for each element of an output at `step`, whether its row has not ended before."""
        if self._lengths is None:
            return np.ones(shape, bool)
        valid = np.asarray(step < self._lengths)  # [batch] or []
        batch = axis_index(step_shape(spec), "batch")
        if valid.ndim and batch is not None:
            valid = valid.reshape([-1 if axis == batch else 1 for axis in range(len(shape))])
        return np.broadcast_to(valid, shape)


def _entries(value: Array, axis: int, begin: int, end: int | None) -> Array:
    return value[(slice(None),) * axis + (slice(begin, end),)]


def cuts(steps: int, chunks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of each chunk; the lengths come in turn, 0 takes all that is left."""
    begin = 0
    for length in itertools.cycle(chunks):
        if begin >= steps:
            return
        end = min(begin + length, steps) if length else steps
        yield begin, end
        begin = end


def plain(value: Any) -> Any:
    """Return a number as JSON can hold it: booleans as 0 and 1, what is not finite as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if value != value else ("inf" if value > 0 else "-inf")
    return int(value) if isinstance(value, bool) else value


def feed(session: Session, inputs: dict[str, Array], times: int, *, flush: bool) -> dict[str, Any]:
    """Step a stream of batch 1 with the same inputs again and again; return the last outputs, flat.

    With `flush`, what it gives then is returned.
    """
    stream, outputs = session.stream(), {}
    for _ in range(times):
        outputs = stream.step(inputs)
    if flush:
        outputs = stream.flush()
    return {"outputs": _flat(outputs)}


def together(session: Session, feeds: Sequence[dict[str, Array]], times: int) -> dict[str, Any]:
    """Step a stream for each of some inputs, all of them in one pool; return the last outputs of each, flat.

    Stream k begins in round k, and sits out each round r in which r + k leaves 2 when divided by 3.
    """
    pool = session.pool()
    streams = [pool.open() for _ in feeds]
    outputs: dict[int, dict[str, Array]] = {stream: {} for stream in streams}
    for turn in range(times):
        taking = [place for place in range(len(feeds)) if turn >= place and (turn + place) % 3 != 2]
        outputs |= pool.step({streams[place]: feeds[place] for place in taking})
    return {"streams": [{"outputs": _flat(outputs[stream])} for stream in streams]}


def _flat(outputs: dict[str, Array]) -> dict[str, list[Any]]:
    return {name: [plain(entry) for entry in value.reshape(-1).tolist()] for name, value in outputs.items()}


def misuse(session: Session, kind: str, inputs: dict[str, Array]) -> None:
    """Use a stream in a way it must refuse; raise what it says to it."""
    stream = session.stream()
    if kind == "closed":
        stream.close()
        stream.step(inputs)
        return
    if kind in ("waiting", "part"):
        (stream.feed if kind == "waiting" else stream.run)(inputs)
        stream.step(inputs)
        return
    refused: list[RnnxError] = []

    def step_on() -> None:
        try:
            for _ in range(_ATTEMPTS):
                if refused:
                    return
                stream.step(inputs)
        except RnnxError as error:
            refused.append(error)

    threads = [threading.Thread(target=step_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        raise next((error for error in refused if isinstance(error, StreamError)), refused[0])


def replay(options: argparse.Namespace) -> Verdict | dict[str, Any] | None:
    """Do what the arguments ask for; return what is to be printed."""
    if options.draw is not None:
        sampler = Sampler(options.seed)
        return {"draws": [sampler.sample_weights(options.draw) for _ in range(options.count)]}
    if options.model is None:
        raise _usage("a model", "none")
    session = load(options.model, options.provider)
    inputs: dict[str, Array] = {}
    if options.feed is not None:
        inputs = _read_feed(options.feed)
    if options.misuse is not None:
        misuse(session, options.misuse, inputs)
        return None
    if options.together is not None:
        return together(session, [_read_feed(path) for path in options.together.split(",")], options.times)
    if options.feed is not None:
        return feed(session, inputs, options.times, flush=options.flush)
    if options.restore is not None:
        stream = session.stream()
        stream.restore(read_bytes(options.restore, what="a snapshot"))
        return {"position": stream.position}
    if options.text is not None:
        drawn = generate(
            session, options.text, options.length, temperature=options.temperature, seed=options.seed
        )
        return {"text": "".join(drawn)}
    if options.trace is None:
        raise _usage("a trace, or one of --feed, --together, --misuse, --restore, --text", "none")
    trace = read_trace(options.trace, session.contract, model_id=session.id)
    if options.snapshot is not None:
        stream = Replay(session, trace).to_step(options.after)
        write_bytes(options.snapshot, stream.snapshot())
        return {"position": stream.position}
    if options.entries is not None:
        return Replay(session, trace).run_blocks(options.entries, options.omit)
    return Replay(session, trace).run(options.chunks)


def _read_feed(path: str) -> dict[str, Array]:
    return decode_tensors(read_bytes(path, what="a feed"), what="a feed")[0]


def _usage(expected: str, found: str) -> UsageError:
    return UsageError("usage", expected=expected, found=found, fix="see docs/conformance.md")


def _lengths(text: str) -> list[int]:
    chunks = [int(part) for part in text.split(",")]
    if min(chunks) < 0:
        raise argparse.ArgumentTypeError("lengths of chunks are 0 or more")
    return chunks


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="replay", description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("trace", type=Path, nargs="?")
    parser.add_argument("--chunks", type=_lengths, default=[1])
    parser.add_argument("--entries", type=_lengths)
    parser.add_argument("--omit", type=int, default=0)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--feed")
    parser.add_argument("--together")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--flush", action="store_true")
    parser.add_argument("--misuse", choices=("closed", "threads", "waiting", "part"))
    parser.add_argument("--restore", type=Path)
    parser.add_argument("--snapshot", type=Path)
    parser.add_argument("--after", type=int, default=0)
    parser.add_argument("--text")
    parser.add_argument("--length", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser


def _show(result: Verdict | dict[str, Any]) -> str:
    """Return a result for people."""
    if isinstance(result, Verdict):
        told = f"{result.steps} steps in {result.calls} calls, largest error {result.max_error:.2g}"
        failure = result.failure
        if failure is None:
            return f"agrees: {told}"
        place = f"{failure['tensor']} at step {failure['step']}, index {failure['index']}"
        return f"disagrees: {place}: expected {failure['expected']}, got {failure['got']}; {told}"
    if "draws" in result:
        return " ".join(str(drawn) for drawn in result["draws"])
    if "text" in result:
        return str(result["text"])
    if "streams" in result:
        return "\n".join(f"{place}: {outputs}" for place, outputs in enumerate(result["streams"]))
    return "\n".join(f"{name} {value}" for name, value in result.get("outputs", result).items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    options = _parser().parse_intermixed_args(arguments)  # a trace may follow options
    try:
        result = replay(options)
    except RnnxError as error:
        if options.json:
            print(json.dumps({"error": {"code": error.code, "text": str(error)}}))
        else:
            print(f"error[{error.code}]: {error}", file=sys.stderr)
        return 2
    if result is not None:
        value = dataclasses.asdict(result) if isinstance(result, Verdict) else result
        print(json.dumps(value) if options.json else _show(result))
    return 1 if isinstance(result, Verdict) and not result.agrees else 0


if __name__ == "__main__":
    sys.exit(main())
