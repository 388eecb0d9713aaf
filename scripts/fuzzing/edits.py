"""Values that programs stumble over, and edits of JSON: what the edits of all formats share."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from support.foreign_names import PIECES

INTEGERS = [
    0,
    1,
    -1,
    2,
    3,
    4,
    7,
    16,
    127,
    128,
    255,
    65536,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, 1e308, float("inf"), float("-inf"), float("nan")]
# Out of a comment, or a string, this leaves two names side by side; `in_source` and identifiers never do.
ESCAPED = ("ZQA", "ZQB")
TEXTS = [
    "",
    " ",
    "batch",
    "time",
    "2*time",
    "0*time",
    "-1*time",
    "a" * 300,
    "0",
    "../x",
    "/dev/zero",
    "\ud800",
]
HOSTILE = [f"{piece} {' '.join(ESCAPED)} " for piece in PIECES]


def integer(rng: random.Random) -> int:
    """Return a whole number of 64 bits."""
    return rng.choice(INTEGERS) if rng.random() < 0.8 else rng.randint(-9, 99)


def text(rng: random.Random) -> str:
    """Return a text; without surrogates, which no file format here can hold as UTF-8, it may be any."""
    return rng.choice(HOSTILE if rng.random() < 0.4 else TEXTS).replace("\ud800", "?")


def value(rng: random.Random) -> Any:
    """Return any JSON value."""
    nested: Any = 0.5
    for _ in range(rng.choice((1, 3, 200))):
        nested = [nested]
    choices = [
        None,
        True,
        False,
        {},
        [],
        [0.5],
        {"a": 1},
        nested,
        10**30,
        -1,
        "nan",
        "inf",
        integer(rng),
        text(rng),
    ]
    return rng.choice([*choices, rng.choice(FLOATS)])


def edit_json(content: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON value in which one to three things are different."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = [(content, key) for key in _keys(content)]
        for holder, key in places:
            places += [(holder[key], inner) for inner in _keys(holder[key])]
            if len(places) > 2000:
                break
        if not places:
            return value(rng)
        _edit_at(*rng.choice(places), places, rng)
    return content


def edit_json_text(content: Any, rng: random.Random) -> str:
    """Return JSON that says something else than `content`, or is none."""
    try:
        written = json.dumps(edit_json(content, rng), ensure_ascii=rng.random() < 0.5)
    except RecursionError:
        written = "[" * 5000
    if rng.random() < 0.1:
        place = rng.randrange(len(written) + 1)
        written = written[:place] + rng.choice(["", '"', "[" * 3000, "1e999", "\\ud800", ",", text(rng)])
    return written


def edit_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some are different, missing, doubled or new."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place, length = rng.randrange(len(changed) + 1), rng.choice((1, 1, 2, 4, 8, 40))
        way = rng.randrange(5)
        if way == 0 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif way == 1:
            del changed[place : place + length]
        elif way == 2:
            changed[place:place] = rng.randbytes(length)
        elif way == 3:
            changed[place:place] = changed[place : place + length]
        elif rng.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def _keys(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return list(holder)
    return list(range(len(holder))) if isinstance(holder, list) else []


def _edit_at(holder: Any, key: Any, places: list[tuple[Any, Any]], rng: random.Random) -> None:
    if (isinstance(holder, list) and not key < len(holder)) or (
        isinstance(holder, dict) and key not in holder
    ):
        return  # an earlier edit took it away
    way = rng.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif way == 2:
        other, place = rng.choice(places)
        if (isinstance(other, dict) and place in other) or (isinstance(other, list) and place < len(other)):
            holder[key] = copy.deepcopy(other[place])
    elif way == 3 and isinstance(holder, dict):
        holder[text(rng)] = holder.pop(key)
    elif isinstance(holder[key], str) and rng.random() < 0.7:
        holder[key] = text(rng)
    elif isinstance(holder[key], int) and rng.random() < 0.7:
        holder[key] = integer(rng)
    else:
        holder[key] = value(rng)
