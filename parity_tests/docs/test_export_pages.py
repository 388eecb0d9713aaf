"""docs/exporting.md: every block runs, what it says is refused is refused, and its fix is exported."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from conftest import REPOSITORY
from rnnx.errors import RnnxError

PAGE = (REPOSITORY / "docs" / "exporting.md").read_text()
EXPLAINED, _, REFUSED = PAGE.partition("## What is refused, and the mend")
SECTIONS = {text.split("\n", 1)[0]: text for text in REFUSED.split("\n### ")[1:]}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


class Page:
    """Runs blocks one after the other in one module, kept as a file so that refusals can name lines."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._names: dict[str, Any] = {}

    def run(self, block: str) -> None:
        self._count += 1
        path = self._folder / f"block_{self._count}.py"
        path.write_text(block)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        vars(module).update({name: value for name, value in self._names.items() if not name.startswith("__")})
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[path.stem]
            self._names = dict(vars(module))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return Page(tmp_path)


def test_every_block_that_explains_runs(page: Page) -> None:
    explaining = blocks(EXPLAINED, "python")
    assert len(explaining) >= 9
    for block in explaining:
        page.run(block)


@pytest.mark.parametrize("code", SECTIONS)
def test_what_is_refused_is_refused_and_its_fix_is_not(code: str, page: Page, tmp_path: Path) -> None:
    for block in blocks(EXPLAINED, "python"):
        page.run(re.split(r"^made = ", block, flags=re.MULTILINE)[0])
    refused, fixed = blocks(SECTIONS[code], "python")
    with pytest.raises(RnnxError) as refusal:
        page.run(refused)
    assert refusal.value.code == code, refusal.value
    assert not (tmp_path / "net.onnx").exists()
    page.run(fixed)
    assert (tmp_path / "net.onnx").exists()


def test_the_commands_run(page: Page, tmp_path: Path, command: Callable[..., Result]) -> None:
    page.run(blocks(EXPLAINED, "python")[0])
    definition = re.split(r"^made = ", blocks(EXPLAINED, "python")[0], flags=re.MULTILINE)[0]
    (tmp_path / "mymodel.py").write_text(definition)
    page.run("torch.save(Denoiser().state_dict(), 'ckpt.pt')")
    (block,) = blocks(EXPLAINED, "console")
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "rnnx"
        result = command(*arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_every_code_on_the_page_exists() -> None:
    sources = "".join(path.read_text() for path in (REPOSITORY / "exporter" / "rnnx_export").rglob("*.py"))
    for code in SECTIONS:
        assert f'"{code}"' in sources
