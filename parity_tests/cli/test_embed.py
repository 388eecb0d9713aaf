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
from rnnx import replay, scaffold
from rnnx.errors import FileError, ModelError, UsageError
from rnnx.formats.safetensors_file import decode_tensors, encode_tensors
from rnnx.formats.trace_file import read_trace, write_trace
from rnnx.model.contract import Proof, resolve, step_shape
from rnnx.model.inspection import inspect_model
from rnnx.model.onnx_file import model_id, read_contract, read_model, write_contract
from rnnx.model.shapes import Array
from rnnx.scaffold import LANGUAGES
from rnnx.text.generation import generate
from support.browser import chromium, posted
from support.recorded import record
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


def steps_of(readme: Path, place: int = 0) -> str:
    """Return some commands of a README, with the paths that are a reader's own filled in."""
    blocks = re.findall(r"^((?:    .*\n)+)", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    headers = "/path/to/onnxruntime/include"
    text = str(blocks[place]).replace("/path/to/libonnxruntime.so", library())
    if headers in text:
        script = REPOSITORY / "scripts" / "onnxruntime_headers"
        text = text.replace(headers, subprocess.check_output([script], text=True).strip())
    return text


@pytest.mark.parametrize("language", PROGRAMS)
def test_program_proves_itself_and_runs_frames_as_its_readme_says(
    language: str, installed: Path, tmp_path: Path
) -> None:
    prepare(language)  # skips where the language's tools are missing
    app = tmp_path / "app"
    run_installed(installed, "embed", language, GOLDEN / "characters.onnx", "-o", app)
    assert (app / scaffold.MODEL).read_bytes() == (GOLDEN / "characters.onnx").read_bytes()
    told = build_and_run(app)
    assert golden_text() in told.stdout.decode()
    assert re.search(r"^agrees: 12 steps, [0-9.]+e-0?[0-9]+$", told.stderr.decode(), re.MULTILINE)
    for model in MODELS:
        put(app, model)
        told = build_and_run(app)
        assert "agrees: 12 steps, " in told.stderr.decode()
        contract = rnnx.load(GOLDEN / f"{model}.onnx").contract
        if contract.whole_only is not None:
            assert contract.whole_only in told.stderr.decode()
            continue
        for spec in contract.outputs:
            assert spec.name in told.stderr.decode()
    put(app, "several")
    sent, expected = frames("several")
    (app / "in.raw").write_bytes(sent[:-3])
    told = build_and_run(app, place=1)
    assert "the last frame had" in told.stderr.decode()
    np.testing.assert_allclose(
        np.frombuffer((app / "out.raw").read_bytes(), np.float32), expected, rtol=2e-5, atol=2e-5
    )


@pytest.mark.parametrize("language", ["c", "node"])
def test_a_program_whose_model_is_another_says_so_and_runs_nothing(language: str, tmp_path: Path) -> None:
    prepare(language)
    app = scaffold.embed(language, GOLDEN / "gru.onnx", tmp_path / "app")
    tensors, metadata = decode_tensors((app / scaffold.TRACE).read_bytes(), what="a trace")
    tensors["output.y"][3, 0, 1] += 1
    (app / scaffold.TRACE).write_bytes(encode_tensors(tensors, metadata))
    told = build_and_run(app, wanted=1).stderr.decode()
    assert "disagrees: output.y at step 3, index [0, 1]: expected" in told
    assert "a frame in" not in told
    (app / scaffold.TRACE).unlink()
    assert "not proved: there is no trace at" in build_and_run(app).stderr.decode()


def put(app: Path, model: str) -> None:
    """Put a golden model and its trace into a program."""
    shutil.copyfile(GOLDEN / f"{model}.onnx", app / scaffold.MODEL)
    shutil.copyfile(GOLDEN / f"{model}.trace.safetensors", app / scaffold.TRACE)


def frames(model: str) -> tuple[bytes, Array]:
    """Return four frames of random inputs, the last bytes of them 0, and what steps give, flat."""
    session = rnnx.load(GOLDEN / f"{model}.onnx")
    rng = np.random.default_rng(0)
    stream, sent, given = session.stream(), b"", []
    for step in range(4):
        inputs = {}
        for spec in session.contract.inputs:
            shape = resolve(step_shape(spec), {"batch": 1})
            drawn = rng.normal(size=shape) if spec.dtype.startswith("float") else rng.integers(0, 5, shape)
            inputs[spec.name] = drawn.astype(spec.dtype)
        if step == 3:
            inputs[spec.name].reshape(-1)[-1] = 0
        sent += b"".join(value.tobytes() for value in inputs.values())
        outputs = stream.step(inputs)
        given += [outputs[spec.name].ravel() for spec in session.contract.outputs]
    return sent, np.concatenate(given)


def golden_text() -> str:
    """Return what every program writes with the golden model over characters."""
    session = rnnx.load(GOLDEN / "characters.onnx")
    assert session.contract.vocabulary is not None
    first = session.contract.vocabulary.symbols[0]
    return first + "".join(generate(session, first, 200, temperature=0.8, seed=7))


# Puts each model in turn under a page, and posts what the page then shows.
WATCH = """<!doctype html>
<iframe width="1000" height="800"></iframe>
<script type="module">
  const frame = document.querySelector("iframe");
  const found = {};
  for (const name of NAMES) {
    const body = await (await fetch(`/models/${name}.onnx`)).blob();
    await fetch("/app/model.onnx", { method: "PUT", body });
    const trace = await (await fetch(`/models/${name}.trace.safetensors`)).blob();
    await fetch("/app/model.trace.safetensors", { method: "PUT", body: trace });
    frame.src = `/app/index.html?${name}`;
    await new Promise((loaded) => (frame.onload = loaded));
    const { body: page } = frame.contentDocument;
    const { dataset } = page;
    while (!["ready", "failed"].includes(dataset.state)) await new Promise((next) => setTimeout(next, 20));
    const text = page.querySelector("pre").textContent;
    found[name] = { state: dataset.state, shown: page.innerText, text };
    const { frames } = page.querySelector("#steps form").elements;
    if (name !== "several") continue;
    const chosen = new DataTransfer();
    chosen.items.add(new File([await (await fetch("/models/in.raw")).blob()], "in.raw"));
    frames.files = chosen.files;
    page.querySelector("#steps form").requestSubmit();
    while (!page.querySelector("a").href) await new Promise((next) => setTimeout(next, 20));
    const out = await (await fetch(page.querySelector("a").href)).arrayBuffer();
    found[name].numbers = Array.from(new Float32Array(out));
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
        for kind in ("onnx", "trace.safetensors"):
            shutil.copyfile(GOLDEN / f"{model}.{kind}", tmp_path / "models" / f"{model}.{kind}")
    sent, expected = frames("several")
    (tmp_path / "models" / "in.raw").write_bytes(sent[:-3])
    (tmp_path / "models" / "none.onnx").write_bytes(b"none")
    gru = read_model(GOLDEN / "gru.onnx")
    hostile = msgspec.structs.replace(read_contract(gru), name="<b>x</b><script>y</script>\u202ez")
    (tmp_path / "models" / "hostile.onnx").write_bytes(write_contract(gru.data, hostile))
    run_installed(installed, "embed", "web", GOLDEN / "characters.onnx", "-o", tmp_path / "app")
    build_and_run(tmp_path / "app")
    for name in ("none", "hostile"):
        trace = GOLDEN / "gru.trace.safetensors"
        shutil.copyfile(trace, tmp_path / "models" / f"{name}.trace.safetensors")
    names = sorted(path.stem for path in (tmp_path / "models").glob("*.onnx"))
    (tmp_path / "watch.html").write_text(WATCH.replace("NAMES", str(names)))
    found = posted("/watch.html", {"/": tmp_path}, tmp_path / "profile")
    assert found["characters"]["text"] == golden_text()
    np.testing.assert_allclose(found["several"]["numbers"], expected, rtol=2e-5, atol=2e-5)
    assert "<b>x</b><script>y</script>\\u202ez" in found["hostile"]["shown"], "text, and all of it to be seen"
    assert found["none"]["state"] == "failed"
    assert "error[not-onnx]: expected an ONNX model in model.onnx; found 4 bytes" in found["none"]["shown"]
    for model in MODELS:
        assert found[model]["state"] == "ready", found[model]["shown"]
        assert "agrees: 12 steps, " in found[model]["shown"]
        for spec in rnnx.load(GOLDEN / f"{model}.onnx").contract.outputs:
            assert spec.name in found[model]["shown"]


def build_and_run(app: Path, place: int = 0, wanted: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Run some commands of a program's README, which build it and run it, or run it on."""
    words = ["bash", "-euc", steps_of(app / "README.md", place)]
    # What the program depends on in Rust was compiled for the runtime already, and takes a minute.
    environment = {
        **os.environ,
        "CARGO_TARGET_DIR": str(REPOSITORY / "runtimes" / "rust" / "target"),
        "RNNX_ONNXRUNTIME": library(),
    }
    done = subprocess.run(words, cwd=app, env=environment, capture_output=True, timeout=600)
    assert done.returncode == wanted, done.stderr.decode()[-3000:]
    return done


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
    others = {file.relative_to(plain) for file in plain.rglob("*")} - {Path(scaffold.TRACE)}
    assert files == others | {Path("weights-0.bin")}
    for file in others - {Path(scaffold.MODEL)}:
        assert (plain / file).is_dir() or (plain / file).read_bytes() == (made / file).read_bytes()
    assert rnnx.load(made / scaffold.MODEL).stream().step(np.float32([[1]]))["y"].tolist() == [[2]]
    found = inspect_model(made / scaffold.MODEL)
    assert found.is_as_proved
    assert found.contract.id == found.model.id


def test_a_trace_comes_along_with_the_id_that_the_model_has_there(tmp_path: Path) -> None:
    path = leak_beside(tmp_path, "deep/weights")
    session = rnnx.load(path)
    made = scaffold.embed("c", path, tmp_path / "bare")
    assert not (made / scaffold.TRACE).exists()
    write_trace(path.with_suffix(".trace.safetensors"), record(session)[1])
    made = scaffold.embed("c", path, tmp_path / "app")
    moved = read_model(made / scaffold.MODEL)
    trace = read_trace(made / scaffold.TRACE, read_contract(moved), model_id=moved.id)
    assert moved.id != session.id
    assert replay.main([str(made / scaffold.MODEL), str(made / scaffold.TRACE)]) == 0
    write_trace(path.with_suffix(".trace.safetensors"), trace)
    with pytest.raises(FileError) as caught:
        scaffold.embed("c", path, tmp_path / "other")
    assert caught.value.code == "trace-of-another-model"


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
    assert "no trace" not in result.stderr
    (tmp_path / "alone.onnx").write_bytes((GOLDEN / "gru.onnx").read_bytes())
    alone = command("embed", "c", tmp_path / "alone.onnx", "-o", tmp_path / "e")
    assert alone.exit_code == 0
    assert "warning: there is no trace beside" in alone.stderr
    assert command("embed", "c", GOLDEN / "gru.onnx", "-o", tmp_path / "b", "-q").stdout == ""
    assert command("embed", "basic", GOLDEN / "gru.onnx", "-o", tmp_path / "d").exit_code == 2


def test_languages_are_those_of_the_runtimes() -> None:
    assert set(LANGUAGES) == set(TOOLS) - {"python"} | {"web"}
