"""Running the commands that the scripts are made of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def call(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed; if it fails, stop the script with what it said.

    Args:
        words: of the command.
        cwd: the folder that it runs in.
        env: all of its environment; None for that of the script.
    """
    texts = [str(word) for word in words]
    done = subprocess.run(texts, cwd=cwd, env=env or os.environ, capture_output=True, text=True)
    if done.returncode:
        script = Path(sys.argv[0]).stem
        sys.exit(f"{script}: {' '.join(texts)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout
