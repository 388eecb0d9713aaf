"""Why a module cannot be exported: module, place, what was found, and the fix with a sample."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from rnnx.errors import InputError, RefusedError
from rnnx.model.contract import describe
from rnnx.spelling import spelled
from rnnx_export.diagnostics import Because, Reason, one_line, reason_of, user_line
from rnnx_export.module.attributes import Place
from rnnx_export.module.parts import submodule
from rnnx_export.module.spec import TensorSpec

if TYPE_CHECKING:
    from rnnx_export.module.subject import Subject


_FRAMES = (
    "keep the frames in one tensor, which begins as `torch.zeros(1, N, width)`: "
    "`self.frames = torch.cat([self.frames.expand(x.shape[0], -1, -1), x[:, None]], 1)[:, 1:]`"
)


def location(subject: Subject, path: str = "") -> str:
    """Return "Net.encoder.forward (net.py:12)" for the module at `path`."""
    module = submodule(subject.original, path)
    method = subject.method if not path else "forward"
    name = ".".join((type(subject.original).__name__, *([path] if path else []), method))
    try:
        function = getattr(type(module), method)
        file = os.path.basename(inspect.getsourcefile(function) or "")
        return f"{name} ({file}:{inspect.getsourcelines(function)[1]})"
    except (OSError, TypeError, AttributeError):
        return name


def not_delayed(subject: Subject, steps: int | None, why: str) -> RefusedError:
    """Return the refusal of a module whose outputs cannot come late."""
    late = "" if steps is None else f" with a delay of {steps} step{'s' if steps > 1 else ''}"
    return RefusedError(
        "not-delayed",
        expected=f"{location(subject)} to be stepped{late}",
        found=f"{why}",
        fix="leave delay out: the file then takes whole sequences; or let it look ahead through padding: "
        "`F.pad(x, (0, 0, -1, 1))` for `torch.cat([x[:, 1:], zeros], 1)`",
    )


def growing(subject: Subject, place: Place, first: Tensor, second: Tensor) -> RefusedError:
    """Return the refusal of a cache that grows."""
    return RefusedError(
        "growing-state",
        expected=f"{place.name!r} in {location(subject, place.module)} to keep its shape from step to step",
        found=f"shape {tuple(first.shape)} after one call, {tuple(second.shape)} after two",
        fix="keep the last N entries in a ring buffer: "
        "`self.register_buffer('cache', torch.zeros(1, N, width))` and in forward "
        "`self.cache = torch.cat([self.cache.expand(x.shape[0], -1, -1), x], 1)[:, -N:]`",
    )


def gets_rows(subject: Subject, place: Place, first: Tensor, second: Tensor) -> RefusedError:
    """Return the refusal of memory that moves through places which began with one row."""
    return RefusedError(
        "start-shape",
        expected=f"{place.name!r} in {location(subject, place.module)} to have all rows from the first step",
        found=f"shape {tuple(first.shape)} after one call, {tuple(second.shape)} after two",
        fix=_FRAMES,
    )


def growing_argument(name: str, grown: str) -> RefusedError:
    """Return the refusal of a declared state that comes back longer than it went in."""
    return RefusedError(
        "growing-state",
        expected=f"state {name!r} to come back in the shape it went in",
        found=grown,
        fix="keep the last N entries in a ring buffer: `cache = torch.cat([cache, x], 1)[:, -N:]`, "
        "with `cache: float32[batch, N, width]` as the state",
    )


def argument_varies(subject: Subject, name: str, before: int, after: int) -> RefusedError:
    """Return the refusal of a state argument that forward puts tensors into, or takes them out of."""
    return RefusedError(
        "growing-state",
        expected=f"state {name!r} of {location(subject)} to keep its {before} tensors",
        found=f"{after} after the call" if after != before else f"none at {name!r} after the call",
        fix="keep as many tensors as there were: `state.append(new); state.pop(0)`, or a deque with maxlen",
    )


def stands_still(subject: Subject, name: str, output: str) -> RefusedError:
    """Return the refusal of a state that no call changes, beside an output that could be its next value."""
    return RefusedError(
        "state-ambiguous",
        expected=f"state {name!r} of {location(subject)} to change from call to call",
        found=f"the same value after every call, and output {output!r} of its shape",
        fix=f"if {output!r} is its next value, name it so: {spelled('returns', ('y', name.split('.')[0]))}; "
        f"if {name!r} is a constant, pass it as an input",
    )


def state_shape(subject: Subject, name: str, why: str) -> RefusedError:
    """Return the refusal of a state whose shape is no list of numbers and names."""
    return RefusedError(
        "state-shape",
        expected=f"state {name!r} of {location(subject)} to have one shape, of numbers and names",
        found=why,
        fix=ADVICE[Reason.SIZE_FOLLOWS]
        if reason_of(why) is Reason.SIZE_FOLLOWS
        else "give the state the same shape at every step, such as float32[batch, 64]",
    )


def forward_fails(
    subject: Subject,
    error: Exception,
    inputs: Mapping[str, Tensor],
    states: Mapping[str, Tensor | None],
    held: Mapping[Place, object],
) -> RefusedError:
    """Return the refusal of a module that does not run on tensors of its specs."""
    passed = {name: value for name, value in {**inputs, **states}.items() if value is not None}
    sizes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in passed.items())
    kept = [place.name for place, value in held.items() if isinstance(value, Tensor) and value.dim()]
    given = {axis.name for spec in subject.inputs.values() for axis in spec.axes()}
    own = {axis.name for spec in subject.states.values() if spec for axis in spec.axes()} - given - {"batch"}
    fix = "give specs that forward takes"
    if own:
        fix += (
            f"; states have {' and '.join(sorted(own))}, and inputs do not: where a state's size follows "
            "from an input's, write numbers for both"
        )
    if kept:
        fix += f", and a module that has not run before, since it keeps {', '.join(map(repr, kept[:4]))}"
    return RefusedError(
        "forward-failed",
        expected=f"{location(subject)} to run on {sizes}",
        found=_raised(error),
        fix=fix,
    )


def inputs_fail(subject: Subject, error: Exception, inputs: Mapping[str, Tensor], place: str) -> InputError:
    """Return the error for inputs that a module which was understood does not run on.

    Args:
        subject: the module.
        error: what it raised.
        inputs: what it was given.
        place: which part of the inputs that is.
    """
    return InputError(
        "forward-failed",
        expected=f"{location(subject)} to run on {place}: {', '.join(map(_shown, inputs.items()))}",
        found=_raised(error),
        fix="give inputs that the network takes; ids have to lie in its tables "
        "(a spec says so: 'int64[batch, time] in 0..19')",
    )


def _shown(named: tuple[str, Tensor]) -> str:
    """Return "ids int64[2, 7] of 1..30": shape and dtype, and of integers what they go from and to."""
    name, value = named
    text = f"{name} {describe(str(value.dtype).removeprefix('torch.'), value.shape)}"
    if value.dtype.is_floating_point or not value.numel():
        return text
    return f"{text} of {int(value.min())}..{int(value.max())}"


def _raised(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}") + user_line(error)


def no_outputs(subject: Subject, result: object) -> RefusedError:
    """Return the refusal of a module that gives no tensor."""
    return RefusedError(
        "no-outputs",
        expected=f"{location(subject)} to return tensors",
        found=f"a {type(result).__name__}",
        fix="return a tensor, or a tuple, list, dict or dataclass of tensors",
    )


def complex_output(subject: Subject, name: str, value: Tensor) -> RefusedError:
    """Return the refusal of a module that gives complex numbers."""
    return RefusedError(
        "complex-output",
        expected=f"{name} of {location(subject)} to be real: ONNX has no complex numbers",
        found=str(value.dtype).removeprefix("torch."),
        fix="return `torch.view_as_real(z)`, which has a last axis of real and imaginary part",
    )


def list_grows(subject: Subject, place: Place) -> RefusedError:
    """Return the refusal of a list that has more tensors after each call."""
    name = ".".join(part for part in (place.module, place.attribute, *place.inside[:-1]) if part)
    return RefusedError(
        "growing-state",
        expected=f"{name!r} in {location(subject, place.module)} to hold as many tensors from step to step",
        found="more after the second call than after the first",
        fix=_FRAMES,
    )


# What to do about a reason; of several the first counts.
ADVICE: dict[Reason, str] = {
    Reason.SIZE_FOLLOWS: "a state's size that forward computes from an input's cannot be free: write numbers "
    "for that input's sizes, 'float32[batch, 3, 32, 48]', and export a file for each that you need",
    Reason.DATA_DEPENDENT: "compute both and choose: for `if keep: h = h * 0.5` write "
    "`h = torch.where(keep, h * 0.5, h)`",
    Reason.SIZE_BY_VALUE: "keep the full size and mask what is not there: for `cache[n - count:]` write "
    "`torch.where(torch.arange(n) >= n - count, cache, 0)`, and -inf where a softmax follows",
    Reason.NO_TENSOR: "keep it as a tensor: `self.register_buffer('count', torch.zeros(()))` "
    "and `self.count = self.count + 1`",
    Reason.COMPLEX: "keep real and imaginary part as two real tensors: (a + ib)(c + id) is "
    "`a * c - b * d` and `a * d + b * c`",
    Reason.NO_ONNX_FORM: "write the operation with others that ONNX has, or step the model outside of it",
    Reason.STARTS_FROM_INPUT: "export what computes that start as a model of its own, and pass the start in: "
    "`def forward(self, x, h): ...` and `return y, h`",
    Reason.UNCARRIED: "hand the state in and out: `def forward(self, x, h): ...` and `return y, h`",
    Reason.OUTSIDE_TABLE: "keep an index that is made of the step's number inside its table, as a tensor: "
    "`table[torch.clamp(position, max=n - 1)]`",
    Reason.NO_KERNEL: "compute there in float32",
    Reason.SINGLE_STEP: "let the line that fails take one step; if it needs several at once, let a step hold "
    "them: 'float32[batch, 3*time, 8]'",
    Reason.OUTSIDE_TORCH: "compute there with calls of torch; where the package has a version in plain "
    "PyTorch beside its own kernels, choose that",
    Reason.FIXED_SIZES: "write that call with others, such as products and sums, or a loop over the steps",
    Reason.FROZEN: "let that line take any number of steps: `x.shape[1]`, slices and calls of torch keep a "
    "size free, `range(x.shape[1])` and sizes written as numbers do not",
}


def advice(said: Iterable[str]) -> str:
    """Return the fix for what stands in the way, with a sample of it."""
    found = {reason_of(text) for text in said}
    fixes = (fix for reason, fix in ADVICE.items() if reason in found)
    return next(fixes, "write that part with other operations; docs/support.md shows how others are written")


_PLACE = re.compile(r"\S+\.(?:h|cc|cpp):\d+ (?:\w+::)*\w+(?:\([^)]*\))?(?: |$)")  # in ONNX Runtime's sources
_SIZES = re.compile(r"(?i)must match|mismatched dim|broadcast|cannot be reshaped|invalid dimensions")


def engine_says(text: str, what: str = "") -> Because:
    """Return what ONNX Runtime says went wrong, behind what was tried, without what only its authors need."""
    missing = re.search(r"Could not find an implementation for (\w+)\(\d+\) node with name '([^']*)'", text)
    if missing:
        said = f"there is no kernel for {missing[1]} (node {missing[2]!r}) in the dtype that it gets"
        return Because(f"{what}{said}", Reason.NO_KERNEL)
    node = re.findall(r"running (\w+) node\. Name:'([^']*)'", text)
    message = _PLACE.sub("", text.rpartition("Status Message: ")[2])
    said = f"{node[-1][0]} (node {node[-1][1]!r}) fails: {message}" if node else message
    reason = Reason.OUTSIDE_TABLE if "index out of range" in text else None
    if _SIZES.search(message):
        reason = Reason.FROZEN
    return Because(f"{what}{said}", reason)


def random(subject: Subject, where: str) -> RefusedError:
    """Return the refusal of a module that draws random numbers in eval mode, or remembers elsewhere."""
    if where:
        found = f"different results from two runs; random numbers are drawn at {where}"
        fix = "draw them only `if self.training:`, or take the noise as an input: `forward(self, x, noise)`"
    else:
        found = "different results from two fresh copies, so that it keeps something outside of itself"
        fix = "keep it in a buffer or an attribute of the module: `self.h = new_h`"
    return RefusedError(
        "random",
        expected=f"{location(subject)} to give the same for the same inputs in eval mode",
        found=found,
        fix=fix,
    )


def shape_varies(subject: Subject, name: str, first: object, second: object) -> RefusedError:
    """Return the refusal of a result whose size depends on values."""
    return RefusedError(
        "data-dependent-shape",
        expected=f"{name} of {location(subject)} to have a shape that only the inputs' sizes decide",
        found=f"{first} in one run and {second} in another",
        fix="keep the shape and mask instead: `torch.where(keep, value, 0)` for `value[keep]`",
    )


def start_shape(subject: Subject, place: Place, start: Tensor, spec: TensorSpec) -> RefusedError:
    """Return the refusal of memory that changes its shape at the first step."""
    return RefusedError(
        "start-shape",
        expected=f"{place.name!r} in {location(subject, place.module)} to start as {spec.text}",
        found=f"shape {tuple(start.shape)}",
        fix="start it with one row, such as torch.zeros(1, 64), or with the shape it has later",
    )


def changes_kind(subject: Subject, place: Place) -> RefusedError:
    """Return the refusal of an attribute that stops being a tensor."""
    return RefusedError(
        "state-vanishes",
        expected=f"{place.name!r} in {location(subject, place.module)} to stay a tensor",
        found="a tensor before the call and something else after it",
        fix="keep it a tensor of one shape: `self.h = new_h`",
    )
