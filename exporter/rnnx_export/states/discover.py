"""From what the runs showed to the plan: inputs, outputs, and every state wherever it hides."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rnnx.errors import RefusedError
from rnnx_export import refusals
from rnnx_export.calls.delays import Ahead
from rnnx_export.calls.kinds import LOOKS_EVERYWHERE, PASTS, POSITIONS, RECURRENT, RUNNING, SHIFTS, SLOTS
from rnnx_export.calls.types import Lift, RecordedCall
from rnnx_export.diagnostics import Because, Reason, quiet
from rnnx_export.module import attributes
from rnnx_export.module.attributes import Place
from rnnx_export.module.spec import TensorSpec
from rnnx_export.module.structure import Path, copied, every_part, flatten, matched_leaves, part_at, tensors
from rnnx_export.module.subject import Subject
from rnnx_export.module.tensors import alike
from rnnx_export.states.arguments import Feedback, Observed, pair, part_names
from rnnx_export.states.branches import settle
from rnnx_export.states.buffers import constant, measured, remembered, unique
from rnnx_export.states.causality import why_not_stepped
from rnnx_export.states.export_plan import Argument, Convention, Plan, State
from rnnx_export.states.layouts import AnyFold, split
from rnnx_export.states.observations import Exploration, Run, narrow_start
from rnnx_export.states.outputs import find_outputs, like_states, returned
from rnnx_export.states.pairing import ShownByRuns
from rnnx_export.states.program import Program

_IN_ORDER = "lengths were drawn longest first, the only order that forward takes"
_WHOLE_ROW = "a row was always as long as the chunk, since forward makes a size of the longest"
_FROM_INPUT = "starts from a state computed from an input"


def discover(
    subject: Subject, returns: Any = None, *, fallbacks: Collection[str] = (), ahead: bool = False
) -> Plan:
    """Run the subject and return the plan of its export.

    Args:
        subject: the module and its arguments.
        returns: names for the parts of forward's result, nested as it is, or None.
        fallbacks: kinds of calls to lift by a fallback rule, since they may also be meant within a call:
            POSITIONS go on counting where the call before stopped, SHIFTS cut and fill a stream.
        ahead: whether calls that look ahead are lifted too, their results being late for that.

    Raises:
        RefusedError: a reason why the module cannot be exported.
        UsageError: `state-ambiguous`, `state-without-next`, `bad-returns`.
    """
    with quiet():
        seen = explored(subject)
        pairs = _pairs(seen, returns)
        origins = _origins(subject, pairs)
        if any(spec is None for spec in subject.states.values()):
            for name, origin in origins.items():
                if subject.states[name] is None:
                    subject.settle(name, _spec_of_result(seen, name, origin))
            origins = {name: origin for name, origin in origins.items() if name in subject.states}
            seen = Exploration(subject)
        used = {*subject.inputs, *subject.states}
        states = [*_declared(seen, origins), *remembered(seen, used)]
        lifts, lifted, loops, more = _hidden(seen, used, fallbacks, ahead=ahead)
        outputs, reason = find_outputs(seen, returns, origins)
        if not states and not lifted:
            seen.notes += [*like_states(seen, outputs, returns), *_left_out(seen)]
        decided = settle(seen)
        seen.notes += decided.notes
        places = [state.origin for state in states if isinstance(state.origin, Place)]
        shapes = attributes.templates(seen.base.module, places)
        every = [*states, *lifted]
        convention = Convention(subject, pairs, outputs)
        plan = Plan(
            subject,
            convention,
            outputs,
            every,
            lifts,
            None,
            loops,
            seen.notes,
            shapes,
            seen.sizes,
            more,
            sides=decided.sides,
            both=decided.both,
        )
        if lifts and states and reason is None:
            # What the module carries by itself, call by call, need not be carried once more.
            fewer = _with_fewer_lifts(plan)
            plan = next((other for other in fewer if why_not_stepped(other) is None), plan)
        looks = _looks_everywhere(seen, states)
        if looks is not None and reason is None and why_not_stepped(plan) is not None:
            reason = looks
        plan = dataclasses.replace(plan, hint=_start_in_loop(seen))
        return _without_returned_states(plan.made_whole(reason) if reason else plan, seen, returns)


def explored(subject: Subject) -> Exploration:
    """Run the subject, with lengths in order, or of which one is whole, if it does not take others."""
    try:
        return Exploration(subject)
    except RefusedError:
        for descending, full in ((True, False), (False, True), (True, True)):
            if not subject.restrict_lengths(descending=descending, full=full):
                raise
            try:
                seen = Exploration(subject)
            except RefusedError:
                continue  # that was not the cause
            seen.notes += [_IN_ORDER] * descending + [_WHOLE_ROW] * full
            return seen
        subject.restrict_lengths(descending=False, full=False)
        raise


def _with_fewer_lifts(plan: Plan) -> Iterator[Plan]:
    """Yield plans without any lifts, then without some of those that sum over time."""
    running = [key for key, lift in plan.lifts.items() if lift.kind in RUNNING]
    some = [chosen for count in (1, 2, 3) for chosen in itertools.combinations(running, count)]
    for left_out in (tuple(plan.lifts), *(chosen for chosen in some if len(chosen) < len(plan.lifts))):
        names = {name for key in left_out for name in plan.lifts[key].names}
        fewer = plan.without_states(names)
        lifts = {key: lift for key, lift in fewer.lifts.items() if key not in left_out}
        loops = plan.loops and any(lift.axis < 0 for lift in lifts.values())
        yield dataclasses.replace(fewer, lifts=lifts, loops=loops)


def _without_returned_states(plan: Plan, seen: Exploration, returns: Any) -> Plan:
    """Return the plan without outputs that are the next values of lifted states: they are states now."""
    if not plan.lifts or plan.loops:
        return plan
    inputs, _ = seen.draw(0)
    whole = plan.without_lifts_ahead()
    program = Program(whole)
    program(*inputs.values(), *whole.start(plan.sizes).values())
    kept = [output for output in plan.outputs if output.path not in program.returned]
    if not kept or len(kept) == len(plan.outputs):
        return plan
    names = part_names(seen.base.first.result, returns)
    if len(kept) == 1 and kept[0].path not in names:
        kept = [dataclasses.replace(kept[0], name=names.get((), "y"))]
    convention = dataclasses.replace(plan.convention, outputs=kept)
    return dataclasses.replace(plan, outputs=kept, convention=convention)


def _pairs(seen: Exploration, returns: Any) -> dict[str, Feedback]:
    """Return where the next value of each state argument is; one that began as None gets its structure."""
    subject = seen.subject
    put = _put_into_containers(seen)
    for parameter in put:
        tree = seen.base.first.held[parameter]
        subject.adopt_structure(parameter, tree, (), [path for path, _ in tensors(tree)])
    observed = {name: _observed(seen, name) for name in subject.state_trees() if name not in put}
    method = getattr(type(subject.original), subject.method, None)
    results = [seen.base.first.result, seen.other.first.result]
    settled = pair(observed, results, returns, method, _takes(seen), ShownByRuns(seen))
    for parameter, feedback in settled.items():
        if feedback.part is not None and not observed[parameter].passed:
            subject.adopt_structure(parameter, results[0], feedback.part, list(feedback.leaves))
    return settled | dict.fromkeys(put, Feedback(None, {}))


def _put_into_containers(seen: Exploration) -> list[str]:
    """Return the state arguments that began as None in a container, and that forward put something in for."""
    subject, call = seen.subject, seen.base.first
    return [
        name for name in subject.slots if subject.state_trees()[name] is None and tensors(call.held[name])
    ]


def _observed(seen: Exploration, parameter: str) -> Observed:
    """Return what calls did with a state argument."""
    subject = seen.subject
    paths = {name: subject.place(name)[1] for name in subject.state_names(parameter)}
    runs = (seen.base, seen.other)
    passed = {path: value for name, path in paths.items() if (value := seen.base.passed[name]) is not None}
    written = frozenset(
        path
        for name, path in paths.items()
        if any(name in call.written for run in runs for call in (run.first, run.second))
    )
    empty = {subject.place(name) for name in subject.empty}
    for run in runs:
        found = run.first.left[parameter]
        gone = [path for path in passed if not isinstance(found.get(path), Tensor)]
        count = sum(
            isinstance(leaf, Tensor) and (parameter, path) not in empty for path, leaf in found.items()
        )
        # An entry that began as None may be filled.
        if passed and (gone or not len(passed) <= count <= len(paths)):
            name = ".".join((parameter, *gone[0])) if gone else parameter
            raise refusals.argument_varies(subject, name, len(passed), count)
    # Two calls from the same states with other inputs.
    left = [call.left[parameter] for call in (seen.base.first, seen.base.second)]
    remembers = any(not torch.equal(left[0][path], left[1][path]) for path in written)
    if written and not remembers:
        remembers = _counts(seen, {name: path for name, path in paths.items() if path in written})
    every = [run.first.left[parameter] for run in runs]
    return Observed(subject.state_trees()[parameter], passed, every, written, remembers)


def _counts(seen: Exploration, paths: Mapping[str, Path]) -> bool:
    """Whether a call writes something other than zeros over these states where they start as zeros.

    What takes in no input and stays at its start is scratch memory; what leaves it counts calls.
    """
    inputs, passed = seen.draw(0)
    zeros = {name: torch.zeros_like(value) for name in paths if (value := passed[name]) is not None}
    arguments = seen.subject.arguments(inputs, {**passed, **zeros})
    seen.subject.invoke(seen.subject.fresh(), arguments)
    left = {name: dict(flatten(arguments[seen.subject.place(name)[0]])).get(paths[name]) for name in zeros}
    return any(isinstance(value, Tensor) and bool((value != 0).any()) for value in left.values())


def _origins(subject: Subject, pairs: Mapping[str, Feedback]) -> dict[str, Path | Argument]:
    """Return where the next value of each declared state is, by flat name."""
    places = {name: subject.place(name) for name in subject.states}
    return {
        name: pairs[parameter].leaves.get(inside, Argument(parameter, inside))
        for name, (parameter, inside) in places.items()
    }


def _leaves(result: Any, path: Path) -> list[Path]:
    """Return the paths of the tensors in the part of a result at `path`."""
    return [leaf for leaf, _ in tensors(result) if leaf[: len(path)] == path]


def _takes(seen: Exploration) -> Callable[[str, Path], bool]:
    """Return what tells whether forward takes a part of its own result for a state that began as None.

    A state has no time axis, and what comes back for it has its structure and its numbers of axes.
    """
    subject = seen.subject

    def takes(parameter: str, path: Path) -> bool:
        result = seen.base.first.result
        leaves = _leaves(result, path)
        for leaf in leaves:
            shape = seen.shape(returned(leaf))
            if isinstance(shape, str) or TensorSpec(torch.float32, shape).has("time"):
                return False
        inputs, passed = seen.draw(0)
        part = copied(part_at(result, path))
        try:
            again = subject.call(subject.fresh(), inputs, passed, {parameter: part})
            back = part_at(again, path)
        except Exception:  # forward may refuse what it does not take in any way it likes
            return False
        sizes = [[value.dim() for _, value in tensors(tree)] for tree in (part, back)]
        return matched_leaves(part, back) is not None and sizes[0] == sizes[1]

    return takes


def _left_out(seen: Exploration) -> list[str]:
    """Return a note for each parameter that got nothing, and for which forward takes a part of its result.

    Over a chunk the memory may well be carried inside; a step that is called so begins anew each time.
    """
    subject, takes = seen.subject, _takes(seen)
    if any(spec.has("time") for spec in subject.inputs.values()):
        return []
    result = seen.base.first.result
    paths = [path for path, part in every_part(result) if path and tensors(part)]
    given = {*subject.trees["input"], *subject.trees["state"], *subject.constants, *subject.slots}
    notes = []
    for name in (name for name, each in subject.order.items() if each.default is None and name not in given):
        path = next((path for path in paths if takes(name, path) and _moves(seen, name, path)), None)
        if path is not None:
            notes.append(
                f"nothing is carried, though forward takes {'.'.join(('y', *path))!r} of its result for "
                f"{name!r}: if that is its next value, say so: state={{{name!r}: None}}"
            )
    return notes


def _moves(seen: Exploration, parameter: str, path: Path) -> bool:
    """Whether a part of the result, given for a parameter, makes any difference to the result."""
    inputs, passed = seen.draw(0)
    part = copied(part_at(seen.base.first.result, path))
    results = [
        tensors(seen.subject.call(seen.subject.fresh(), inputs, passed, given))
        for given in ({}, {parameter: part})
    ]
    return any(not torch.equal(left, right) for (_, left), (_, right) in zip(*results, strict=False))


def _spec_of_result(seen: Exploration, name: str, origin: Path | Argument) -> TensorSpec:
    def pick(run: Run) -> Any:
        if isinstance(origin, Argument):
            return run.first.left[origin.parameter][origin.inside]
        return run.first.leaf(origin)

    shape = seen.shape(pick)
    if isinstance(shape, str):
        raise refusals.state_shape(seen.subject, name, shape)
    return TensorSpec(pick(seen.base).dtype, shape)


def _declared(seen: Exploration, origins: Mapping[str, Path | Argument]) -> list[State]:
    """Return the declared states; those that may start as None are measured."""
    subject = seen.subject
    states = []
    for name, spec in subject.states.items():
        assert spec is not None
        if spec.has("time"):
            raise refusals.state_shape(subject, name, "it has a time axis, so it would grow")
        states.append(State(name, spec, constant(spec, 0.0), origins[name]))
    unmeasured = {state.name: state for state in states if subject.starts_as_none(state.name)}
    if not unmeasured:
        return states

    def run(values: Mapping[str, Tensor | None], seed: int) -> list[Tensor]:
        inputs, passed = seen.draw(seed)
        result = subject.call(subject.fresh(), inputs, {**passed, **values})
        return [leaf for _, leaf in flatten(result) if isinstance(leaf, Tensor)]

    return measured(states, run, {name: state.spec for name, state in unmeasured.items()}, seen)


def _hidden(
    seen: Exploration, used: set[str], fallbacks: Collection[str], *, ahead: bool
) -> tuple[dict[str, Lift], list[State], bool, frozenset[str]]:
    """Return the calls to lift, their states, whether one lies in a loop over time, and kinds left out."""
    lifts: dict[str, Lift] = {}
    states: list[State] = []
    loops = False
    more: set[str] = set()
    has_time = "time" in seen.variants
    last = None
    for recorded in seen.base.first.recordings:
        before, last = last, recorded
        if recorded.kind not in SLOTS or not seen.starts_constant(recorded):
            continue
        axis = seen.time_axis(recorded)
        if recorded.kind in (*POSITIONS, *SHIFTS):
            if axis is None or (recorded.kind in SHIFTS and not seen.cuts_alike(recorded, axis)):
                continue
            if recorded.kind not in fallbacks:
                more.add(recorded.kind)
                continue
        if (
            recorded.kind in ("cat", "pad")
            and before is not None
            and before.kind == "front"
            and before.key in lifts
        ):
            continue  # the same call
        recurrent = recorded.kind in RECURRENT
        single = all(recorded.like.shape[place] == 1 for place in recorded.axes)
        once = seen.repeats(recorded) if has_time else single
        looped = recurrent and axis is None and recorded.key.endswith(":1") and once
        if axis is None and not (looped and _rows_alike(recorded.start)):
            continue
        looks = _ahead(seen, recorded, axis) if ahead and axis is not None else None
        if recorded.kind in PASTS and looks is None and recorded.axes[axis or 0] <= 0:
            continue
        waits = recorded.kind == "conv_transpose" and recorded.after.get(axis or 0, 0) > 0
        if looks is None and (waits or recorded.kind == "mirror"):
            continue  # it needs frames to come
        loops = loops or (looped and has_time)
        slots = SLOTS[recorded.kind]
        if looks is not None and axis is not None and _frames_held(recorded, axis, looks) == 0:
            slots = ()  # it is late, and needs no earlier frames
        names = tuple(unique(f"{recorded.path}.{slot}".strip("."), used) for slot in slots)
        lift = Lift(recorded.key, recorded.kind, -1 if axis is None else axis, names, looks)
        lifts[recorded.key] = lift
        states += [_site_state(seen, recorded, lift, slot) for slot in range(len(names))]
    return lifts, states, loops, frozenset(more)


def _ahead(seen: Exploration, recorded: RecordedCall, axis: int) -> Ahead | None:
    """Return how a recorded call looks ahead along time, None if it does not."""
    after = recorded.after.get(axis, 0)
    if after <= 0 and recorded.kind != "mirror":
        return None
    frames = recorded.like.shape[axis] // seen.sizes["time"]
    steps = -(-after // frames)
    key = recorded.key
    shape = seen.shape(lambda run: like if (like := _like(run, key)) is not None else recorded.like)
    batch = shape.index("batch") if not isinstance(shape, str) and "batch" in shape else None
    return Ahead(steps, steps * frames - after, frames, batch)


def _like(run: Run, key: str) -> Tensor | None:
    found = run.first.recorded(key)
    return None if found is None else found.like


def _frames_held(recorded: RecordedCall, axis: int, ahead: Ahead) -> int:
    """Return how many frames before those of a step a call that looks ahead needs."""
    before = recorded.axes[axis]
    if recorded.kind == "mirror":  # whole steps, and what is mirrored at either end
        before = -(-max(before, recorded.after[axis]) // ahead.frames) * ahead.frames
    return before + ahead.steps * ahead.frames


def _site_state(seen: Exploration, recorded: RecordedCall, lift: Lift, slot: int) -> State:
    def same(run: Run) -> RecordedCall:
        found = run.first.recorded(recorded.key)
        assert found is not None
        return found

    name = lift.names[slot]
    counted = SLOTS[recorded.kind][slot] == "position"
    if recorded.kind in RECURRENT:
        shape = seen.shape(lambda run: same(run).start[slot])
        dtype = recorded.start[slot].dtype
    elif counted:
        shape, dtype = (), recorded.like.dtype if recorded.kind == "arange" else torch.int64
    else:
        shape = seen.shape(lambda run: same(run).like)
        dtype = recorded.like.dtype
        if not isinstance(shape, str):
            frames = recorded.axes[lift.axis]
            if lift.ahead is not None:
                frames = _frames_held(recorded, lift.axis, lift.ahead)
            kept = (frames,) if recorded.kind in PASTS else ()
            shape = (*shape[: lift.axis], *kept, *shape[lift.axis + 1 :])
    fold: AnyFold | None = None
    if isinstance(shape, str) and lift.ahead is None:

        def kept_of(run: Run) -> Tensor:
            found = same(run)
            if recorded.kind in RECURRENT:
                return found.start[slot]
            first = found.like.select(lift.axis, 0)
            if recorded.kind not in PASTS:
                return first
            frames = found.axes[lift.axis]
            return first.unsqueeze(lift.axis).repeat_interleave(frames, lift.axis)

        folded = seen.folded(kept_of, lambda run: same(run).like)
        shape, fold = folded or (shape, None)
    if isinstance(shape, str):
        raise refusals.state_shape(seen.subject, name, shape)
    spec = TensorSpec(dtype, shape)
    if counted or not recorded.start:
        return State(name, spec, constant(spec, recorded.fill), lift.key, fold)
    start = split(recorded.start[slot], fold)
    full = start.expand(spec.sizes(seen.sizes)) if recorded.kind == "cat" else start
    return State(name, spec, narrow_start(name, full, spec), lift.key, fold)


def _looks_everywhere(seen: Exploration, states: list[State]) -> str | None:
    """Return why the model needs the whole sequence at once, if a call says so by itself."""
    for recorded in seen.base.first.recordings:
        timed = seen.time_axis(recorded) is not None
        if timed and recorded.kind in RECURRENT and not states and not seen.starts_constant(recorded):
            said = f"{recorded.path or recorded.kind!r} {_FROM_INPUT} ({recorded.where})"
            return Because(said, Reason.STARTS_FROM_INPUT)
        what = LOOKS_EVERYWHERE.get(recorded.kind)
        if timed and what is not None:
            place = f"{recorded.path!r} " if recorded.path else ""
            return f"{what} {place}({recorded.where})"
    return None


def _start_in_loop(seen: Exploration) -> str | None:
    """Return that the first of the calls that a loop over time makes starts from an input, if it is so."""
    for recorded in seen.base.first.recordings:
        looped = recorded.kind in RECURRENT and recorded.key.endswith(":1") and seen.repeats(recorded)
        if looped and seen.time_axis(recorded) is None and not seen.starts_constant(recorded):
            said = f"{recorded.path or recorded.kind!r} {_FROM_INPUT} ({recorded.where})"
            return Because(said, Reason.STARTS_FROM_INPUT)
    return None


def _rows_alike(start: tuple[Tensor, ...]) -> bool:
    """Whether all rows of a cell's start, [batch, units], are one: else it is computed, and no state's."""
    return all(alike(value[:1], value) for value in start if value.dim())
