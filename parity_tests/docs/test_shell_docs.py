"""What the documents say is true: their examples run, their numbers come out, their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import Result

import rnnx
from cases.leak import leak_contract, leak_graph
from conftest import REPOSITORY
from rnnx.cli import VERBS
from rnnx.formats.trace_file import Trace, encode_trace, read_trace
from rnnx.formats.wav_file import Wav, encode_wav
from rnnx.model import contract as contracts
from rnnx.model.contract import StateSpec
from rnnx.model.onnx_file import write_contract
from rnnx.text.sampling import Sampler
from rnnx.tolerance import Bound

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
README = REPOSITORY / "README.md"
CONTRACT = REPOSITORY / "docs" / "contract.md"
TRACE = REPOSITORY / "docs" / "trace.md"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that headings of a page get."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


# The contract.


def test_schema_is_the_one_of_the_types() -> None:
    written = (REPOSITORY / "docs" / "contract.schema.json").read_text()
    assert written == json.dumps(contracts.schema(), indent=2) + "\n", "run scripts/write_schema"


def test_contract_page_names_every_field_and_no_other() -> None:
    schema = contracts.schema()["$defs"]
    text = CONTRACT.read_text()
    for name, definition in schema.items():
        for field in definition["properties"]:
            assert f"`{field}`" in text, f"{name}.{field}"
    table = text.partition("## Fields")[2].partition("An **input**")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert rows == list(schema["Contract"]["properties"])


def test_contract_page_names_every_dtype() -> None:
    schema = contracts.schema()["$defs"]["InputSpec"]["properties"]["dtype"]["enum"]
    sentence = CONTRACT.read_text().partition("`dtype` is one of")[2].partition(".")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(schema)


def test_example_of_the_contract_page_runs_as_its_table_says() -> None:
    (text,) = blocks(CONTRACT, "json")
    contract = contracts.from_json(text)
    assert msgspec.structs.replace(contract, id="", producer={}) == leak_contract(producer={}, proof=None)
    stream = rnnx.load(write_contract(leak_graph(), contract)).stream()
    assert stream.state["sum"].tolist() == [[2]]
    assert stream.step({"x": np.float32([[1]])})["y"].tolist() == [[2]]
    assert stream.step({"x": np.float32([[4]])})["y"].tolist() == [[5]]
    assert stream.run({"x": np.float32([[[0], [2]]])})["y"].tolist() == [[[2.5], [3.25]]]
    assert stream.state["sum"].tolist() == [[3.25]]


@pytest.mark.parametrize(
    ("initial", "rows"),
    [
        (0.5, [[[0.5] * 3] * 2] * 2),
        ([1, 2, 3], [[[1, 2, 3]] * 2] * 2),
        ([[[1, 2, 3]], [[4, 5, 6]]], [[[1, 2, 3]] * 2, [[4, 5, 6]] * 2]),
    ],
    ids=["number", "one axis", "all axes"],
)
def test_initial_values_of_the_contract_page_broadcast(initial: Any, rows: Any) -> None:
    shown = json.dumps(initial)
    assert f"`{shown}`" in CONTRACT.read_text()
    state = StateSpec(
        name="s", input="i", output="o", dtype="float32", shape=[2, "batch", 3], initial=initial
    )
    assert contracts.initial_array(state, {"batch": 2}).tolist() == rows


def test_sampling_of_the_contract_page_is_what_the_code_does() -> None:
    text = CONTRACT.read_text()
    sampler = Sampler(7)
    numbers = [sampler.next_uint64() for _ in range(3)]
    assert ", ".join(f"0x{number:016x}" for number in numbers) in text
    sampler = Sampler(7)
    assert ", ".join(repr(sampler.uniform()) for _ in range(3)) in text
    sampler = Sampler(7)
    assert ", ".join(str(sampler.sample_weights([1, 2, 3, 4])) for _ in range(8)) in text


def test_sampling_as_the_contract_page_spells_it_out() -> None:
    """The page's own recipe, step by step, draws what the code draws."""
    state = 12345

    def uniform() -> float:
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    sampler = Sampler(12345)
    weights = [3.0, 0.0, 5.0, 1.0]
    for _ in range(200):
        total = [sum(weights[: index + 1]) for index in range(4)]
        u = uniform()
        assert sampler.sample_weights(weights) == next(i for i in range(4) if total[i] > u * total[-1])


def test_example_of_the_trace_page_replays_in_any_chunks() -> None:
    example = next(json.loads(text) for text in blocks(TRACE, "json") if "input.x" in text)
    (text,) = blocks(CONTRACT, "json")
    session = rnnx.load(write_contract(leak_graph(), contracts.from_json(text)))
    tolerances = json.loads(example["metadata"]["tolerances"])
    tensors = {name: np.float32(rows) for name, rows in example.items() if name != "metadata"}
    trace = Trace(
        session.id,
        example["metadata"]["reference"],
        {name: Bound(entry["atol"], entry["rtol"]) for name, entry in tolerances.items()},
        {"x": tensors["input.x"]},
        {"y": tensors["output.y"]},
        {"sum": tensors["state.sum"]},
    )
    read = read_trace(encode_trace(trace), session.contract, model_id=session.id)
    assert read.inputs["x"].shape == (4, 1, 1)
    assert read.states["sum"].shape == (5, 1, 1)
    for chunks in ([4], [1, 3], [3, 1], [2, 2], [1, 1, 1, 1]):
        stream = session.stream(initial={"sum": read.states["sum"][0]})
        end = 0
        for size in chunks:
            start, end = end, end + size
            rows = stream.run({"x": np.moveaxis(read.inputs["x"][start:end], 0, 1)})["y"]
            assert np.moveaxis(rows, 1, 0).tolist() == read.outputs["y"][start:end].tolist()
            assert stream.state["sum"].tolist() == read.states["sum"][end].tolist()


