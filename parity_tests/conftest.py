"""What all tests share: options, markers, and running a command as a user does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner, Result

from cases.leak import leak_model
from support import kept
from support.kept import ON_CI

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long proofs too")


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="not run: long; run it with --slow"))
    gpu_tests = [item for item in items if "cuda" in item.keywords]
    if gpu_tests:
        from rnnx.engines.registry import availability

        reason = availability()["cuda"]
        for item in gpu_tests if reason else []:
            item.add_marker(pytest.mark.skip(reason=f"not run: cuda does not work here ({reason.found})"))


def not_run(reason: str) -> NoReturn:
    """Skip the test for want of a program outside Python; on CI, which installs them all, fail it."""
    said = f"not run: {reason}"
    pytest.fail(f"{said}: install it on CI") if ON_CI else pytest.skip(said)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of this run, which its workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def native_cache(base: Path) -> Iterator[None]:
    """Models are built as C for the tests alone: the user's own cache stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNNX_CACHE", str(kept.folder("native", base)))
        yield


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find a program outside Python; where it is missing the test is skipped, on CI it fails."""

    def find(name: str) -> str:
        return shutil.which(name) or not_run(f"{name} is not installed")

    return find


@pytest.fixture
def command() -> Callable[..., Result]:
    """Run `rnnx ARGUMENTS` in this process."""
    from rnnx.cli import app

    def run(*arguments: str | Path, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)

    return run


@pytest.fixture(scope="session")
def exported(base: Path) -> Callable[[str], Path]:
    """Export a case by name, once for as long as its sources stay, for tests that only read the file."""
    from support.exported_cases import exported_case

    return lambda name: exported_case(name, kept.exports(base))


@pytest.fixture
def leak(tmp_path: Path) -> Path:
    """The example of docs/contract.md as a file: sum' = 0.5 sum + x, y = sum'."""
    path = tmp_path / "leak.onnx"
    path.write_bytes(leak_model())
    return path
