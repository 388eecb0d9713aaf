"""The name that an author gave to a value that a loop carries, read in the source the value comes from.

A captured value keeps the lines of code that led to it, from the outermost call to the innermost. Where the
innermost assigns to a variable, and the function returns that variable, the caller's variable is its name,
and so on outwards: `hidden, memory = cell(x, hidden, memory)` names both, whatever the cell calls them. Torch
keeps the lines of `forward` methods alone: what else was called on the way ends the search.
"""

from __future__ import annotations

import ast
import functools
import linecache
import re
import types
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import fx, nn

from rnnx_export.diagnostics import is_own

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_Place = tuple[int, ...]  # of a value in a tuple, which may lie in a tuple


class _Frame(NamedTuple):
    file: str
    line: int
    function: str


def author_name(node: fx.Node, module: nn.Module) -> str | None:
    """Return what a value is called where it comes from, behind the path of the module whose code it is.

    Args:
        node: with the lines that led to it, and the modules that were called.
        module: that the paths in the node lead from.

    Returns:
        `cell.hidden`, or None if no line assigns it to a variable.
    """
    frames = [_Frame(file, int(line), function) for file, line, function in _own_frames(node)]
    place: _Place | None = None
    found: tuple[str, _Frame] | None = None
    for depth, frame in enumerate(reversed(frames)):
        statement, function = _statement(frame)
        if depth == 0:
            place = _place_at(statement, frame.line)
        elif not _calls_module(statement, function, _owner(node, module, frame)[1]):
            break
        if place is None or statement is None:
            break
        if isinstance(statement, ast.Return):
            continue  # it is given to the caller at this place
        name = _target(statement, place)
        if name is None:
            break
        found = name, frame
        place = _returned(function, name)
    if found is None:
        return None
    path, _ = _owner(node, module, found[1])
    return f"{path}.{found[0]}" if path else found[0]


def _own_frames(node: fx.Node) -> list[tuple[str, str, str]]:
    return [found for found in _FRAME.findall(node.meta.get("stack_trace") or "") if is_own(found[0])]


@functools.lru_cache(maxsize=64)
def _parsed(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def _statement(frame: _Frame) -> tuple[ast.stmt | None, ast.AST | None]:
    """Return the innermost statement at a line, and the function that it is part of."""
    tree = _parsed(frame.file)
    statement: ast.stmt | None = None
    function: ast.AST | None = None
    for node in _around(tree, frame.line) if tree is not None else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node
        if isinstance(node, ast.stmt):
            statement = node
    return statement, function


def _around(node: ast.AST, line: int) -> Iterator[ast.AST]:
    """Yield the nodes that a line is part of, the outer before the inner."""
    for child in ast.iter_child_nodes(node):
        first, last = getattr(child, "lineno", None), getattr(child, "end_lineno", None)
        if first is None or (last is not None and first <= line <= last):
            yield child
            yield from _around(child, line)


def _place_at(statement: ast.stmt | None, line: int) -> _Place | None:
    """Return where in what a statement computes the expression at a line is: () for all of it."""
    value = getattr(statement, "value", None)
    if not isinstance(value, ast.expr):
        return None
    place: list[int] = []
    while isinstance(value, ast.Tuple):
        computed = [
            index
            for index, part in enumerate(value.elts)
            if not isinstance(part, ast.Name | ast.Constant)
            and part.lineno <= line <= (part.end_lineno or part.lineno)
        ]
        if len(computed) != 1:
            return None
        place.append(computed[0])
        value = value.elts[computed[0]]
    return tuple(place)


def _calls_module(statement: ast.stmt | None, function: ast.AST | None, owner: nn.Module) -> bool:
    """Whether what a statement computes is a call of a module: of an attribute of `owner`, not of a method.

    A variable of the function counts as one, such as that of a loop over modules.
    """
    call = getattr(statement, "value", None)
    if not isinstance(call, ast.Call) or function is None:
        return False
    if isinstance(call.func, ast.Attribute):
        return not hasattr(type(owner), call.func.attr)
    stored = (node.id for node in ast.walk(function) if isinstance(node, ast.Name) and _is_set(node))
    return not isinstance(call.func, ast.Name) or call.func.id in stored


def _is_set(variable: ast.Name) -> bool:
    return isinstance(variable.ctx, ast.Store)


def _target(statement: ast.stmt, place: _Place) -> str | None:
    """Return the name of the variable to which a statement assigns the value at a place, or appends it."""
    if isinstance(statement, ast.Expr):
        return _variable(_appended_to(statement.value))
    if isinstance(statement, ast.Assign):
        targets: Sequence[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    else:
        return None
    for target in targets:
        part: ast.expr | None = target
        for index in place:
            elements = part.elts if isinstance(part, ast.Tuple | ast.List) else []
            part = elements[index] if index < len(elements) else None
        name = _variable(part)
        if name is not None:
            return name
    return None


def _variable(target: ast.expr | None) -> str | None:
    """Return the name of a variable, an attribute, or of what an element is of."""
    while isinstance(target, ast.Subscript):
        target = target.value
    if isinstance(target, ast.Name):
        return target.id
    return target.attr if isinstance(target, ast.Attribute) else None


def _appended_to(call: ast.expr) -> ast.expr | None:
    """Return the list that a call appends to, None for any other call."""
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and len(call.args) == 1:
        return call.func.value if call.func.attr in ("append", "appendleft") else None
    return None


def _returned(function: ast.AST | None, name: str) -> _Place | None:
    """Return where in what a function returns a variable is, None if it is not there."""
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.Return) and node.value is not None:
            place = _place_of(node.value, name)
            if place is not None:
                return place
    return None


def _place_of(value: ast.expr, name: str) -> _Place | None:
    if isinstance(value, ast.Name) and value.id == name:
        return ()
    for index, part in enumerate(value.elts if isinstance(value, ast.Tuple | ast.List) else []):
        place = _place_of(part, name)
        if place is not None:
            return (index, *place)
    return None


def _owner(node: fx.Node, module: nn.Module, frame: _Frame) -> tuple[str, nn.Module]:
    """Return the path of the innermost module whose method a frame is, and it; else "" and the module."""
    called = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    for path in reversed(called):
        inside = path.removeprefix(_PREFIX)
        if inside == path:
            continue
        owner = module.get_submodule(inside)
        code = getattr(getattr(type(owner), frame.function, None), "__code__", None)
        if isinstance(code, types.CodeType) and code.co_filename == frame.file:
            lines = [line for _, _, line in code.co_lines() if line is not None]
            if min(lines) <= frame.line <= max(lines):
                return inside, owner
    return "", module


_PREFIX = "program.module."  # of paths, in the module that runs prefixes
