"""The unit tests of the runtimes in other languages, run by each language's own tool.

Those of C and C++ are run in test_conformance_c.py.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from conftest import REPOSITORY
from support.replay_programs import prepare

SUITES = {
    "rust": ["cargo", "test", "--quiet", "--manifest-path", "runtimes/rust/Cargo.toml"],
    "go": ["go", "test", "-C", "runtimes/go", "-race", "./..."],
    "java": ["mvn", "--quiet", "--batch-mode", "--file", "runtimes/java/pom.xml", "test"],
    "node": ["npm", "--prefix", "runtimes/node", "test"],
}


@pytest.mark.parametrize("language", SUITES)
def test_unit_tests_pass(language: str) -> None:
    """100,000 steps in flat memory are among them."""
    _, library = prepare(language)
    done = subprocess.run(
        SUITES[language],
        cwd=REPOSITORY,
        env={**os.environ, "RNNX_ONNXRUNTIME": library},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    if language == "java":  # whose tests are skipped where the goldens are not found
        reports = list((REPOSITORY / "runtimes" / "java" / "target" / "surefire-reports").glob("*.xml"))
        assert reports
        assert not [report.name for report in reports if "<skipped" in report.read_text(encoding="utf-8")]
