"""What `rnnx parity` and `rnnx trace` share: opening the network, and comparing with it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnx.cli.console import progress

if TYPE_CHECKING:
    from rnnx.cli.source import Network
    from rnnx.parity.check import Request
    from rnnx.parity.verdict import Parity
    from rnnx.session import Session


# How the network was exported: flags that every command has which takes the network itself.
Weights = Annotated[
    Path | None, typer.Option(help="A state dict for file.py:Name; ck.pt:model takes one under a key.")
]
Kwargs = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Arguments of its class or factory.")
]
Inputs = Annotated[
    list[str] | None, typer.Option(metavar="NAME=SPEC", help="As it was exported with; else as in MODEL.")
]
State = Annotated[
    list[str] | None, typer.Option(metavar="NAME=SPEC", help="As it was exported with; else as in MODEL.")
]
Constants = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="As it was exported with.")]
Returns = Annotated[str | None, typer.Option(metavar="NAMES", help="As it was exported with: 'y, (h, c)'.")]


@dataclasses.dataclass(frozen=True)
class Source:
    """The network as it was named on the command line, and what it was exported with."""

    against: str
    weights: Path | None = None
    kwargs: list[str] | None = None
    inputs: list[str] | None = None
    state: list[str] | None = None
    constants: list[str] | None = None
    returns: str | None = None

    def open(self) -> Network:
        """Return the network. Raises as `rnnx.cli.source.open_network`."""
        from rnnx.cli.source import open_network

        return open_network(
            self.against,
            weights=self.weights,
            kwargs=self.kwargs,
            inputs=self.inputs,
            state=self.state,
            constants=self.constants,
            returns=self.returns,
        )

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file that the network is read from, by its name."""
        home = Path(self.against) if Path(self.against).is_file() else Path(self.against.rpartition(":")[0])
        files = [path for path in (home, self.weights) if path is not None and path.is_file()]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def compare_network(
    sessions: list[Session], source: Source, request: Request, *, command: str, bisect: bool, quiet: bool
) -> Parity:
    """Return the verdict on a model beside its network, with progress on standard error.

    Args:
        sessions: one for each runtime.
        source: the network.
        request: how thoroughly.
        command: that does this again.
        bisect: whether to find the node at fault where they disagree.
        quiet: show no progress.
    """
    from rnnx.cli.source import open_reference
    from rnnx.model.onnx_file import read_model
    from rnnx.parity.check import check_parity
    from rnnx.tolerance import quantisation_of
    from rnnx_export.module.subject import one_thread
    from rnnx_export.proof.float64_file import hold_file
    from rnnx_export.proof.float64_reference import open_reference64

    network = source.open()
    contract = sessions[0].contract
    reference = open_reference(network, contract)
    operators = read_model(sessions[0].path or b"").operators
    request = dataclasses.replace(request, quantisation=quantisation_of(operators))
    reference64 = open_reference64(reference, request.rows(contract), request.sizes)
    # PyTorch's threads cost more than they give for single steps, and far more where a core is taken.
    with one_thread(), progress("comparing", request.steps, quiet=quiet) as bar:
        found = check_parity(
            sessions,
            reference,
            request,
            reference64=reference64,
            command=command,
            digests=source.digests(),
            advanced=bar.update,
        )
    found = hold_file(found, sessions[0].path or b"", reference, reference64, request)
    if bisect and not found.agrees and not found.interrupted:
        found = dataclasses.replace(found, finding=_locate(sessions, network, request, found))
    return found


def _locate(sessions: list[Session], network: Network, request: Request, found: Parity) -> Any:
    from rnnx_export.proof.localise import Localiser

    runtime = next(runtime for runtime in found.runtimes if not runtime.agrees)
    session = next(session for session in sessions if session.provider == runtime.provider)
    localiser = Localiser(network.module, network.arguments, session.contract)
    return localiser.locate(session, request, runtime.failure)
