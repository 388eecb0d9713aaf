"""Loading a file once in a process of its own: for files of strangers, which may end what loads them.

Rules on a file refuse what is known to be wrong before an engine sees it, but an engine is a large program of
others. What it does to a child process, it does to that alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rnnx.errors import FileError, RnnxError
from rnnx.limits import bounded, max_bytes
from rnnx.model.shapes import chunk_shape, from_steps, has_steps
from rnnx.parity.random_inputs import random_inputs
from rnnx.session import load

SECONDS = 60.0
_STEPS = 2


@dataclasses.dataclass(frozen=True)
class Trial:
    """What happened when a file was loaded.

    Attributes:
        outcome: `works`, `refused` (an error of rnnx), `ended` (the process did) or `endless`.
        provider: what it was loaded with.
        code: of the error; the signal or exit code that ended the process; "" if it works.
        found: in one line, for people.
    """

    outcome: str
    provider: str
    code: str
    found: str


def try_model(path: str | os.PathLike[str], provider: str = "cpu", *, seconds: float = SECONDS) -> Trial:
    """Load a model and run a few steps of it in a child process, and say what happened.

    Args:
        path: the ONNX file.
        provider: what to load it with.
        seconds: how long the child may take.

    Raises:
        FileError: `cannot-start` if there can be no child.
    """
    # Without -P, a folder of strangers that is worked in would be a place to import from.
    words = [sys.executable, "-P", "-m", "rnnx.trial", os.fspath(path), provider, str(max_bytes())]
    try:
        done = subprocess.run(
            words, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Trial("endless", provider, "timeout", f"no end after {seconds:g} seconds")
    except (OSError, ValueError) as error:
        raise FileError(
            "cannot-start",
            expected="to start a process that loads the file",
            found=str(error),
            fix="check the path and what this user may start",
        ) from error
    told = _told(done.stdout)
    if done.returncode == 0 and told is not None:
        return Trial(told["outcome"], provider, told["code"], told["found"])
    if done.returncode < 0:
        number = -done.returncode
        name = signal.Signals(number).name if number in {*signal.Signals} else str(number)
        return Trial("ended", provider, name, f"the process was ended by signal {name}")
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return Trial("ended", provider, f"exit-{done.returncode}", lines[-1] if lines else "it said nothing")


def _told(printed: bytes) -> dict[str, str] | None:
    """Return what the child wrote in its last line, None for anything else."""
    try:
        found = json.loads(printed.splitlines()[-1])
        return {key: str(found[key]) for key in ("outcome", "code", "found")}
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def main(arguments: Sequence[str]) -> None:
    """Be the child: load, run, and print one line of JSON."""
    path, provider, most = arguments
    _bound_memory(int(most))
    try:
        with bounded(int(most)):
            _use(path, provider)
        told = {"outcome": "works", "code": "", "found": "it loads and runs"}
    except RnnxError as error:
        told = {"outcome": "refused", "code": error.code, "found": str(error)}
    except MemoryError:
        told = {"outcome": "refused", "code": "out-of-memory", "found": f"it takes more than {most} bytes"}
    print(f"\n{json.dumps(told)}", flush=True)
    # What an engine does on its way out says nothing about the file any more.
    os._exit(0)


def _bound_memory(most: int) -> None:
    """Let this process take twice what rnnx is told to allow, beyond what it has, where that can be."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + 2 * most
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        return  # not on this system


def _use(path: str, provider: str) -> None:
    session = load(path, provider)
    contract = session.contract
    sizes = dict.fromkeys(contract.free_dimensions, 2)
    stream = session.stream(dims=sizes)
    rows = random_inputs(contract, steps=_STEPS, sizes={**sizes, "batch": 1})
    shapes = {spec.name: chunk_shape(contract, spec) for spec in contract.inputs if has_steps(contract, spec)}
    if contract.whole_only is None:
        stream.step({name: value[0] if name in shapes else value for name, value in rows.items()})
    stream.run(
        {name: from_steps(value, shapes[name]) if name in shapes else value for name, value in rows.items()}
    )


if __name__ == "__main__":
    main(sys.argv[1:])
