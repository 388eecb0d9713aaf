"""What a command that refused has said."""

from __future__ import annotations

from typer.testing import Result


def refused(result: Result, code: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"rnnx: error[{code}]: expected "), result.stderr
    assert result.stderr.count("\n") == 1
