"""`rnnx doctor` says what is installed, which providers work, and why not the others."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from rnnx.engines import environment
from rnnx.errors import ProviderError

WHY = ProviderError("provider-unavailable", expected="a GPU", found="no driver", fix="install one")


@pytest.fixture
def nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "availability", lambda: {"cpu": WHY, "cuda": WHY})


@pytest.fixture
def cpu_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "availability", lambda: {"cpu": None, "cuda": WHY})


def test_here_at_least_the_cpu_works(command: Callable[..., Result]) -> None:
    result = command("doctor")
    assert result.exit_code == 0
    assert "  cpu     works" in result.stdout.splitlines()


def test_versions_are_those_installed(command: Callable[..., Result], cpu_works: None) -> None:
    lines = [" ".join(line.split()) for line in command("doctor").stdout.splitlines()]
    for name in ("rnnx", "numpy", "typer", "safetensors", "msgspec"):
        assert f"{name} {importlib.metadata.version(name)}" in lines


def test_package_that_is_missing_is_listed_as_such(
    command: Callable[..., Result], cpu_works: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "a-package-nobody-has"))
    lines = [" ".join(line.split()) for line in command("doctor").stdout.splitlines()]
    assert "a-package-nobody-has not installed" in lines


def test_provider_that_does_not_work_shows_the_reason_and_the_fix(
    command: Callable[..., Result], cpu_works: None
) -> None:
    result = command("doctor")
    assert result.exit_code == 0
    assert "  cuda    not here: no driver\n          install one" in result.stdout


def test_exit_is_2_where_none_works(command: Callable[..., Result], nothing_works: None) -> None:
    result = command("doctor")
    assert result.exit_code == 2
    assert "No provider works" in result.stdout
    assert command("doctor", "--json").exit_code == 2


def test_json_says_the_same(command: Callable[..., Result], cpu_works: None) -> None:
    found = json.loads(command("doctor", "--json").stdout)
    assert set(found) == {"python", "system", "packages", "providers"}
    assert found["packages"]["numpy"] == importlib.metadata.version("numpy")
    assert found["providers"] == {
        "cpu": {"works": True},
        "cuda": {
            "works": False,
            "code": "provider-unavailable",
            "found": "no driver",
            "fix": "install one",
        },
    }
