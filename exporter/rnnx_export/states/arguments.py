"""Which part of forward's result is a declared state's next value: settled by name, structure and evidence.

A state argument is handed back by its caller in one of two ways: as the part of the result that is its next
value, just as it came; or as the very object that was passed, which forward has changed. Both are seen in a
call: which parts of the result have the state's structure, and which of its tensors were written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rnnx.errors import RnnxError, UsageError
from rnnx.spelling import spelled
from rnnx_export.module.return_names import return_names, same_name
from rnnx_export.module.structure import Path, children, every_part, flatten, matched_leaves
from rnnx_export.refusals import growing_argument

# A state argument and the place of one tensor in it; None for an argument that began as None.
Part = tuple[str, Path | None]

_FLOW = "a recurrent call starts from the one and ends with the other"
_TIME = "two chunks then give what the whole sequence gives"


@dataclasses.dataclass(frozen=True)
class Feedback:
    """Where the next value of a state argument is, once forward has returned.

    Attributes:
        part: the part of the result that is handed back as it came; None where it is the argument itself.
        leaves: by leaf of the argument, the path of its next value in the result. Those that are missing
            lie in the argument, where forward left them.
    """

    part: Path | None
    leaves: Mapping[Path, Path]


class Evidence(Protocol):
    """What calls show about the tensors of state arguments: `rnnx_export.states.pairing`."""

    def flow(self, part: Part, choices: Sequence[Path]) -> Path | None:
        """Return the one of `choices` in which lies what a recurrent call ends with that `part` starts."""

    def time(
        self, choices: Mapping[Part, Sequence[Path]], fixed: Mapping[Part, Path]
    ) -> dict[Part, Path] | None:
        """Return the one pairing under which two chunks give what the whole gives, None if not one does."""

    def note(self, part: Part, path: Path, evidence: str) -> None:
        """Tell the user by what a pairing was settled."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """A state argument in several calls, each from the same structure.

    Attributes:
        tree: its structure.
        passed: the tensors that were passed in the first call by path; empty where it was None.
        left: for each call, what lay in it afterwards by path.
        written: paths of the tensors that some call wrote to, or put another in the place of.
        remembers: whether what was written depends on the inputs, or counts calls.
    """

    tree: Any
    passed: Mapping[Path, Tensor]
    left: Sequence[Mapping[Path, Any]]
    written: frozenset[Path]
    remembers: bool


def pair(
    arguments: Mapping[str, Observed],
    results: Sequence[Any],
    returns: Any,
    function: Any,
    takes: Callable[[str, Path], bool],
    evidence: Evidence,
) -> dict[str, Feedback]:
    """Return for each state argument where its next value is.

    Args:
        arguments: what calls did with each of them.
        results: what forward returned in those calls.
        returns: the caller's names for the parts of the result, or None.
        function: the method, whose return statements may name the parts.
        takes: whether forward takes the part at a path for a state that began as None.
        evidence: what settles the others.

    Raises:
        UsageError: `state-ambiguous` lists the candidates, `state-without-next` says there is none.
    """
    result = results[0]
    nodes = dict(every_part(result))
    names = result_names(result, returns, function)
    candidates = {
        name: _distinct([path for path, node in nodes.items() if _fits(seen, node, result)], nodes)
        for name, seen in arguments.items()
    }
    settled: dict[str, Feedback] = {}
    for name, seen in arguments.items():
        paths = candidates[name]
        named = [path for path in paths if same_name(names.get(path), name)]
        holding = [path for path in paths if seen.written and _holds(seen, results, path)]
        memory = bool(seen.written) and seen.remembers
        if len(named) == 1 and memory and named != holding and returns is None:
            raise _two_readings(name, named, nodes)  # a name that was used again says nothing
        if len(named) == 1:
            flows = evidence.flow((name, ()), paths) if returns is None and not seen.written else None
            if flows not in (None, named[0]):
                raise _contradicted(name, named[0], flows, nodes)
            settled[name] = _returned(seen, nodes, named[0])
        elif len(holding) == 1:
            settled[name] = _returned(seen, nodes, holding[0])
        elif memory or (seen.written and not paths):
            settled[name] = _left_behind(name, seen, result, paths, named_all=returns is not None)
        elif not seen.passed and len(paths) > 1:
            fit = _outermost([path for path in paths if takes(name, path)])
            candidates[name] = fit or paths
    while True:
        used = [leaf for feedback in settled.values() for leaf in feedback.leaves.values()]
        open_ = {
            p: [c for c in candidates[p] if not _overlaps(c, used)] for p in arguments if p not in settled
        }
        single = {p: paths[0] for p, paths in open_.items() if len(paths) == 1}
        if not single:
            break
        name, path = next(iter(single.items()))
        settled[name] = _returned(arguments[name], nodes, path)
    if open_:
        settled |= _by_evidence(open_, settled, arguments, nodes, evidence)
    return settled


def _by_evidence(
    open_: Mapping[str, list[Path]],
    settled: Mapping[str, Feedback],
    arguments: Mapping[str, Observed],
    nodes: Mapping[Path, Any],
    evidence: Evidence,
) -> dict[str, Feedback]:
    """Return where the next values are of state arguments that neither names nor structure settle.

    Each tensor of theirs is looked for by itself, so that a tuple may come back as separate parts, and the
    reverse.

    Raises:
        UsageError: `state-ambiguous`, `state-without-next`.
    """
    used = [leaf for feedback in settled.values() for leaf in feedback.leaves.values()]
    choices: dict[Part, list[Path]] = {}
    for name, paths in open_.items():
        seen = arguments[name]
        if not seen.passed:
            choices[name, None] = paths
        for own, value in seen.passed.items():
            alike = _distinct([path for path, node in nodes.items() if _alike(value, node)], nodes)
            choices[name, own] = [path for path in alike if not _overlaps(path, used)]
    found: dict[Part, Path] = {}
    for part, paths in choices.items():
        path = evidence.flow(part, paths)
        if path is not None and path not in found.values():
            found[part] = path
    left = {
        part: [path for path in paths if path not in found.values()]
        for part, paths in choices.items()
        if part not in found
    }
    by_time = evidence.time(left, found) if left and all(left.values()) else None
    for name, paths in open_.items():
        if by_time is None and any(parameter == name for parameter, _ in left):
            raise _unsettled(name, arguments, paths or _first(choices, name), nodes)
    pairs = {**found, **(by_time or {})}
    for part, path in pairs.items():
        evidence.note(part, path, _FLOW if part in found else _TIME)
    return {name: _feedback(name, arguments[name], pairs, nodes) for name in open_}


def _first(choices: Mapping[Part, list[Path]], name: str) -> list[Path]:
    """Return what the first tensor of a state argument may go on as."""
    return next(paths for (parameter, _), paths in choices.items() if parameter == name)


def _feedback(name: str, seen: Observed, pairs: Mapping[Part, Path], nodes: Mapping[Path, Any]) -> Feedback:
    whole = pairs.get((name, None), pairs.get((name, ())))
    if whole is not None:
        return _returned(seen, nodes, whole)
    return Feedback(None, {own: pairs[name, own] for own in seen.passed})


def _distinct(paths: list[Path], nodes: Mapping[Path, Any]) -> list[Path]:
    """Return the paths of different parts; where tensors stand twice, the last: the first is an output."""
    tensors = {path: [id(leaf) for _, leaf in flatten(nodes[path])] for path in paths}
    return [
        path
        for index, path in enumerate(paths)
        if not any(tensors[path] == tensors[o] and not _overlaps(path, [o]) for o in paths[index + 1 :])
    ]


def _returned(seen: Observed, nodes: Mapping[Path, Any], path: Path) -> Feedback:
    """Return that a state's next value is the part of the result at `path`."""
    pairs = None if seen.tree is None else matched_leaves(seen.tree, nodes[path])
    if pairs is None:  # it began as None, and has the structure in which it comes back
        pairs = {leaf: leaf for leaf, value in flatten(nodes[path]) if isinstance(value, Tensor)}
    return Feedback(path, {own: (*path, *theirs) for own, theirs in pairs.items()})


