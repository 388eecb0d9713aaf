"""`rnnx.export`: from a module to a file that was proved before it was written."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from rnnx.arguments import instance, mapping, number, shown
from rnnx.errors import RefusedError, RnnxError, UsageError
from rnnx.files import check_output, write_all
from rnnx.model.contract import Contract, InputSpec, OutputSpec, Vocabulary, describe
from rnnx.version import __version__
from rnnx_export.diagnostics import levels_restored, user_error
from rnnx_export.graph.contract_states import state_specs
from rnnx_export.graph.passes.table import NEWEST_OPSET, OPSET
from rnnx_export.module.spec import boundary_dtype
from rnnx_export.module.subject import Subject, one_thread
from rnnx_export.pipeline import Order, run
from rnnx_export.states.delay import with_delay
from rnnx_export.states.discover import discover
from rnnx_export.states.export_plan import Plan
from rnnx_export.states.longest import with_longest
from rnnx_export.states.time_loop import with_time
from rnnx_export.stepping import made_to_step


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        path: the ONNX file.
        trace: the trace beside it.
        contract: the contract inside it.
        notes: things the user should know, such as an attribute that is not carried.
    """

    path: Path
    trace: Path
    contract: Contract
    notes: list[str]


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    inputs: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    returns: Any = None,
    method: str = "forward",
    constants: Mapping[str, Any] | None = None,
    time: bool = False,
    vocabulary: Sequence[str] | None = None,
    longest: int | None = None,
    delay: int | str | None = None,
    steps_per_second: float | None = None,
    name: str | None = None,
    user: Mapping[str, Any] | None = None,
    opset: int = OPSET,
    told: Callable[[str], None] | None = None,
) -> Exported:
    """Export a module with memory to ONNX with explicit states, proved against the module.

    The module is copied; neither it nor its mode changes. States are found wherever they are: in forward's
    arguments, in buffers and attributes, inside recurrent layers that start from nothing, and in the left
    padding of causal convolutions.

    Args:
        module: the network. It is exported in eval mode.
        path: the ONNX file to write. A trace, `NAME.trace.safetensors`, is written beside it, and weights
            that are too large for the file, as `NAME.onnx.data`.
        inputs: for each parameter of forward that is an input, a spec such as "float32[batch, time, 257]"
            (with a range where values matter: "int64[batch, time] in 0..95"), an example tensor, or a
            tuple, list, dict or dataclass of them.
        state: the same for parameters that carry memory; None lets forward choose the start.
        returns: names for the parts of forward's result, nested as it is: ("y", "h").
        method: another method than forward.
        constants: values for parameters that are neither.
        time: give a step model a time axis, right after the batch, so that it runs whole chunks too.
        vocabulary: for a model over symbols with one int64 input and logits: what each id stands for.
        longest: the most steps that forward takes from the start of a sequence, such as the size of a mask;
            None has it found, up to 256.
        delay: by how many steps outputs may come late where forward looks ahead, so that it can be stepped:
            a number, or "auto" for as few as it takes. None: such a module takes whole sequences only.
        steps_per_second: how fast time runs, for people.
        name: the model's name; the file's by default.
        user: anything JSON can hold, passed through untouched.
        opset: operator set version, 18 to 21.
        told: is called with what begins, as it begins: "find states", "direct: capture".

    Returns:
        Where the files are, the contract, and what the user should know.

    Raises:
        RefusedError: the module cannot be exported; nothing was written.
        UsageError: the arguments make no sense.
        TypeError: one is of another kind than it should be.
        FileError: the files cannot be written.
    """
    _check(opset, longest, delay, steps_per_second, vocabulary)
    user = mapping("user", user, "what JSON can hold")
    check_trees(inputs, state, constants)
    name = None if name is None else instance("name", name, str, "text")
    path = check_output(path)
    trace_path = check_output(path.with_suffix(".trace.safetensors"))
    weights_path = check_output(path.with_name(f"{path.name}.data"))
    with undisturbed(), only_refusals(module, method):
        tell = told or (lambda stage: None)
        tell("find states")
        plan = planned(
            Subject(module, inputs, state, method, constants),
            returns,
            time=time,
            longest=longest,
            delay=delay,
        )
        details = {
            "name": name or path.stem,
            "vocabulary": vocabulary,
            "steps_per_second": steps_per_second,
            "user": user,
        }
        order = Order(opset, weights_path.name, functools.partial(_contract, details), tell)
        made = run(plan, order)
    files = {path: made.data, trace_path: made.trace}
    write_all(files if not made.weights else {**files, weights_path: made.weights})
    return Exported(path, trace_path, made.contract, made.notes)


def check_trees(inputs: Any, state: Any, constants: Any) -> None:
    """Raise TypeError unless each is a dict by parameter, or None."""
    for kind, trees in (("inputs", inputs), ("state", state), ("constants", constants)):
        mapping(kind, trees, "values by parameter" if kind == "constants" else "specs by parameter")


