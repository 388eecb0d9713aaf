"""Flags of several commands, and those that mean something beside certain others only.

No flag is ignored without a word.
"""

from __future__ import annotations

from typing import Annotated

import typer

from rnnx.errors import UsageError


def _bound(context: typer.Context, size: int | None) -> int | None:
    """Hold what the command reads to `size` bytes."""
    from rnnx.limits import bounded

    context.with_resource(bounded(size))
    return size


MaxBytes = Annotated[
    int | None,
    typer.Option(
        help="Memory that a file, or states, may take; half of the machine's unless given.",
        min=1,
        callback=_bound,
    ),
]


def present(context: typer.Context, *names: str) -> list[str]:
    """Return those of some parameters that stand on the command line, as flags: "--load-state"."""
    sources = [(name, context.get_parameter_source(name)) for name in names]
    return [
        f"--{name.replace('_', '-')}"
        for name, source in sources
        if source is not None and source.name == "COMMANDLINE"
    ]


def refuse(context: typer.Context, *names: str, expected: str, fix: str) -> None:
    """Refuse parameters that would be ignored, if they stand on the command line.

    Args:
        context: of the command.
        names: of the parameters.
        expected: what the command line should be instead.
        fix: what to do.

    Raises:
        UsageError: `arguments`, naming those that were found.
    """
    found = present(context, *names)
    if found:
        raise UsageError("arguments", expected=expected, found=", ".join(found), fix=fix)


def providers(text: str) -> list[str]:
    """Return the names in a list such as "cpu,native". Raises UsageError `arguments` for an empty one."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(
            "arguments",
            expected="--runtimes with names of providers",
            found=repr(text),
            fix="as in cpu,native; 'rnnx doctor' says which work here",
        )
    return names
