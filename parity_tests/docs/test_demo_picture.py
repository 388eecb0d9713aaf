"""The picture in README.md shows scripts/demo as it is: each step, each command, what they print first."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import pytest

from conftest import REPOSITORY

PICTURE = REPOSITORY / "docs" / "pictures" / "demo.svg"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(picture: str) -> list[str]:
    """Return the lines of a picture."""
    return [
        "".join(each.itertext()) for each in ElementTree.fromstring(picture).iter() if each.tag[-4:] == "text"
    ]


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the demo prints of its own, without running a command."""
    demo = script("demo")
    figures = json.dumps({"held_out_nats": 1.4, "count_model_nats": 1.5})
    ended = SimpleNamespace(returncode=0, stdout=figures)
    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=lambda *_, **__: ended, PIPE=None))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["scripts/demo"])
    assert demo.main() == 0
    return capsys.readouterr().out


def test_the_picture_has_each_step_and_command_of_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = script("draw_demo").shown(printed(monkeypatch, capsys))
    asked = [re.sub(r"/python3\.\d+ ", "/python3 ", line) for line in lines if re.match(r"\d\. |\$ ", line)]
    drawn = [re.sub(r"/python3\.\d+ ", "/python3 ", line) for line in texts(PICTURE.read_text())]
    assert len(asked) == 10
    assert [line for line in drawn if re.match(r"\d\. |\$ ", line)] == asked, "run scripts/write_picture"


def test_a_picture_has_the_first_lines_of_each_command_as_they_are() -> None:
    draw = script("draw_demo")
    output = "\n1. One\n$ rnnx parity a.onnx\nagrees <&>\nmore\n\n5. Text\n$ rnnx run a.onnx\ndef f():\n\n"
    output += "    return 1\n" + "x\n" * 20 + "  \n\nDone in 3:45. In demo/:\n  poet.onnx\n"
    lines = draw.shown(output)
    assert lines[:4] == ["1. One", "$ rnnx parity a.onnx", "agrees <&>", ""]
    assert lines[4:9] == ["5. Text", "$ rnnx run a.onnx", "def f():", "", "    return 1"]
    assert lines[9:] == ["x"] * 6
    assert texts(draw.drawn(lines))[1:] == [line for line in lines if line]


def test_a_demo_that_stopped_makes_no_picture() -> None:
    with pytest.raises(SystemExit, match="no 'Done in'"):
        script("draw_demo").shown("1. One\n$ rnnx train x\n")
