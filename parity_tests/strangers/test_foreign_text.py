"""No text of a model becomes code: in C, in a program around a model, on a page, in JSON, on a terminal."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from typer.testing import Result

import rnnx
from rnnx import foreign_text, scaffold
from rnnx.model.contract import from_json, to_json
from rnnx.model.onnx_file import read_contract, read_model
from rnnx.parity.drift import Drift
from rnnx.parity.invariants import Check
from rnnx.parity.lockstep import Failure
from rnnx.parity.report import to_html
from rnnx.parity.verdict import Parity, Runtime
from rnnx_native.c_source.engine_text import engine_files
from rnnx_native.compile import compile_model, engine_unit
from support.c_tokens import tokens
from support.foreign_names import NAMES, PIECES, WORDS, Chosen, chosen, harmless, model, texts
from support.native_folders import STRICT

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def written(found: Chosen) -> dict[str, str]:
    """Return all text files that `rnnx compile` and the provider native write for a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(model(found))
        made = compile_model(path, Path(folder) / "c", chunk=1)
        files = {
            name: (made.folder / name).read_text() for name in made.files if not name.endswith(".weights")
        }
        opened = read_model(path)
        unit = engine_unit(opened, read_contract(opened), {"batch": 1}, chunk=1, weights="f32")
    return files | {f"engine/{name}": text for name, text in engine_files(unit).items()}


def tokens_of(found: Chosen) -> dict[str, list[tuple[str, str]]]:
    """Return what a C compiler sees of each file."""
    return {name: tokens(text) for name, text in written(found).items() if name.endswith((".c", ".h"))}


@pytest.fixture(scope="module")
def plain() -> dict[str, list[tuple[str, str]]]:
    return tokens_of(harmless("alpha"))


@pytest.fixture(scope="module")
def fixed(plain: dict[str, list[tuple[str, str]]]) -> dict[str, set[str]]:
    """Return the names in each file that are not made from the model's."""
    other = tokens_of(harmless("beta"))
    names = {}
    for file, ours in plain.items():
        pairs = list(zip(ours, other[file], strict=True))
        names[file] = {one[1] for one, two in pairs if one == two and one[0] == "name"}
        changed = {one[1] for one, two in pairs if one != two}
        assert all("alpha" in name for name in changed), changed
    return names


