"""What a C compiler sees of a file, without remarks."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""(?P<remark>/\*.*?\*/|//[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)+')"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<number>[0-9.](?:[eEpP][+-]|[\w.])*)|(?P<space>\s+)|(?P<sign>.)""",
    re.DOTALL | re.ASCII,
)
_TRIGRAPHS = dict(zip("=(/)'<!>-", "#[\\]^{|}~", strict=True))


def tokens(text: str) -> list[tuple[str, str]]:
    """Return what a C compiler sees outside remarks: (kind, text), neighbouring strings as one.

    In the order of the standard: trigraphs, spliced lines, then remarks and strings.
    """
    text = re.sub(r"\?\?([=(/)'<!>-])", lambda match: _TRIGRAPHS[match[1]], text)
    text = text.replace("\\\n", "")
    found: list[tuple[str, str]] = []
    place = 0
    for match in _TOKEN.finditer(text):
        assert match.start() == place, "nothing is skipped"
        place = match.end()
        kind = match.lastgroup or ""
        if kind in ("remark", "space"):
            continue
        if kind == "sign":
            assert match[0].isascii(), f"{match[0]!r} in code"
            assert match[0] not in "`$@\\", f"{match[0]!r} in code"
        if kind == "string" and found and found[-1][0] == "string":
            continue
        # Strings and numbers hold names, sizes of names and digests.
        found.append((kind, "" if kind in ("string", "number") else match[0]))
    assert place == len(text)
    return found
