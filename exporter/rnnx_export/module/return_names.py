"""What a method's own return statements call the parts of its result."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

from rnnx_export.module.structure import Path, children

_AFFIX = re.compile(r"^(new|next|out|updated)_|_(new|next|out|n|t|1|updated)$|(?<=[a-z])(n|t|1)$")


def return_names(function: Any, result: Any) -> dict[Path, str]:
    """Return the variable names in the return statements that give such a result, where all of them agree."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: list[dict[Path, str]] = []
    every = _own_returns(tree.body[0])
    count = len(children(result) or ())
    fitting = [node for node in every if isinstance(node.value, ast.Tuple) and len(node.value.elts) == count]
    for node in fitting or every:
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


def same_name(name: str | None, parameter: str) -> bool:
    """Whether a part of a result is called as a parameter is, `h`, or as its next value, `h_new`."""
    return name is not None and (name == parameter or _AFFIX.sub("", name) == _AFFIX.sub("", parameter))