KEYWORDS = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long
    register restrict return short signed sizeof static struct switch typedef union unsigned void volatile
    while
    """.split()  # noqa: SIM905
)
PLAIN = harmless("a")
HOSTILE = [
    dataclasses.replace(PLAIN, texts=[piece] * len(PLAIN.texts), names=[f"{piece}{n}" for n in range(NAMES)])
    for piece in (
        "*/ int x; /*",
        "*\\\n/ int x; /*\\\n",
        "*??/\n/ int x;",
        "@json@",
        "⟦0⟧ ??/",
        'a"; int x; "',
    )
]
TYPES = dataclasses.replace(
    PLAIN,
    names=["int64_t", "uint8_t", "size_t", "int_fast16_t", "double_t", "ptrdiff_t", "va_list"][:NAMES]
    + [f"n{n}" for n in range(NAMES - 7)],
)


@SETTINGS
@given(found=chosen())
@example(found=HOSTILE[0])
@example(found=HOSTILE[1])
@example(found=HOSTILE[2])
@example(found=HOSTILE[3])
@example(found=HOSTILE[4])
@example(found=HOSTILE[5])
def test_nothing_of_a_model_stands_outside_remarks_and_strings_of_c(
    plain: dict[str, list[tuple[str, str]]], fixed: dict[str, set[str]], found: Chosen
) -> None:
    """The code is that of a model of harmless names, but for identifiers that were made."""
    for file, got in tokens_of(found).items():
        assert len(got) == len(plain[file]), file
        for index, (one, two) in enumerate(zip(plain[file], got, strict=True)):
            assert one[0] == two[0], (file, one, two)
            if one[0] == "name" and one[1] not in fixed[file]:
                assert re.fullmatch(r"[A-Za-z]\w{0,130}", two[1], re.ASCII), two
                assert two[1] not in KEYWORDS, two
                assert got[index + 1] != ("sign", "("), "nothing is called by a name that was made"
            else:
                assert one == two, file


@settings(SETTINGS, max_examples=6)
@given(found=chosen())
@example(found=dataclasses.replace(PLAIN, names=WORDS[:NAMES]))
@example(found=dataclasses.replace(PLAIN, names=WORDS[NAMES : 2 * NAMES]))
@example(found=dataclasses.replace(PLAIN, names=WORDS[-NAMES:]))
@example(found=dataclasses.replace(PLAIN, names=PIECES[:NAMES]))
@example(found=dataclasses.replace(PLAIN, names=[*PLAIN.names[:6], "int", *PLAIN.names[7:]]))
@example(found=dataclasses.replace(PLAIN, names=[*PLAIN.names[:11], "start_of_a6", *PLAIN.names[12:]]))
@example(found=HOSTILE[2])
@example(found=TYPES)
def test_it_still_builds(tool: Callable[[str], str], found: Chosen) -> None:
    """As C99, which knows trigraphs, and as C++, without a warning."""
    compilers = {"c": [tool("gcc"), "-x", "c", "-std=c99"], "c++": [tool("g++"), "-x", "c++", "-std=c++11"]}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in written(found).items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_text(text)
        for language, words in compilers.items():
            files = ["net.c", "net_weights.c", "net_test.c", "example.c"] + ["engine/engine.c"] * (
                language == "c"
            )
            command = [*words, *STRICT, "-Wno-trigraphs", "-fsyntax-only", *files]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[:2000]


def test_the_project_of_cmake_is_the_same_for_any_model() -> None:
    assert written(HOSTILE[1])["CMakeLists.txt"] == written(PLAIN)["CMakeLists.txt"]


def test_a_model_of_hostile_names_runs_as_one_of_plain_names() -> None:
    """In the provider native, which compiles and runs what it wrote."""
    results = []
    alike = dataclasses.replace(PLAIN, names=["*" * (n + 1) for n in range(NAMES)])
    words = dataclasses.replace(PLAIN, names=WORDS[NAMES : 2 * NAMES])
    # A weight that is called as the start of a state would be.
    started = dataclasses.replace(PLAIN, names=[*PLAIN.names[:12], "start_of_a6", *PLAIN.names[13:]])
    for found in (PLAIN, HOSTILE[0], alike, words, started):
        stream = rnnx.load(model(found), provider="native").stream(batch=2)
        results.append([*stream.step({found.names[0]: np.array([1, 4])}).values()])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("language", scaffold.LANGUAGES)
def test_a_program_around_a_model_holds_nothing_of_it_but_the_model(language: str, tmp_path: Path) -> None:
    found = {}
    for name, chosen_names in (("plain", PLAIN), ("hostile", HOSTILE[0])):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model(chosen_names))
        made = scaffold.embed(language, path, tmp_path / name)
        found[name] = {
            file.relative_to(made): file.read_bytes()
            for file in made.rglob("*")
            if file.is_file() and file.name != scaffold.MODEL
        }
        assert (made / scaffold.MODEL).read_bytes() == path.read_bytes()
        shutil.rmtree(made)
    assert found["hostile"] == found["plain"]


@SETTINGS
@given(text=texts())
def test_in_source_keeps_letters_and_a_few_signs(text: str) -> None:
    got = foreign_text.in_source(text)
    assert len(got) <= 120
    assert all(letter.isalnum() or letter in " ._-:,=+()[]" for letter in got)
    assert foreign_text.in_source("layer.0 weight") == "layer.0 weight"


@SETTINGS
@given(found=chosen())
def test_json_is_seen_and_says_the_same(found: Chosen) -> None:
    contract = read_contract(read_model(model(found)))
    shown = to_json(contract, indent=2)
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert json.loads(shown) == json.loads(msgspec.json.encode(contract))
    assert to_json(from_json(shown)) == to_json(contract)


@pytest.mark.parametrize("found", [*HOSTILE[:2], dataclasses.replace(PLAIN, names=PIECES[-NAMES:])])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_inspect_prints_nothing_that_a_terminal_obeys(
    found: Chosen, options: list[str], command: Callable[..., Result], tmp_path: Path
) -> None:
    found = dataclasses.replace(found, symbols="\u202e\x9b\x1b\x07b")
    path = tmp_path / "net.onnx"
    path.write_bytes(model(found))
    result = command("inspect", path, *options)
    assert result.exit_code == 0
    assert [letter for letter in result.stdout if not letter.isprintable() and letter != "\n"] == []
    if options:
        assert json.loads(result.stdout)["states"][0]["name"] == found.names[5]


class Elements(HTMLParser):
    """Counts the elements of a page, with their attributes' names, and keeps its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.shown = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_the_report_has_the_elements_that_it_has_for_plain_names(tmp_path: Path) -> None:
    pages = {}
    page_names = dataclasses.replace(
        PLAIN,
        names=[f'{n}</td><script>x</script>\u202e\x9b" onload="' for n in range(NAMES)],
        texts=["</title></pre><script>x</script>\u2066"] * len(PLAIN.texts),
    )
    for name, found in (("plain", PLAIN), ("hostile", page_names)):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model(found))
        pages[name] = Elements(report_of(path, found))
    assert pages["hostile"].found == pages["plain"].found
    assert "script" not in {tag for tag, _ in pages["hostile"].found}
    assert "<script>x</script>" in pages["hostile"].shown
    assert not [letter for letter in pages["hostile"].shown if not letter.isprintable() and letter != "\n"]


def report_of(path: Path, found: Chosen) -> str:
    """Return the report on a model whose texts are in every place that a report has."""
    opened = read_model(path)
    contract = read_contract(opened)
    drift = Drift(
        curve=[(0, 1e-6), (1, 1e-5)], reference=[], largest=1e-5, ratio=None, ratios=[], growth_per_step=0.0,
        bound=1e-5, left=1, reference_left=None,
    )  # fmt: skip
    name, tensor = found.texts[0], f"output.{found.names[3]}"
    failure = Failure("fed", 1, tensor, [0], 1.0, 2.0, 1.0, 1e-5, 1e-5)
    runtime = Runtime(
        provider="cpu", tolerance=[name], agrees=False, max_errors={"fed": {tensor: 1.0}}, failure=failure,
        worst=failure, drift={tensor: drift}, ratio=None, allowed_ratio=None,
        checks=[Check(name, None, name)],
    )  # fmt: skip
    return to_html(
        Parity(
            format="rnnx-parity", version=1, agrees=False, interrupted=False, summary=name,
            model={"path": name, "id": opened.id, "name": contract.name}, reference=name, digests={name: "0"},
            steps=3, batch=1, seed=None, inputs=name, truth=False, runtimes=[runtime], finding=None,
            contract=contract, versions={name: name}, machine=name, made=name, command=name,
        )
    )  # fmt: skip


def test_texts_of_the_report_are_those_of_the_functions() -> None:
    assert foreign_text.in_html('<a "b">\u202e') == "&lt;a &quot;b&quot;&gt;\\u202e"
    assert foreign_text.in_json('"\x9b\U000e0001\n"') == '"\\u009b\\udb40\\udc01\n"'
    assert foreign_text.in_terminal("a\x1b[2J\n\u202eb") == "a\\x1b[2J\n\\u202eb"
