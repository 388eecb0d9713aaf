"""The templates: C files with placeholders, which the writers fill."""

from __future__ import annotations

import re
from pathlib import Path

from rnnx.foreign_text import in_source
from rnnx_native.c_source.kernels import FOLDER
from rnnx_native.lowering.compiled_model import Unit

_TEMPLATES = Path(__file__).parents[1] / "templates"
# A placeholder that has its line to itself, any other, and what stands for the model's own name.
_PLACEHOLDER = re.compile(
    r"^@(?P<line>\w+)@\n|@(?P<placeholder>\w+)@|\bmodel(?=_[a-z]|\.[ch]\b)|\bMODEL_", re.MULTILINE
)


def fill(template: str, unit: Unit, source: str, **placeholders: object) -> str:
    """Return a template with the model's name for `model_`, and its placeholders filled, all in one pass.

    A line that is one empty placeholder disappears.

    Args:
        template: name of the file.
        unit: the model.
        source: what the model file is called.
        placeholders: code that was made here, texts or lists of lines. Texts out of the model are in it as
            `in_source` and `c_literal` give them.
    """
    text = (_TEMPLATES / template).read_text()
    values = {
        name: "".join(f"{line}\n" for line in value) if isinstance(value, list) else str(value)
        for name, value in placeholders.items()
    }
    values |= {
        "name": unit.name,
        "title": in_source(unit.signature.contract.name) or unit.name,
        "id": in_source(unit.id),
        "source": in_source(source),
        "precise": (FOLDER / "precise.h").read_text(),
    }

    def put(match: re.Match[str]) -> str:
        if match["line"]:
            value = values[match["line"]]
            return value if not value or value.endswith("\n") else f"{value}\n"
        if match["placeholder"]:
            return values[match["placeholder"]].removesuffix("\n")
        return f"{unit.name.upper()}_" if match[0] == "MODEL_" else unit.name

    return _PLACEHOLDER.sub(put, text)
