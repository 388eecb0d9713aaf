"""What one run of the tests leaves for the next is used while nothing it is made from has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import kept


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository of one source, on somebody's machine."""
    monkeypatch.setattr(kept, "REPOSITORY", tmp_path)
    monkeypatch.setattr(kept, "ON_CI", False)
    source = tmp_path / "exporter" / "rnnx_export" / "one.py"
    source.parent.mkdir(parents=True)
    source.write_text("1\n")
    kept.exports.cache_clear()
    yield source
    kept.exports.cache_clear()


def exports(base: Path) -> Path:
    kept.exports.cache_clear()  # as another run would
    return kept.exports(base)


def test_exports_are_kept_for_as_long_as_their_sources_stay(repository: Path, tmp_path: Path) -> None:
    first = exports(tmp_path)
    assert first == exports(tmp_path)
    repository.write_text("2\n")
    changed = exports(tmp_path)
    repository.rename(repository.with_name("two.py"))
    assert len({first, changed, exports(tmp_path)}) == 3


def test_on_ci_nothing_is_kept_beyond_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "ON_CI", True)
    assert exports(tmp_path / "run").is_relative_to(tmp_path / "run")
    builds = []
    for _ in range(2):
        kept.program(tmp_path / "program", [b"x"], lambda: builds.append("built"))
    assert builds == ["built"] * 2


def test_what_fails_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        kept.once(tmp_path / "case", lambda _: 1 / 0)
    assert not (tmp_path / "case").exists()
    made = []
    for _ in range(2):
        kept.once(tmp_path / "case", made.append)
    assert len(made) == 1


def test_a_program_is_built_once_from_the_same_parts(tmp_path: Path) -> None:
    target, builds = tmp_path / "program", []

    def build() -> None:
        builds.append("built")
        target.write_text("built")

    for parts in ([b"a", b"b"], [b"a", b"b"], [b"ab"]):
        target.unlink(missing_ok=True)
        assert kept.program(target, parts, build).read_text() == "built"
    assert len(builds) == 2


def test_what_nobody_asked_for_goes(tmp_path: Path) -> None:
    old, recent = (tmp_path / "build" / "tests" / "exports" / name for name in ("old", "recent"))
    for path in (old, recent):
        path.mkdir(parents=True)
    os.utime(old, (0, 0))
    exports(tmp_path)
    assert not old.exists()
    assert recent.exists()