def _holds(seen: Observed, results: Sequence[Any], path: Path) -> bool:
    """Whether a part of each result has, in its own place, all that was written to the argument."""
    for result, left in zip(results, seen.left, strict=True):
        leaves = dict(flatten(result))
        pairs = matched_leaves(seen.tree, dict(every_part(result)).get(path)) or {}
        for own in seen.written:
            theirs = leaves.get((*path, *pairs.get(own, ("",))))
            if not isinstance(theirs, Tensor) or not _same(theirs, left[own]):
                return False
    return True


def _left_behind(name: str, seen: Observed, result: Any, paths: list[Path], *, named_all: bool) -> Feedback:
    """Return where a state is that forward changed, and that no part of the result has as it was left.

    A part of the result that could be its next value too makes two readings of one call: the argument goes
    in again, or that part does. They are told apart where the result is one tensor, the only output, and
    where the caller named the parts. An argument that remembers nothing is not seen here.

    Raises:
        UsageError: `state-ambiguous`.
    """
    nodes = dict(every_part(result))
    if paths and not named_all and not isinstance(result, Tensor):
        raise _two_readings(name, paths, nodes)
    leaves: dict[Path, Path] = {}
    for own in seen.passed:
        if own in seen.written:
            continue
        # It stays what it is, unless a tensor of its own comes back for it.
        alike = [path for path, node in nodes.items() if _alike(seen.passed[own], node)]
        called = [path for path in alike if own and same_name(_key(path), own[-1])]
        if len(called) == 1:
            leaves[own] = called[0]
        elif alike and not isinstance(result, Tensor):
            raise _two_readings(".".join((name, *own)), alike, nodes)
    return Feedback(None, leaves)


