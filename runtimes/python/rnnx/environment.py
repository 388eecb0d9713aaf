"""What is installed here that rnnx can use, and which providers work."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import sys

from rnnx.engine import availability
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


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