def test_metadata_that_the_pages_name_is_what_is_written() -> None:
    from rnnx.formats import safetensors_file, snapshot

    contract = leak_contract(id="sha256:0")
    state = {"sum": np.float32([[1]])}
    sampling = snapshot.Sampling(np.uint64([1]), np.float64([1]), np.float32([[1, 2]]))
    data = snapshot.encode_snapshot(snapshot.Snapshot(contract.id, 3, state, sampling))
    tensors, metadata = safetensors_file.decode_tensors(data, what="a snapshot")
    text = CONTRACT.read_text().partition("## Snapshots")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([\w.]+)` \|", text, flags=re.MULTILINE)
    assert set(named) == set(metadata) | {name.replace("sum", "NAME") for name in tensors}


# The README and the help: every command and every block of Python is run, in order, in one folder.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("examples")
    before = Path.cwd()
    (folder / "texts").mkdir()
    text = (REPOSITORY / "runtimes" / "python" / "rnnx" / "model" / "contract.py").read_text()
    for name in ("texts/one.py", "texts/two.txt", "a.txt", "b.txt"):
        (folder / name).write_text(text)
    (folder / "mymodel.py").write_text(DENOISER)
    np.save(folder / "noisy.npy", np.ones((1, 50, 257), np.float32))
    (folder / "recordings").mkdir()
    for steps in (30, 50):
        np.save(folder / "recordings" / f"{steps}.npy", np.ones((1, steps, 257), np.float32))
    os.chdir(folder)
    yield folder
    os.chdir(before)


DENOISER = """
import torch

class Denoiser(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = torch.nn.GRU(257, 8, batch_first=True)
        self.mask = torch.nn.Linear(8, 257)

    def forward(self, x):
        return x * torch.sigmoid(self.mask(self.gru(x)[0]))
"""


def shrink(words: list[str]) -> list[str]:
    """Return a command with its long work made short."""
    if words[0] == "train":
        for option in ("--minutes", "--steps"):
            if option in words:
                place = words.index(option)
                words = words[:place] + words[place + 2 :]
        words = [*words, "--steps", "12", "--hidden-size", "12"]
    return words


def commands(text: str) -> list[list[str]]:
    """Return the arguments of each `rnnx ...` line, continuation lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(r"\s*rnnx \w", line)]


@pytest.fixture
def copied(poet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Go to a fresh copy of the folder, so that no example lives on what another one wrote."""

    def copy() -> None:
        place = Path(tempfile.mkdtemp(dir=tmp_path)) / "copy"
        shutil.copytree(poet.parent, place)
        monkeypatch.chdir(place)

    return copy


@pytest.fixture(scope="module")
def poet(folder: Path) -> Path:
    """Networks, trained and exported, under the names that the examples use."""
    import torch
    from typer.testing import CliRunner

    from rnnx.cli import app

    space: dict[str, Any] = {}
    exec(DENOISER, space)
    torch.save(space["Denoiser"]().state_dict(), folder / "ckpt.pt")
    for line in (
        "train texts/ -o poet.safetensors",
        "export poet.safetensors -o poet.onnx",
        "export mymodel.py:Denoiser --inputs 'x=float32[batch, time, 257]' -o denoiser.onnx",
    ):
        result = CliRunner().invoke(app, shrink(shlex.split(line)))
        assert result.exit_code == 0, result.stderr
    shutil.copy(REPOSITORY / "parity_tests/golden/hops.onnx", folder / "voice.onnx")
    noisy = Wav(np.zeros((250, 1), np.float32), rate=16000)
    (folder / "noisy.wav").write_bytes(encode_wav(noisy))
    return folder / "poet.onnx"


def test_commands_in_the_readme_run_one_after_the_other(
    copied: Callable[[], None], command: Callable[..., Result]
) -> None:
    found = [words for text in blocks(README, "sh") for words in commands(text)]
    assert len(found) >= 4
    copied()
    for words in found:
        result = command(*shrink(words))
        assert result.exit_code == 0, (words, result.stderr)


def test_scripts_in_the_readme_exist() -> None:
    lines = "\n".join(blocks(README, "sh")).splitlines()
    scripts = [line.split()[0] for line in lines if line.startswith("scripts/")]
    assert len(scripts) == 2
    assert all(os.access(REPOSITORY / script, os.X_OK) for script in scripts)


def test_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    for text in blocks(README, "python"):
        exec(compile(text, "README.md", "exec"), space)
    assert [value.shape for value in space["y"].values()]


def test_readme_lists_every_verb() -> None:
    table = re.findall(r"^\| `rnnx (\w+)` \|", README.read_text(), flags=re.MULTILINE)
    assert table == list(VERBS)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_each_example_in_the_help_runs(
    verb: str, copied: Callable[[], None], command: Callable[..., Result]
) -> None:
    found = commands(command(*[verb] * bool(verb), "--help").stdout.partition("Example:")[2])
    assert found
    for words in found:
        copied()
        result = command(*shrink(words))
        assert result.exit_code == 0, (words, result.stderr)
