"""The pages of other people's networks: an outcome is what came of a page, and never what it would like."""

from __future__ import annotations

import importlib
import json
import re
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = f"""# A running sum

Packages: `numpy=={version("numpy")}`

```python
import rnnx
import torch


class Network(torch.nn.Module):
    def forward(self, x):
        return FORWARD


network = Network()
made = rnnx.export(network, "network.onnx", inputs={{"x": "float32[batch, time, 4]"}})
```

The network itself in PyTorch, beside the model:

```python
x = torch.randn(2, 200, 4)
expected = (EXPECTED).swapaxes(0, 1).numpy()
stream = rnnx.load("network.onnx").stream(batch=2)
got = [stream.step(frame.numpy())["y"] for frame in x.swapaxes(0, 1)]
```

Outcome: not yet run, and
this is its second line

What follows stays.
"""


@pytest.fixture(scope="module")
def recipes() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        return importlib.import_module("recipes")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(folder: Path, forward: str = "x.cumsum(1)", expected: str = "network(x)") -> Path:
    path = folder / "page.md"
    path.write_text(PAGE.replace("FORWARD", forward).replace("EXPECTED", expected))
    return path


def test_what_agrees_says_so_with_steps_error_states_and_versions(
    recipes: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "make_environment", lambda *_: Path(sys.executable))
    path = page(folder)
    assert recipes.run_page(path)
    text = " ".join(path.read_text().split())
    assert re.search(
        r"Outcome: 200 steps, largest error \d\.\de-\d\d; states `sum` \(numpy [\d.]+, torch", text
    )
    assert text.endswith("What follows stays.")
    assert "not yet run" not in text
    assert "second line" not in text


@pytest.mark.parametrize(
    ("expected", "good"), [("network(x)", True), ("network(x) + 1e-6", True), ("network(x) + 1e-2", False)]
)
def test_what_disagrees_cannot_pass(recipes: ModuleType, folder: Path, expected: str, good: bool) -> None:
    path = page(folder, expected=expected)
    before = path.read_text()
    outcome = recipes.run_blocks(path)
    assert outcome["good"] == good, outcome
    assert outcome["said"].startswith("disagrees") != good
    assert recipes.write_outcome(path, outcome) == good
    assert (path.read_text() == before) != good


@pytest.mark.parametrize("expected", ["network(x)[:, :199]", "0 * network(x)"])
def test_too_few_steps_and_an_output_that_never_moves_show_nothing(
    recipes: ModuleType, folder: Path, expected: str
) -> None:
    path = page(folder, expected=expected)
    path.write_text(path.read_text().replace("for frame in x", "for frame in x[:, :expected.shape[0]]"))
    with pytest.raises(SystemExit, match="expected 200 steps of both"):
        recipes.run_blocks(path)


def test_a_refusal_is_written_where_one_was_and_is_a_failure_where_none_was(
    recipes: ModuleType, folder: Path
) -> None:
    path = page(folder, "x[:, : int(x.abs().sum()) % 3]")
    outcome = recipes.run_blocks(path)
    assert outcome["said"].startswith("refused, `")
    before = path.read_text()
    assert not recipes.write_outcome(path, outcome)
    assert path.read_text() == before
    path.write_text(before.replace("not yet run, and", "refused, `not-exported`: for another reason"))
    assert recipes.write_outcome(path, outcome)
    assert "another reason" not in path.read_text()
    assert "refused, `" in path.read_text()


def test_a_page_names_its_packages_with_their_versions(recipes: ModuleType) -> None:
    assert recipes.pinned("Packages: `a==1`,\n`b==2.0`\n\n`c`") == ["a==1", "b==2.0"]
    for text in ("Packages: `a`\n\n", "Packages: none\n\n", "`a==1`\n\n"):
        with pytest.raises(SystemExit, match="name==version"):
            recipes.pinned(text)


NETWORKS = '''"""numpy==1 other==2"""


def streams():
    import torch

    return torch.nn.GRU(4, 3, batch_first=True), {"inputs": {"input": "float32[batch, time, 4]"}}


def whole():
    import torch

    layer = torch.nn.GRU(4, 3, batch_first=True, bidirectional=True)
    return layer, {"inputs": {"input": "float32[batch, time, 4]"}}


def refused():
    import torch

    return torch.nn.Linear(4, 3), {"inputs": {"wrong": "float32[batch, 4]"}}
'''


def test_the_table_of_what_was_tried_says_what_came_of_each_and_counts(
    recipes: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = sys.modules["recipes_tried"]
    (folder / "tried").mkdir()
    (folder / "tried" / "numpy.py").write_text(NETWORKS)
    page = folder / "README.md"
    page.write_text(f"# Title\n\n{tried.MARK}\n\nOf 9 networks\n\n| of before |\n")
    old = {"numpy 0": {"gone": ["streams", ""]}, "zlib 3": {"kept": ["streams", ""]}}
    (folder / "tried.json").write_text(json.dumps(old))
    for name, value in (("FOLDER", folder / "tried"), ("PAGE", page), ("OUTCOMES", folder / "tried.json")):
        monkeypatch.setattr(tried, name, value)
    monkeypatch.setattr(
        tried, "_run_alone", lambda _, source, name, __: tried.outcome(source, name), raising=True
    )
    asked: list[list[str]] = []
    tried.run_tried([], lambda _, packages: asked.append(packages))
    assert asked == [["numpy==1", "other==2"]]
    text = page.read_text()
    assert text.startswith(
        f"# Title\n\n{tried.MARK}\n\nOf 4 networks 3 are exported, 1 for whole sequences only."
    )
    assert "| numpy 1 | streams | whole | refused: 'wrong' |\n| zlib 3 | kept |  |  |\n" in text
    assert "before" not in text
    assert "gone" not in text
    tried.run_tried(["another"], lambda _, packages: asked.append(packages))
    assert page.read_text() == text
    assert len(asked) == 1