def _key(path: Path) -> str | None:
    return path[-1] if path else None


def _alike(passed: Tensor, node: Any) -> bool:
    return isinstance(node, Tensor) and node.shape == passed.shape and node.dtype == passed.dtype


def _same(left: Tensor, right: Any) -> bool:
    if left is right:
        return True
    if not isinstance(right, Tensor) or left.shape != right.shape or left.dtype != right.dtype:
        return False
    return torch.equal(torch.nan_to_num(left), torch.nan_to_num(right))


def part_names(result: Any, returns: Any) -> dict[Path, str]:
    """Return names for parts of a result: from `returns`, and from its own keys and fields."""
    names = {path: path[-1] for path, _ in every_part(result) if path and not path[-1].isdigit()}
    if returns is None:
        return names
    if isinstance(returns, str):
        return {**names, (): returns}
    described = dict(_walk(returns))
    for path, name in described.items():
        if path not in dict(every_part(result)):
            raise UsageError(
                "bad-returns",
                expected=_parts(result),
                found=f"{returns!r}",
                fix="give one name for each part, nested as the result is",
            )
        if name is not None:
            names[path] = str(name)
    return names


def _parts(result: Any) -> str:
    """Return what a result has to be named, for a message."""
    paths = [".".join(path) for path, _ in flatten(result) if path]
    return (
        f"names for the parts {', '.join(paths)} of the result" if paths else "one name for the only result"
    )


