"""Finding a module by name: `package.module:Net`, `file.py:Net`, `file.py:make()`, `file.py:Net.step`."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from rnnx.errors import FileError, ModelError, UsageError
from rnnx.files import file_and_key, read_bytes
from rnnx_export.diagnostics import one_line

_SOURCE = re.compile(r"(?P<home>.+):(?P<name>[A-Za-z_]\w*)(?P<call>\(\))?(?:\.(?P<method>[A-Za-z_]\w*))?")


@dataclasses.dataclass(frozen=True)
class Source:
    """A module that was found, in eval mode, and the method to export.

    Attributes:
        make: makes it once more, without weights that were loaded; None for an instance.
    """

    module: nn.Module
    method: str
    make: Callable[[], Any] | None = None


def open_source(text: str, *, weights: str | None = None, kwargs: Mapping[str, Any] | None = None) -> Source:
    """Return the module that `text` names, with its weights loaded.

    Args:
        text: where a class, a factory or an instance is: "mymodel.py:Denoiser", "package.nets:make()";
            ".step" behind it names a method.
        weights: a state dict, .safetensors or .pt; None keeps the weights it is made with.
        kwargs: arguments for the class or factory.

    Raises:
        UsageError: `bad-source`, `source-not-found`, `source-failed` or `not-a-module`.
        FileError: `file-missing`, `cannot-read` or `not-safetensors`.
        ModelError: `weights-mismatch` or `weights-not-finite`.
    """
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise UsageError(
            "bad-source",
            expected="a checkpoint (.safetensors) or a module such as mymodel.py:Denoiser",
            found=repr(text),
            fix="write file.py:Name, package.module:Name, file.py:factory() or file.py:Name.method",
        )
    home = _import(match["home"])
    if not hasattr(home, match["name"]):
        names = [
            name
            for name, value in vars(home).items()
            if isinstance(value, type) and issubclass(value, nn.Module)
        ]
        raise UsageError(
            "source-not-found",
            expected=f"{match['name']!r} in {match['home']}",
            found=f"modules {', '.join(names) or 'none'}",
            fix="name one that is there",
        )
    found = getattr(home, match["name"])
    make = None if isinstance(found, nn.Module) else functools.partial(_made, found, dict(kwargs or {}))
    if make is not None:
        try:
            found = make()
        except (Exception, SystemExit) as error:  # the user's own code may fail in any way
            raise UsageError(
                "source-failed",
                expected=f"{match['name']}(...) to make a module",
                found=one_line(f"{type(error).__name__}: {error}"),
                fix="pass its arguments with --kwargs, such as --kwargs '{\"hidden_size\": 64}'",
            ) from error
    if not isinstance(found, nn.Module):
        raise UsageError(
            "not-a-module",
            expected=f"{text} to be a torch.nn.Module",
            found=f"a {type(found).__name__}",
            fix="name a module class, an instance or a factory",
        )
    if weights is not None:
        load_weights(found, weights)
    found.eval()
    return Source(found, match["method"] or "forward", make)


def _made(factory: Any, kwargs: dict[str, Any]) -> Any:
    return factory(**kwargs)


def load_weights(module: nn.Module, path: str) -> None:
    """Load a state dict, .safetensors or what `torch.save` wrote, checking names, shapes and values.

    Args:
        module: takes them. What a wrapper put before every name, such as `module.`, is left out.
        path: of the file; `ck.pt:model` is the state dict under a key of what it holds.

    Raises:
        FileError: `file-missing`, `cannot-read`, `not-safetensors` or `not-weights`.
        ModelError: `weights-mismatch` or `weights-not-finite`.
    """
    path, key = file_and_key(path)
    data = read_bytes(path, what="weights")
    tensors = _safetensors(data, path) if path.endswith(".safetensors") else _torch_file(path, key)
    tensors = _without_prefix(tensors, module.state_dict())
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.isnan().any()]
    if broken:
        raise ModelError(
            "weights-not-finite",
            expected=f"numbers in {path}",
            found=f"NaN in {broken[0]}",
            fix="use a good checkpoint",
        )
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            "weights-mismatch",
            expected=f"weights of a {type(module).__name__} in {path}",
            found="; ".join(line.strip() for line in str(error).splitlines()[1:3]),
            fix="use the checkpoint of this module, or give --kwargs the sizes it was trained with",
        ) from error


def parse_specs(texts: list[str], flag: str) -> dict[str, Any]:
    """Return specs by parameter name from `NAME=SPEC` texts; nested as `(SPEC, SPEC)` or `{key: SPEC}`.

    Raises:
        UsageError: `bad-spec`.
    """
    specs: dict[str, Any] = {}
    for text in texts:
        for part in _split_top(text, ";"):
            name, equals, value = part.partition("=")
            if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
                raise UsageError(
                    "bad-spec",
                    expected=f"{flag} NAME=SPEC, such as 'x=float32[batch, time, 257]'",
                    found=repr(part.strip()),
                    fix="put a parameter's name in front",
                )
            _require_new(specs, [name.strip()], flag)
            specs[name.strip()] = _structure(value.strip())
    return specs


def parse_values(texts: list[str], flag: str) -> dict[str, Any]:
    """Return values by name from `NAME=VALUE` texts or one `{...}` text, as Python or JSON literals.

    Raises:
        UsageError: `bad-value`.
    """
    values: dict[str, Any] = {}
    for text in texts:
        found = _literal(text) if text.lstrip().startswith("{") else None
        if isinstance(found, dict):
            _require_new(values, found, flag)
            values.update(found)
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(
                "bad-value",
                expected=f"{flag} NAME=VALUE",
                found=repr(text),
                fix=f"as in {flag} hidden_size=64",
            )
        _require_new(values, [name.strip()], flag)
        values[name.strip()] = _literal(value.strip())
    return values


def _require_new(known: Mapping[str, Any], names: Iterable[str], flag: str) -> None:
    for name in names:
        if name in known:
            raise UsageError(
                "arguments",
                expected=f"each name of {flag} once",
                found=f"{name!r} twice",
                fix="leave one out",
            )


def _literal(text: str) -> Any:
    names = {"true": True, "false": False, "null": None}
    if text in names:
        return names[text]
    try:
        return ast.literal_eval(re.sub(r"\b(true|false|null)\b", lambda m: str(names[m[1]]), text))
    except (ValueError, SyntaxError):
        return text


def _structure(text: str) -> Any:
    if text == "None":
        return None
    if text.startswith("(") and text.endswith(")"):
        return tuple(_structure(part.strip()) for part in _split_top(text[1:-1], ","))
    if text.startswith("{") and text.endswith("}"):
        pairs = (part.partition(":") for part in _split_top(text[1:-1], ","))
        return {key.strip().strip("'\""): _structure(value.strip()) for key, _, value in pairs}
    return text


def _split_top(text: str, separator: str) -> list[str]:
    """Split at separators that no bracket encloses; empty parts are left out."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == separator and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [part for part in (*parts, current) if part.strip()]


