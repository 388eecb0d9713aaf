"""`rnnx doctor`: what is installed, and which providers work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from rnnx.cli.console import Json, bold, table
from rnnx.cli.flags import refuse
from rnnx.engines.environment import Environment, describe_environment
from rnnx.foreign_text import in_terminal
from rnnx.trial import try_model


def doctor(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Option(
            "--try", metavar="MODEL", help="Load this file once in a process of its own, and say how it went."
        ),
    ] = None,
    provider: Annotated[str, typer.Option(help="What --try loads it with: cpu, cuda or native.")] = "cpu",
    json: Json = False,
) -> None:
    """Show what is installed, which providers work, and why not the others.

    Exits with 0 if at least one provider works, else with 2. With --try, shows what happens when a file is
    loaded and run for a few steps: whoever takes files from strangers finds out here whether one ends the
    process that loads it. Exits with 0 if it works, else with 1.

    Example:

        rnnx doctor
        rnnx doctor --json
        rnnx doctor --try poet.onnx
    """
    if model is None:
        refuse(context, "provider", expected="--try with --provider", fix="leave it out: all are shown")
    else:
        _try(model, provider, json)
        return
    found = describe_environment()
    typer.echo(as_json(found) if json else report(found))
    if not found.working:
        raise typer.Exit(2)


def _try(model: Path, provider: str, json: bool) -> None:
    found = try_model(model, provider)
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        code = f" [{found.code}]" if found.code else ""
        typer.echo(in_terminal(f"{model}: {found.outcome}{code}: {found.found}"))
    if found.outcome != "works":
        raise typer.Exit(1)


def report(found: Environment) -> str:
    """Return the findings as text for people."""
    packages = [(name, version or "not installed") for name, version in found.packages.items()]
    lines = [
        bold("python"),
        f"  {found.python} on {found.system}",
        bold("packages"),
        table(packages),
        bold("providers"),
    ]
    for name, error in found.providers.items():
        if error is None:
            lines.append(f"  {name:<8}works")
        else:
            lines += [f"  {name:<8}not here: {error.found}", f"  {'':<8}{error.fix}"]
    if not found.working:
        lines.append(bold("No provider works: models can be inspected but not run."))
    return "\n".join(lines)


def as_json(found: Environment) -> str:
    """Return the findings as JSON: `python`, `system`, `packages`, `providers`."""
    providers = {
        name: {"works": error is None}
        | ({} if error is None else {"code": error.code, "found": error.found, "fix": error.fix})
        for name, error in found.providers.items()
    }
    facts = {
        "python": found.python,
        "system": found.system,
        "packages": found.packages,
        "providers": providers,
    }
    return msgspec.json.format(msgspec.json.encode(facts), indent=2).decode()
