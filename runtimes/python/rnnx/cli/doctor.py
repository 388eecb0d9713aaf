"""`rnnx doctor`: what is installed, and which providers work."""

from __future__ import annotations

import msgspec
import typer

from rnnx.cli.console import Json, bold, table
from rnnx.environment import Environment, describe_environment


def doctor(json: Json = False) -> None:
    """Show what is installed, which providers work, and why not the others.

    Exits with 0 if at least one provider works, else with 2.

    Example:

        rnnx doctor
        rnnx doctor --json
    """
    found = describe_environment()
    typer.echo(as_json(found) if json else report(found))
    if not found.working:
        raise typer.Exit(2)


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