def _import(home: str) -> ModuleType:
    try:
        if home.endswith(".py"):
            return _import_file(Path(home))
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(home)
    except FileError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may fail in any way
        raise UsageError(
            "source-failed",
            expected=f"{home} to be imported",
            found=one_line(f"{type(error).__name__}: {error}"),
            fix="fix the error, or run it where its imports are found",
        ) from error


def _import_file(path: Path) -> ModuleType:
    read_bytes(path, what="a Python file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    # Dataclasses and pickling look their module up by name; a name that is taken stays as it is.
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _safetensors(data: bytes, path: str) -> dict[str, torch.Tensor]:
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise FileError(
            "not-safetensors", expected=f"safetensors in {path}", found=str(error), fix="name the right file"
        ) from error


def _torch_file(path: str, key: str) -> dict[str, torch.Tensor]:
    """Return the state dict in a file, or that which lies under a key in it, `model.ema`."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails on bad files in many ways
        # What torch says of it is to load the file unsafely, which is no advice to pass on.
        pickled = "weights_only" in str(error) or "Unsupported" in str(error)
        raise FileError(
            "not-weights",
            expected=f"a state dict in {path}",
            found="pickled objects of other kinds"
            if pickled
            else f"a file that is none ({type(error).__name__})",
            fix="save it with torch.save(module.state_dict(), path), or as safetensors",
        ) from error
    held = (
        _inside(found, key) if key else found.get("state_dict", found) if isinstance(found, dict) else found
    )
    if not _is_state_dict(held):
        raise FileError(
            "not-weights",
            expected=f"a state dict in {path}" + (f" under {key!r}" if key else ""),
            found=_described(held),
            fix=_fix(path, found),
        )
    return dict(held)


def _inside(found: Any, key: str) -> Any:
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(part, torch.Tensor) for part in value.values())


def _described(value: Any) -> str:
    if value is None:
        return "nothing"
    keys = f" with {', '.join(map(repr, list(value)[:6]))}" if isinstance(value, dict) and value else ""
    return f"a {type(value).__name__}{keys}"


def _fix(path: str, found: Any) -> str:
    """Return how to name the state dict that lies in what a file holds, if there is one."""
    parts = found.items() if isinstance(found, dict) else ()
    keys = [str(key) for key, part in parts if isinstance(part, dict) and part and _is_state_dict(part)]
    return f"name it: {' or '.join(f'{path}:{key}' for key in keys)}" if keys else "save module.state_dict()"


def _without_prefix(tensors: dict[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return a state dict without what wrappers put before each name (`module.`), if the names then fit."""
    fronts = {name.partition(".")[0] for name in tensors}
    if len(fronts) != 1 or set(tensors) == set(wanted):
        return tensors
    stripped = {name.partition(".")[2]: value for name, value in tensors.items()}
    return stripped if set(stripped) == set(wanted) else tensors


def parse_names(text: str) -> Any:
    """Return names nested as written: "y, (h, c)" is ("y", ("h", "c")); a lone name is itself.

    Raises:
        UsageError: `bad-returns`.
    """
    try:
        return _names(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            "bad-returns",
            expected="names such as 'y, (h, c)'",
            found=repr(text),
            fix="nest them as the result is",
        ) from error


def _names(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_names(part) for part in node.elts)
    raise ValueError(ast.dump(node))
