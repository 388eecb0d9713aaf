"""`rnnx embed` out of an installed wheel: each language's program builds and runs as its README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import external_data_helper, numpy_helper
from typer.testing import Result

import rnnx
from cases.leak import leak_contract, leak_graph
from conftest import REPOSITORY
from rnnx import scaffold
from rnnx.errors import FileError, ModelError, UsageError
from rnnx.model.contract import Proof
from rnnx.model.inspection import inspect_model
from rnnx.model.onnx_file import model_id, read_contract, read_model, write_contract
from rnnx.scaffold import LANGUAGES
from rnnx.text.generation import generate
from support.browser import chromium, posted
from support.replay_programs import GOLDEN, TOOLS, library, prepare

WRITTEN = [name for name in LANGUAGES if (REPOSITORY / "runtimes" / name / "README.md").is_file()]
PROGRAMS = [name for name in WRITTEN if name != "web"]  # whose program is a page
MODELS = ("several", "free_dimension", "whole_only", "hops", "scalars", "half")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, REPOSITORY]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        folder,
        wheel,
    ]
    subprocess.run([str(word) for word in pip], check=True, timeout=600)
    return folder


def run_installed(installed: Path, *arguments: str | Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = "import rnnx, sys; sys.exit(not rnnx.__file__.startswith(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", where, str(installed)], env=environment, check=True, cwd="/")
    words = [sys.executable, "-m", "rnnx.cli", *map(str, arguments)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_sources_and_nothing_that_was_built(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for language in WRITTEN:
        held = [name for name in names if name.startswith(f"rnnx/_sources/{language}/")]
        assert f"rnnx/_sources/{language}/README.md" in held
        assert any(name.startswith(f"rnnx/_sources/{language}/template/") for name in held)
    built = [
        name for name in names if re.search(r"/(build|target|node_modules)/|\.(o|a|so|class|jar)$", name)
    ]
    assert not built


def steps_of(readme: Path) -> str:
    """Return the first commands of a README, with the paths that are a reader's own filled in."""
    block = re.search(r"^((?:    .*\n)+)", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert block
    headers = "/path/to/onnxruntime/include"
    text = block[1].replace("/path/to/libonnxruntime.so", library())
    if headers in text:
        script = REPOSITORY / "scripts" / "onnxruntime_headers"
        text = text.replace(headers, subprocess.check_output([script], text=True).strip())
    return text


@pytest.mark.parametrize("language", PROGRAMS)
def test_program_builds_and_runs_as_its_readme_says(language: str, installed: Path, tmp_path: Path) -> None:
    prepare(language)  # skips where the language's tools are missing
    app = tmp_path / "app"
    run_installed(installed, "embed", language, GOLDEN / "characters.onnx", "-o", app)
    assert (app / scaffold.MODEL).read_bytes() == (GOLDEN / "characters.onnx").read_bytes()
    printed = build_and_run(app)
    assert golden_text() in printed
    for model in MODELS:
        shutil.copyfile(GOLDEN / f"{model}.onnx", app / scaffold.MODEL)
        printed = build_and_run(app)
        for spec in rnnx.load(GOLDEN / f"{model}.onnx").contract.outputs:
            assert spec.name in printed


def golden_text() -> str:
    """Return what every program writes with the golden model over characters."""
    session = rnnx.load(GOLDEN / "characters.onnx")
    assert session.contract.vocabulary is not None
    first = session.contract.vocabulary.symbols[0]
    return first + "".join(generate(session, first, 200, temperature=0.8, seed=7))


@pytest.fixture(scope="module")
def app_in_node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare("node")
    app = tmp_path_factory.mktemp("node") / "app"
    scaffold.embed("node", GOLDEN / "gru.onnx", app)
    return app


@pytest.mark.parametrize("bounds", [(5, 36), (-36, -5)])
def test_a_program_in_node_gives_what_is_nearest_to_0_where_0_is_refused(
    bounds: tuple[int, int], app_in_node: Path
) -> None:
    (app_in_node / scaffold.MODEL).write_bytes(ids_within(*bounds))
    assert build_and_run(app_in_node).count("y [1,") == 5


def ids_within(least: int, largest: int) -> bytes:
    """Return a golden model whose ids, float levels too, have another range."""
    model = read_model(GOLDEN / "ids.onnx")
    contract = read_contract(model)
    token, *others = contract.inputs
    token = msgspec.structs.replace(token, range=[least, largest])
    return write_contract(model.data, msgspec.structs.replace(contract, inputs=[token, *others]))


# Puts each model in turn under a page, and posts what the page then shows.
WATCH = """<!doctype html>
<iframe width="1000" height="800"></iframe>
<script type="module">
  const frame = document.querySelector("iframe");
  const found = {};
  for (const name of NAMES) {
    const body = await (await fetch(`/models/${name}.onnx`)).blob();
    await fetch("/app/model.onnx", { method: "PUT", body });
    frame.src = `/app/index.html?${name}`;
    await new Promise((loaded) => (frame.onload = loaded));
    const { body: page } = frame.contentDocument;
    const { dataset } = page;
    while (!["ready", "failed"].includes(dataset.state)) await new Promise((next) => setTimeout(next, 20));
    const text = page.querySelector("pre").textContent;
    found[name] = { state: dataset.state, shown: page.innerText, text };
  }
  await fetch("/said", { method: "POST", body: JSON.stringify(found) });
</script>
"""


def test_page_runs_as_its_readme_says(installed: Path, tmp_path: Path) -> None:
    prepare("node")
    chromium()
    for folder in ("models", "profile"):
        (tmp_path / folder).mkdir()
    for model in ("characters", *MODELS):
        shutil.copyfile(GOLDEN / f"{model}.onnx", tmp_path / "models" / f"{model}.onnx")
    (tmp_path / "models" / "from_five.onnx").write_bytes(ids_within(5, 36))
    (tmp_path / "models" / "none.onnx").write_bytes(b"none")
    gru = read_model(GOLDEN / "gru.onnx")
    hostile = msgspec.structs.replace(read_contract(gru), name="<b>x</b><script>y</script>\u202ez")
    (tmp_path / "models" / "hostile.onnx").write_bytes(write_contract(gru.data, hostile))
    run_installed(installed, "embed", "web", GOLDEN / "characters.onnx", "-o", tmp_path / "app")
    build_and_run(tmp_path / "app")
    names = sorted(path.stem for path in (tmp_path / "models").iterdir())
    (tmp_path / "watch.html").write_text(WATCH.replace("NAMES", str(names)))
    found = posted("/watch.html", {"/": tmp_path}, tmp_path / "profile")
    assert found["characters"]["text"] == golden_text()
    assert found["from_five"]["state"] == "ready"
    assert "<b>x</b><script>y</script>\\u202ez" in found["hostile"]["shown"], "text, and all of it to be seen"
    assert found["none"]["state"] == "failed"
    assert "error[not-onnx]: expected an ONNX model in model.onnx; found 4 bytes" in found["none"]["shown"]
    for model in MODELS:
        assert found[model]["state"] == "ready", found[model]["shown"]
        for spec in rnnx.load(GOLDEN / f"{model}.onnx").contract.outputs:
            assert spec.name in found[model]["shown"]


def build_and_run(app: Path) -> str:
    """Return what a program prints, built and run as its README says."""
    words = ["bash", "-euc", steps_of(app / "README.md")]
    # What the program depends on in Rust was compiled for the runtime already, and takes a minute.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(REPOSITORY / "runtimes" / "rust" / "target")}
    done = subprocess.run(words, cwd=app, env=environment, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


def test_an_unknown_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="c, cpp, go, java, node, rust, web; found 'perl'"):
        scaffold.embed("perl", GOLDEN / "gru.onnx", tmp_path / "app")


def test_a_model_without_contract_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected an rnnx contract"):
        scaffold.embed("c", GOLDEN / "faults" / "no-contract.onnx", tmp_path / "app")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    scaffold.embed("c", GOLDEN / "gru.onnx", tmp_path / "app")  # an empty one is fine
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError) as caught:
        scaffold.embed("cpp", GOLDEN / "gru.onnx", tmp_path / "app")
    assert caught.value.code == "folder-not-empty"
    with pytest.raises(FileError) as caught:
        scaffold.embed("c", GOLDEN / "gru.onnx", tmp_path / "app" / "main.c")
    assert caught.value.code == "folder-not-empty"
    with pytest.raises(FileError) as caught:
        scaffold.embed("c", GOLDEN / "gru.onnx", tmp_path / "none" / "app")
    assert caught.value.code == "output-folder-missing"
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_left_of_a_program_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(FileError, match="No space left on device"):
        scaffold.embed("c", GOLDEN / "gru.onnx", tmp_path / "app")
    assert not list(tmp_path.iterdir())