def planned(
    subject: Subject, returns: Any, *, time: bool, longest: int | None, delay: int | str | None = None
) -> Plan:
    """Return the plan of an export, found by running the subject. Raises RefusedError and UsageError."""
    plan = discover(subject, returns)
    if time and not plan.has_time:
        plan = with_time(plan)
    if delay is not None:
        plan = with_delay(plan, returns, delay)
    if plan.whole_only is None and plan.delay is None:
        plan = made_to_step(plan, returns)
    return with_longest(plan, longest)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Leave threads, random numbers and levels of logging as they were before the block."""
    with one_thread(), torch.random.fork_rng(devices=[]), levels_restored():
        yield


@contextlib.contextmanager
def only_refusals(module: Any, method: str) -> Iterator[None]:
    """Turn what a module, or torch over it, raises in any place into a refusal."""
    try:
        yield
    except RnnxError:
        raise
    except Exception as error:
        raise RefusedError(
            "not-exported",
            expected=f"{type(module).__name__}.{method} to be exported",
            found=user_error(error, f"{type(error).__name__}: "),
            fix="see docs/support.md for what can be exported and how to write it; if forward runs by "
            "itself, it is a fault of rnnx",
        ) from error


def _check(opset: Any, longest: Any, delay: Any, steps_per_second: Any, vocabulary: Any) -> None:
    if longest is not None:
        number(longest, "the most steps of a sequence, 1 or more", least=1, code="bad-longest")
    number(
        opset,
        f"an operator set from {OPSET} to {NEWEST_OPSET}",
        least=OPSET,
        most=NEWEST_OPSET,
        code="bad-opset",
        fix=f"leave it out: {OPSET} is what the oldest runtimes open",
    )
    if delay is not None and delay != "auto":
        number(delay, "a delay in steps, 0 or more, or 'auto'", least=0, code="bad-delay")
    is_number = isinstance(steps_per_second, (int, float)) and not isinstance(steps_per_second, bool)
    if steps_per_second is not None and not (is_number and 0 < steps_per_second < float("inf")):
        raise UsageError(
            "bad-rate",
            expected="steps_per_second above 0",
            found=shown(steps_per_second),
            fix="give the steps that one second of the sequence has, such as 62.5",
        )
    symbols = list(vocabulary) if isinstance(vocabulary, Sequence) else [None]
    good = all(isinstance(symbol, str) and len(symbol) == 1 for symbol in symbols)
    if vocabulary is not None and not (symbols and good and len(set(symbols)) == len(symbols)):
        raise UsageError(
            "bad-vocabulary",
            expected="vocabulary as a list of characters, each once",
            found=shown(vocabulary),
            fix="give what each id stands for, from 0: ['a', 'b', ' ']",
        )


def _contract(details: Mapping[str, Any], plan: Plan, identity: str) -> Contract:
    inputs = [
        InputSpec(
            name=name,
            dtype=boundary_dtype(spec.dtype),  # type: ignore[arg-type]
            shape=list(spec.shape),
            role="length" if spec.is_length else None,
            order="descending" if spec.descending else None,
            default=plan.subject.default(name),
            range=spec.range,
        )
        for name, spec in plan.subject.inputs.items()
    ]
    outputs = [
        OutputSpec(
            name=o.name,
            dtype=boundary_dtype(o.spec.dtype),  # type: ignore[arg-type]
            shape=list(o.spec.shape),
            delay=plan.convention.delay,
        )
        for o in plan.outputs
    ]
    symbols = details["vocabulary"]
    vocabulary = None
    if symbols is not None:
        ids, scores = inputs[0], outputs[0]
        if ids.dtype != "int64" or scores.shape[-1:] != [len(symbols)]:
            raise UsageError(
                "bad-vocabulary",
                expected=f"an int64 input and an output of {len(symbols)} scores, as vocabulary has symbols",
                found=f"{ids.name!r} as {describe(ids.dtype, ids.shape)} and "
                f"{scores.name!r} as {describe(scores.dtype, scores.shape)}",
                fix="leave vocabulary out, or give a symbol for each score",
            )
        vocabulary = Vocabulary(input=inputs[0].name, output=outputs[0].name, symbols=list(symbols))
        inputs[0] = msgspec.structs.replace(ids, range=None)  # the symbols say which ids there are
    return Contract(
        id=identity,
        name=details["name"],
        producer={"rnnx": __version__, "torch": torch.__version__.split("+")[0]},
        inputs=inputs,
        outputs=outputs,
        states=state_specs(plan),
        steps_per_second=details["steps_per_second"],
        longest=plan.longest,
        whole_only=None if plan.whole_only is None else str(plan.whole_only),
        vocabulary=vocabulary,
        user=details["user"],
    )
