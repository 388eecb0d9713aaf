"""Which part of forward's result is a declared state's next value: settled by name and structure."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from rnnx.errors import RnnxError, UsageError
from rnnx_export.plan import IN_PLACE
from rnnx_export.refusals import growing_argument
from rnnx_export.structure import Path, children, flatten, shape_of

_AFFIX = re.compile(r"^(new|next|out|updated)_|_(new|next|out|n|t|1|updated)$|(?<=[a-z])(n|t|1)$")


def pair(
    trees: Mapping[str, Any],
    given: Mapping[str, dict[Path, Tensor]],
    result: Any,
    mutated: set[str],
    returns: Any,
    function: Any,
    takes: Callable[[str, Path], bool],
) -> dict[str, Path]:
    """Return for each state parameter the path of its next value in `result`, or IN_PLACE.

    Args:
        trees: structure of each state argument.
        given: the tensors passed for it, by path inside; empty where it was None.
        result: what forward returned.
        mutated: parameters whose tensors forward changed in place.
        returns: the caller's names for the parts of the result, or None.
        function: the method, whose return statements may name the parts.
        takes: whether forward takes the part at a path for a state that began as None.

    Raises:
        UsageError: `state-ambiguous` lists the candidates, `state-without-next` says there is none.
    """
    nodes = _nodes(result)
    names = _names(result, returns, function)
    candidates = {
        p: [path for path, node in nodes if _fits(tree, given[p], node, result)] for p, tree in trees.items()
    }
    settled: dict[str, Path] = {}
    known = dict(nodes)
    for parameter, paths in candidates.items():
        if len({tuple(id(leaf) for _, leaf in flatten(known[path])) for path in paths}) == 1:
            # The same tensors more than once: any of them is the state, the first is the output.
            candidates[parameter] = paths[-1:]
    for parameter in trees:
        named = [path for path in candidates[parameter] if _same_name(names.get(path), parameter)]
        if len(named) == 1:
            settled[parameter] = named[0]
        elif parameter in mutated and returns is None:
            settled[parameter] = IN_PLACE
        elif not given[parameter] and len(candidates[parameter]) > 1:
            fit = _outermost([path for path in candidates[parameter] if takes(parameter, path)])
            candidates[parameter] = fit or candidates[parameter]
    while True:
        taken = [path for path in settled.values() if path != IN_PLACE]
        open_ = {p: [c for c in candidates[p] if not _overlaps(c, taken)] for p in trees if p not in settled}
        single = {p: paths[0] for p, paths in open_.items() if len(paths) == 1}
        if not single:
            break
        parameter, path = next(iter(single.items()))
        settled[parameter] = path
    for parameter, paths in open_.items():
        raise _unsettled(parameter, trees, given, paths, nodes)
    return settled


def part_names(result: Any, returns: Any) -> dict[Path, str]:
    """Return names for parts of a result: from `returns`, and from its own keys and fields."""
    names = {path: path[-1] for path, _ in _nodes(result) if path and not path[-1].isdigit()}
    if returns is None:
        return names
    if isinstance(returns, str):
        return {**names, (): returns}
    described = dict(_walk(returns))
    for path, name in described.items():
        if path not in dict(_nodes(result)):
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


def _nodes(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    parts = children(value) or []
    return [(path, value), *(node for name, part in parts for node in _nodes(part, (*path, name)))]


def _names(result: Any, returns: Any, function: Any) -> dict[Path, str]:
    written = {} if returns is not None else _return_names(function)
    return {**written, **part_names(result, returns)}


def _return_names(function: Any) -> dict[Path, str]:
    """Return the variable names in the return statements, where all of them agree."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: list[dict[Path, str]] = []
    body = tree.body[0]
    for node in _own_returns(body):
        names: dict[Path, str] = {}
        if node.value is not None:
            _read_names(node.value, (), names)
        found.append(names)
    if not found:
        return {}
    return {path: name for path, name in found[0].items() if all(other.get(path) == name for other in found)}


def _own_returns(node: ast.AST) -> list[ast.Return]:
    inner = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return):
            inner.append(child)
        elif not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            inner.extend(_own_returns(child))
    return inner


def _read_names(node: ast.expr, path: Path, names: dict[Path, str]) -> None:
    if isinstance(node, ast.Name):
        names[path] = node.id
    elif isinstance(node, ast.Attribute):
        names[path] = node.attr
    elif isinstance(node, ast.Tuple | ast.List):
        for index, part in enumerate(node.elts):
            _read_names(part, (*path, str(index)), names)


def _same_name(name: str | None, parameter: str) -> bool:
    return name is not None and (name == parameter or _AFFIX.sub("", name) == _AFFIX.sub("", parameter))


def _fits(tree: Any, given: dict[Path, Tensor], node: Any, whole: Any) -> bool:
    """Whether a part of the result has the structure, dtypes and sizes of a state's value."""
    leaves = flatten(node)
    if not all(isinstance(leaf, Tensor) for _, leaf in leaves):
        return False
    if not given:
        # A state that starts as None shows its structure only here; the whole result is never one.
        return node is not whole
    if shape_of(tree) != shape_of(node):
        return False
    values = list(given.values())
    return all(
        leaf.shape == value.shape and leaf.dtype == value.dtype
        for (_, leaf), value in zip(leaves, values, strict=True)
    )


def _grown(before: Tensor, after: Tensor) -> bool:
    """Whether a tensor came back longer along one axis."""
    if before.dim() != after.dim() or before.dtype != after.dtype:
        return False
    growth = [new - old for old, new in zip(before.shape, after.shape, strict=True)]
    return sum(step != 0 for step in growth) == 1 and sum(growth) > 0


def _outermost(paths: list[Path]) -> list[Path]:
    """Return the paths that lie inside no other of them."""
    return [path for path in paths if not any(path[: len(o)] == o for o in paths if o != path)]


def _overlaps(path: Path, taken: list[Path]) -> bool:
    return any(path[: len(other)] == other or other[: len(path)] == path for other in taken)


def _unsettled(
    parameter: str,
    trees: Mapping[str, Any],
    given: Mapping[str, dict[Path, Tensor]],
    paths: list[Path],
    nodes: list[tuple[Path, Any]],
) -> RnnxError:
    def describe(path: Path, node: Any) -> str:
        place = f"result{''.join(f'[{part}]' for part in path)}"
        tensors = [leaf for _, leaf in flatten(node) if isinstance(leaf, Tensor)]
        return f"{place} {tuple(tensors[0].shape) if len(tensors) == 1 else f'of {len(tensors)} tensors'}"

    example = ", ".join(repr(name) for name in ("y", *trees))
    if paths:
        listed = "; ".join(describe(path, node) for path, node in nodes if path in paths)
        return UsageError(
            "state-ambiguous",
            expected=f"one part of forward's result that is the next value of state {parameter!r}",
            found=f"{len(paths)} that fit: {listed}",
            fix=f"name the parts in order: returns=({example})",
        )
    values = list(given[parameter].values())
    for path, node in nodes:
        if len(values) == 1 and isinstance(node, Tensor) and _grown(values[0], node):
            return growing_argument(parameter, f"{tuple(values[0].shape)} in, {describe(path, node)} out")
    listed = "; ".join(describe(path, node) for path, node in nodes if children(node) is None)
    return UsageError(
        "state-without-next",
        expected=f"forward to return the next value of state {parameter!r} in the same shapes",
        found=f"no part of the result fits: {listed}",
        fix=f"return it as well, and name the parts if need be: returns=({example})",
    )