def leak_beside(folder: Path, location: str) -> Path:
    """Write the example of the contract, proved, with a weight in another file."""
    model = onnx.load_from_string(leak_graph())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([0.5], np.float32), "half"))
    external_data_helper.set_external_data(model.graph.initializer[0], location, offset=0, length=4)
    model.graph.initializer[0].ClearField("raw_data")
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(np.float32(0.5).tobytes())
    path = folder / "leak.onnx"
    data = model.SerializeToString()
    proof = Proof(reference="torch", tolerance="float32", batches=[1], steps=3)
    contract = msgspec.structs.replace(leak_contract(), id=model_id(data, folder), proof=proof)
    path.write_bytes(write_contract(data, contract))
    return path


# What would be overwritten, and what tools read if it is there.
LOCATIONS = ["leak.onnx.data", "main.c", "CMakeLists.txt", "rnnx/CMakeLists.txt", "model.onnx", ".npmrc"]


@pytest.mark.parametrize("location", [*LOCATIONS, "CMakePresets.json", "weights-0.bin", "deep/er/weights"])
def test_weights_beside_the_model_come_along_under_names_of_ours(location: str, tmp_path: Path) -> None:
    path = leak_beside(tmp_path, location)
    assert inspect_model(path).is_as_proved
    plain = scaffold.embed("c", GOLDEN / "gru.onnx", tmp_path / "plain")
    made = scaffold.embed("c", path, tmp_path / "app")
    assert (made / "weights-0.bin").read_bytes() == np.float32(0.5).tobytes()
    files = {file.relative_to(made) for file in made.rglob("*")}
    others = {file.relative_to(plain) for file in plain.rglob("*")}
    assert files == others | {Path("weights-0.bin")}
    for file in others - {Path(scaffold.MODEL)}:
        assert (plain / file).is_dir() or (plain / file).read_bytes() == (made / file).read_bytes()
    assert rnnx.load(made / scaffold.MODEL).stream().step(np.float32([[1]]))["y"].tolist() == [[2]]
    found = inspect_model(made / scaffold.MODEL)
    assert found.is_as_proved
    assert found.contract.id == found.model.id


def test_a_name_that_the_program_has_already_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaffold, "MODEL", "main.c")
    with pytest.raises(FileError) as caught:
        scaffold.embed("c", GOLDEN / "gru.onnx", tmp_path / "app")
    assert caught.value.code == "name-taken"
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_to_do_next(command: Callable[..., Result], tmp_path: Path) -> None:
    result = command("embed", "c", GOLDEN / "gru.onnx", "-o", tmp_path / "app")
    assert result.exit_code == 0
    assert LANGUAGES["c"].command in result.stdout
    assert command("embed", "c", GOLDEN / "gru.onnx", "-o", tmp_path / "b", "-q").stdout == ""
    assert command("embed", "basic", GOLDEN / "gru.onnx", "-o", tmp_path / "d").exit_code == 2


def test_languages_are_those_of_the_runtimes() -> None:
    assert set(LANGUAGES) == set(TOOLS) - {"python"} | {"web"}
