"""Every public name of Python has a docstring that says which errors it raises: pages are made of them."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import rnnx.errors
from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "scripts"))
import docs

PACKAGES = ("exporter", "runtimes/native", "runtimes/python")
Member = tuple[str, Any, type | None]


def public(name: str) -> Iterator[Member]:
    """Yield what a module defines, and the methods of its classes, each with its class."""
    module = importlib.import_module(name)
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == name]
    for key in getattr(module, "__all__", own):
        value = getattr(module, key)
        if key.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        yield f"{name}.{key}", value, None
        for inner, member in vars(value).items() if inspect.isclass(value) else ():
            member = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if not inner.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                yield f"{name}.{key}.{inner}", member, value


MEMBERS = [member for name in docs.MODULES for member in public(name)]
CALLED = [member for member in MEMBERS if inspect.isfunction(member[1])]


def raised(function: FunctionType, owner: type | None, seen: set[FunctionType]) -> str | None:
    """Return how a function raises an error of rnnx, itself or in what it calls by name; None for never."""
    ours = (function.__module__ or "").startswith("rnnx") and function.__code__.co_filename.endswith(".py")
    if function in seen or not ours:
        return None
    seen.add(function)
    called = [function.__wrapped__] if hasattr(function, "__wrapped__") else []
    for node in ast.walk(ast.parse(source_of(function))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if not hasattr(builtins, ast.unparse(node.exc.func)):
                return ast.unparse(node)
        elif isinstance(node, ast.Call):
            called.append(resolved(node.func, function, owner))
    for other in called:
        other = vars(other).get("__init__") if inspect.isclass(other) else other
        if isinstance(other, FunctionType) and (how := raised(other, owner, seen)):
            return f"{other.__qualname__}: {how}"
    return None


def source_of(function: FunctionType) -> str:
    """Return the source of a function as it stands, not that of what it wraps."""
    return textwrap.dedent("".join(inspect.getblock(inspect.getsourcelines(function.__code__)[0])))


def resolved(name: ast.expr, function: FunctionType, owner: type | None) -> Any:
    """Return what is called by `name`, `module.name` or `self.name`; None for anything else."""
    if isinstance(name, ast.Name):
        return function.__globals__.get(name.id)
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
        if name.value.id == "self":
            return inspect.getattr_static(owner, name.attr, None) if owner else None
        module = function.__globals__.get(name.value.id)
        return getattr(module, name.attr, None) if isinstance(module, ModuleType) else None
    return None


def test_each_public_name_has_a_docstring() -> None:
    assert len(MEMBERS) > 200
    assert [name for name, value, _ in MEMBERS if not (value.__doc__ or "").strip()] == []


def test_what_raises_an_error_says_so() -> None:
    silent = {
        name: how
        for name, value, owner in CALLED
        if "aises" not in (value.__doc__ or "") and (how := raised(value, owner, set()))
    }
    assert silent == {}


def test_errors_are_found_where_they_are_raised() -> None:
    """The search above sees errors of the function, of a decorator, of a helper and of a method."""
    how = {name: raised(value, owner, set()) or "" for name, value, owner in CALLED}
    assert how["rnnx.Pool.reset"].startswith("raise self._unusable()")
    assert how["rnnx.Pool.close"].startswith("Pool._remove: raise self._unusable()")
    assert how["rnnx.audio.to_input"].startswith("raise _not_audio(")
    assert how["rnnx.testing.assert_parity"].startswith("make_request: raise InputError(")
    assert how["rnnx.parity.check.Request.rows"].startswith("room: room: raise InputError('out-of-memory'")
    assert how["rnnx.parity.report.to_html"] == ""


def test_the_errors_that_docstrings_name_exist() -> None:
    sources = "".join(path.read_text() for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py"))
    made = re.findall(r'f"([a-z-]*\{\w+\}[a-z-]*)"', sources)  # f"unknown-{kind}"
    patterns = [re.sub(r"\{\w+\}", "[a-z]+", text) for text in made if "-" in text]
    codes = re.compile("|".join([*re.findall(r'"([a-z]+(?:-[a-z]+)+)"', sources), *patterns]))
    wrong = []
    for name, value, _ in CALLED:
        _, _, said = (value.__doc__ or "").partition("Raises")
        for code in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", said):
            if not codes.fullmatch(code):
                wrong.append(f"{name}: {code}")
        for kind in re.findall(r"\b([A-Z]\w+Error)\b", said):
            if not hasattr(rnnx.errors, kind) and not hasattr(builtins, kind):
                wrong.append(f"{name}: {kind}")
    assert wrong == []
