"""Every error a user of rnnx can meet, each with a stable code.

An error says what was expected, what was found, and how to fix it, in one line. The code is stable
across versions and languages; the class says what kind of thing went wrong.
"""

from __future__ import annotations


class RnnxError(Exception):
    """The base of all rnnx errors.

    Attributes:
        code: stable identifier in kebab-case, the same in every language.
        expected: what should have been there.
        found: what was there instead.
        fix: what the user can do about it.
        exit_code: what a command returns: 1 the model was refused or failed, 2 usage or environment.
    """

    exit_code = 2

    def __init__(self, code: str, *, expected: str, found: str, fix: str) -> None:
        self.code = code
        self.expected = expected
        self.found = found
        self.fix = fix
        super().__init__(f"expected {expected}; found {found}; fix: {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by parts, so that an error survives the trip between processes."""
        return _rebuild, (type(self), self.code, self.expected, self.found, self.fix)


def _rebuild(cls: type[RnnxError], code: str, expected: str, found: str, fix: str) -> RnnxError:
    return cls(code, expected=expected, found=found, fix=fix)


class ModelError(RnnxError):
    """The model file, or its contract, cannot be used."""


class InputError(RnnxError):
    """A value handed to a session, stream or pool does not fit the contract."""


class StreamError(RnnxError):
    """A stream or pool was used in a way it does not allow."""


class ProviderError(RnnxError):
    """The engine asked for is unknown or does not work on this machine."""


class FileError(RnnxError):
    """A file cannot be read or written."""


class UsageError(RnnxError):
    """A command or function was called with arguments that make no sense."""


class RefusedError(RnnxError):
    """A module cannot be exported; the reason names module, file and line."""

    exit_code = 1


class ParityError(RnnxError):
    """Two implementations of one network do not agree."""

    exit_code = 1


def first_line(error: Exception) -> str:
    """Return what an error says in its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error is what an interrupt turned into on its way.

    Ctrl-C while a package in C is imported leaves it as an ImportError, which only says so in its cause.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
