"""Texts out of a model file on their way into source code, pages, JSON and terminals.

Whoever wrote the file chose them. Each writer passes every such text through one of these functions, so that
a name stays a name wherever it lands.
"""

from __future__ import annotations

import html
import unicodedata

_SIGNS = frozenset(" ._-:,=+()[]")
_LONGEST = 120  # a name of a megabyte is no remark


def in_source(text: str) -> str:
    """Return `text` for a comment or a string in C, CMake, Go, Java, JavaScript, Markdown or Rust.

    Letters that are written from left to right, digits and a few signs stay; all else becomes `_`: line ends,
    quotes, `\\`, `/`, `*`, `?`, `@`, `$`, `%`, `#`, `<`, `{` and whatever cannot be seen. Long texts are cut.
    """
    found = "".join(letter if _is_plain(letter) else "_" for letter in text[: _LONGEST + 1])
    return found if len(found) <= _LONGEST else f"{found[: _LONGEST - 3]}..."


def _is_plain(letter: str) -> bool:
    if letter.isascii():
        return letter.isalnum() or letter in _SIGNS
    # Neither marks that join the letter before nor scripts that turn the line around.
    return unicodedata.category(letter)[0] in "LN" and unicodedata.bidirectional(letter) == "L"


def in_terminal(text: str) -> str:
    """Return `text`, all but line ends that cannot be seen escaped: a terminal would obey it."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )


def in_html(text: str) -> str:
    """Return `text` for an element or a quoted attribute of an HTML page, what cannot be seen escaped."""
    return html.escape(in_terminal(text))


def in_json(text: str) -> str:
    """Return a JSON document, in whose strings what cannot be seen is escaped; it says the same."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\r\t" else _escaped(letter) for letter in text
    )


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))
