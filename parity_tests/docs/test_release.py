"""The scripts of a release: what they list of it, and that a program whose numbers are others is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "scripts"))
import newcomer
import release


def test_the_materials_are_what_the_manifests_pin(tmp_path: Path) -> None:
    (tmp_path / "rnnx.zip").write_bytes(b"1")
    release.write_materials(tmp_path)
    found = json.loads((tmp_path / "sbom.cdx.json").read_text(encoding="utf-8"))
    assert (found["bomFormat"], found["metadata"]["component"]["version"]) == ("CycloneDX", release.version)
    components = {component["bom-ref"]: component for component in found["components"]}
    digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"  # of "1"
    assert components["file/rnnx.zip"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    names = {component["purl"].split("@")[0] for component in components.values() if "purl" in component}
    assert names == {
        *(f"pkg:pypi/{name}" for name in ("msgspec", "numpy", "typer")),
        *(f"pkg:cargo/{name}" for name in ("half", "ort", "serde_json")),
        "pkg:golang/github.com/yalue/onnxruntime_go",
        "pkg:maven/com.microsoft.onnxruntime/onnxruntime",
        "pkg:maven/com.google.code.gson/gson",
    }
    (needs,) = (entry for entry in found["dependencies"] if entry["ref"] == "rnnx")
    assert len(needs["dependsOn"]) == len(names)


def test_checksums_are_those_that_are_checked(tmp_path: Path, tool: Any) -> None:
    (tmp_path / "a").write_bytes(b"1")
    release.write_sums(tmp_path)
    said = release.call(tool("sha256sum"), "-c", "SHA256SUMS", cwd=tmp_path)
    assert said == "a: OK\n"


def test_a_release_without_its_section_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    release.check_changelog()
    monkeypatch.setattr(release, "version", "99.0.0")
    with pytest.raises(SystemExit, match="found none; fix: say what it brings"):
        release.check_changelog()


@pytest.mark.parametrize(("off", "code", "word"), [(0.0, 0, "agrees"), (1e-3, 1, "DISAGREES")])
def test_numbers_that_are_others_are_told(
    off: float, code: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = newcomer.numbers() + off
    said = "\n".join(" ".join(map(str, row)) for row in rows)
    monkeypatch.setattr(newcomer, "CONSUMERS", {"go": lambda folder: said})
    monkeypatch.setattr(newcomer, "TOOLS", {})
    assert newcomer.main(["--built", "go"]) == code
    assert word in capsys.readouterr().out
    monkeypatch.setattr(newcomer, "TOOLS", {"go": ("no-such-tool",)})
    for on_ci in (False, True):
        monkeypatch.setattr(newcomer, "ON_CI", on_ci)
        assert newcomer.main(["--built"]) == on_ci
        assert "go: not run: no-such-tool is not installed" in capsys.readouterr().out
