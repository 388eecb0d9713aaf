"""What is installed here that rnnx can use, and which providers work."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from rnnx.engines.registry import availability
from rnnx.errors import ProviderError

# Each package that rnnx or one of its extras uses, by the name it is installed under.
PACKAGES = (
    "rnnx",
    "numpy",
    "safetensors",
    "msgspec",
    "typer",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "matplotlib",
    "soundfile",
)


@dataclasses.dataclass(frozen=True)
class Environment:
    """What rnnx found on this machine.

    Attributes:
        python: version of the interpreter.
        system: operating system and processor.
        packages: version by name, None where a package is not installed.
        providers: by name, None where the provider works, else the error that says why not.
    """

    python: str
    system: str
    packages: dict[str, str | None]
    providers: dict[str, ProviderError | None]

    @property
    def working(self) -> list[str]:
        """The providers that work here."""
        return [name for name, error in self.providers.items() if error is None]


def describe_environment() -> Environment:
    """Look at the installed packages and try every provider. Loads onnxruntime if it is installed."""
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}, {sys.executable}",
        packages={name: _version(name) for name in PACKAGES},
        providers=availability(),
    )


def machine() -> str:
    """Return what this machine is, in one line."""
    return f"{platform.system()} {platform.machine()}, {_processor()}{os.cpu_count()} processors"


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of every package of rnnx that is installed, by name."""
    found = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | {n: version for n, version in found.items() if version}


def _processor() -> str:
    """Return the processor's own name and a comma where the system tells it (Linux), else nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, " if names else ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