def _walk(returns: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    if isinstance(returns, tuple | list):
        return [pair for index, part in enumerate(returns) for pair in _walk(part, (*path, str(index)))]
    if isinstance(returns, dict):
        return [pair for key, part in returns.items() for pair in _walk(part, (*path, str(key)))]
    return [(path, returns)]


def result_names(result: Any, returns: Any, function: Any) -> dict[Path, str]:
    """Return what the parts of a result are called: by the caller, by their keys, or in `return`."""
    written = {} if returns is not None else return_names(function, result)
    return {**written, **part_names(result, returns)}


def _fits(seen: Observed, node: Any, whole: Any) -> bool:
    """Whether a part of the result has the structure, dtypes and sizes of a state's value."""
    leaves = dict(flatten(node))
    # A layer without memory has None in its place.
    if not all(leaf is None or isinstance(leaf, Tensor) for leaf in leaves.values()):
        return False
    if not any(isinstance(leaf, Tensor) for leaf in leaves.values()):
        return False
    if seen.tree is None:
        # A state that starts as None shows its structure only here; the whole result is never one.
        return node is not whole
    pairs = matched_leaves(seen.tree, node)
    return pairs is not None and all(_alike(value, leaves[pairs[own]]) for own, value in seen.passed.items())


def _grown(before: Tensor, after: Tensor) -> bool:
    """Whether a tensor came back longer along one axis."""
    if before.dim() != after.dim() or before.dtype != after.dtype:
        return False
    growth = [new - old for old, new in zip(before.shape, after.shape, strict=True)]
    return sum(step != 0 for step in growth) == 1 and sum(growth) > 0


def _outermost(paths: list[Path]) -> list[Path]:
    """Return the paths that lie inside no other of them."""
    return [path for path in paths if not any(path[: len(o)] == o for o in paths if o != path)]


def _overlaps(path: Path, used: list[Path]) -> bool:
    return any(path[: len(other)] == other or other[: len(path)] == path for other in used)


def _unsettled(
    parameter: str, arguments: Mapping[str, Observed], paths: list[Path], nodes: Mapping[Path, Any]
) -> RnnxError:
    example = spelled("returns", ("y", *arguments))
    if paths:
        return UsageError(
            "state-ambiguous",
            expected=f"one part of forward's result that is the next value of state {parameter!r}",
            found=f"{len(paths)} that fit: {_listed(paths, nodes)}",
            fix=f"name the parts in order: {example}",
        )
    values = list(arguments[parameter].passed.values())
    for path, node in nodes.items():
        if len(values) == 1 and isinstance(node, Tensor) and _grown(values[0], node):
            return growing_argument(parameter, f"{tuple(values[0].shape)} in, {_described(path, node)} out")
    leaves = [path for path, node in nodes.items() if children(node) is None]
    return UsageError(
        "state-without-next",
        expected=f"forward to return the next value of state {parameter!r} in the same shapes",
        found=f"no part of the result fits: {_listed(leaves, nodes)}",
        fix=f"return it as well, and name the parts if need be: {example}",
    )


def _contradicted(state: str, named: Path, flows: Path | None, nodes: Mapping[Path, Any]) -> UsageError:
    return UsageError(
        "state-ambiguous",
        expected=f"the part of forward's result that is called like state {state!r} to be its next value",
        found=f"{_listed([named], nodes)} by its name, {_listed([flows or ()], nodes)} by what a recurrent "
        "call ends with that starts from it",
        fix=f"give the part that is the state its name: {spelled('returns', ('y', state))}, in the "
        "order of the result",
    )


def _two_readings(state: str, paths: list[Path], nodes: Mapping[Path, Any]) -> UsageError:
    parts = [path for path, node in nodes.items() if path and children(node) is None]
    names = [state if path == paths[0] else f"y{index or ''}" for index, path in enumerate(parts)]
    return UsageError(
        "state-ambiguous",
        expected=f"one next value of state {state!r}: what forward left in the argument, or what it returned",
        found=f"both, and they differ: {_listed(paths, nodes)} could be it too",
        fix=f"name the parts of the result: {spelled('returns', tuple(names))} if that part is the "
        "state, other names if it is an output",
    )


def _listed(paths: list[Path], nodes: Mapping[Path, Any]) -> str:
    return "; ".join(_described(path, nodes[path]) for path in paths)


def _described(path: Path, node: Any) -> str:
    place = f"result{''.join(f'[{part}]' for part in path)}"
    tensors = [leaf for _, leaf in flatten(node) if isinstance(leaf, Tensor)]
    return f"{place} {tuple(tensors[0].shape) if len(tensors) == 1 else f'of {len(tensors)} tensors'}"
