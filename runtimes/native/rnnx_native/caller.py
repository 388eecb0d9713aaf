"""How Python calls a compiled model: a small extension module, or ctypes where its headers are missing."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnnx.errors import ProviderError
from rnnx_native.build_cache import FLAGS, kept

_SOURCE = Path(__file__).parent / "templates" / "caller.c"


@functools.lru_cache(maxsize=1)
def extension() -> Any:
    """Return the extension module, None where it cannot be built; a call through ctypes takes 1 us longer."""
    headers = sysconfig.get_paths()["include"]
    if not (Path(headers) / "Python.h").is_file():
        return None
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    name = f"rnnx_native_caller{suffix}"
    flags = [*FLAGS, "-fvisibility=default", f"-I{headers}", "caller.c"]
    undefined = ["-undefined", "dynamic_lookup"] if sysconfig.get_platform().startswith("macosx") else []
    try:
        folder = kept(
            ["caller", suffix, *flags], lambda: {"caller.c": _SOURCE.read_bytes()}, {name: flags + undefined}
        )
    except ProviderError:
        return None
    loader = importlib.machinery.ExtensionFileLoader("rnnx_native_caller", str(folder / name))
    spec = importlib.util.spec_from_file_location("rnnx_native_caller", str(folder / name), loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def caller(function: Any, call: int) -> Callable[[int], None]:
    """Return `run(index)`, which calls a function of a library with the address `call`."""
    found = extension()
    if found is None:
        return lambda index: function(call, index)
    address = ctypes.cast(function, ctypes.c_void_p).value
    return found.Caller(address, call).run  # type: ignore[no-any-return]
