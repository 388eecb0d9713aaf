"""One thread at a time: what streams and pools share against being used from two threads at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar, Concatenate, NoReturn, ParamSpec, TypeVar

from rnnx.errors import StreamError

Owner = TypeVar("Owner", bound="Guarded")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Guarded:
    """Something with states that one thread at a time may use, until it is closed.

    Its methods are `exclusive`; one that is called at each step does the same itself and saves the price.
    """

    _kind: ClassVar[str]  # what messages call it
    _turns: ClassVar[str]  # how several threads get along with it

    def __init__(self) -> None:
        # Taking the only entry out is one atomic bytecode, with no place before the following `try` where
        # an interrupt could leave it taken for ever; a lock's acquire() has one.
        self._gate = {"open": True}
        self._closed = False

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: a copy would share buffers with this one."""
        raise TypeError(
            f"expected a {self._kind} to stay where it is; found a copy or a pickle of one; "
            f"fix: take a snapshot, and restore it in another {self._kind} of the session"
        )

    def _unusable(self) -> StreamError:
        """Return the error for a gate that cannot be taken."""
        kind = self._kind
        if self._closed:
            return StreamError(
                "stream-closed",
                expected=f"a {kind} that is open",
                found="one that was closed",
                fix=f"open another {kind} of the session",
            )
        return StreamError(
            "stream-busy",
            expected=f"one thread at a time on a {kind}",
            found="a call while another is running",
            fix=self._turns,
        )


def exclusive(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """Keep every other call out while `method` runs. Raises StreamError `stream-busy` or `stream-closed`.

    No context manager: an interrupt while one is entered or left would keep the gate taken for as long as
    somebody looks at the exception, as a program does that takes a last snapshot then.
    """

    @functools.wraps(method)
    def alone(self: Owner, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        try:
            del self._gate["open"]
        except KeyError:
            raise self._unusable() from None
        try:
            return method(self, *arguments, **named)
        finally:
            if not self._closed:
                self._gate["open"] = True

    return alone
