"""The frames: C files with slots, which the writers fill."""

from __future__ import annotations

import re
from pathlib import Path

from rnnx_native import kernel_text
from rnnx_native.unit import Unit

_FRAME = Path(__file__).parent / "frame"


def fill(frame: str, unit: Unit, source: str, **slots: object) -> str:
    """Return a frame with the model's name in place of `model_`, and its slots filled.

    A line that is one empty slot disappears.
    """
    text = (_FRAME / frame).read_text()
    text = re.sub(r"\bmodel(?=_[a-z]|\.[ch]\b)", unit.name, text)
    text = re.sub(r"\bMODEL_", f"{unit.name.upper()}_", text)
    slots |= {
        "name": unit.name,
        "title": unit.signature.contract.name or unit.name,
        "id": unit.id,
        "source": source,
    }
    for name, value in slots.items():
        if isinstance(value, list):
            body = "\n".join(value)
            text = text.replace(f"@{name}@\n", f"{body}\n" if value else "")
        text = text.replace(f"@{name}@", "\n".join(value) if isinstance(value, list) else str(value))
    return text


def with_json(text: str) -> str:
    """Put in the functions that read JSON, as far as they are used."""
    library = kernel_text.functions(["../frame/json.c"])
    return text.replace("@json@", "\n\n".join(kernel_text.needed(kernel_text.calls([text]), library)))
