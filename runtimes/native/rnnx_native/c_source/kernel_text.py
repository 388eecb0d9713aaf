"""The C text of the kernels that a program calls, and of all that these call, each once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "kernels"
PORTABLE = ("half.c", "byte.c", "activations.c", "dense.c", "rnn.c", "gru.c", "lstm.c")
# On one line, or up to the first brace at the start of one.
_FUNCTION = re.compile(
    r"^static [^;{\n]*?\b(rnnx_\w+)\([^\n]*\}$|^static [^;{]*?\b(rnnx_\w+)\([^;{]*\)\s*\{.*?^\}$", re.M | re.S
)
_CALL = re.compile(r"\brnnx_\w+")


def functions(files: Iterable[str] = PORTABLE) -> dict[str, str]:
    """Return the text of each function by name, remarks before it included, in the order of the files."""
    found: dict[str, str] = {}
    for name in files:
        for text in _typed((FOLDER / name).read_text()):
            found |= split(text)
    return found


def split(text: str) -> dict[str, str]:
    """Return the functions of a text by name, each with the remark before it."""
    found, end = {}, 0
    for match in _FUNCTION.finditer(text):
        remark = text[end : match.start()].strip("\n")
        end = match.end()
        found[match[1] or match[2]] = f"{remark}\n{match[0]}" if remark else match[0]
    return found


def needed(names: Iterable[str], known: dict[str, str]) -> list[str]:
    """Return the texts of these functions and of what they call, callees first."""
    wanted, queue = set(), list(names)
    while queue:
        name = queue.pop()
        if name in known and name not in wanted:
            wanted.add(name)
            queue += _CALL.findall(known[name])
    return [text for name, text in known.items() if name in wanted]


def calls(lines: Iterable[str]) -> set[str]:
    """Return the kernels that lines of C name."""
    return {name for line in lines for name in _CALL.findall(line)}


def _typed(text: str) -> list[str]:
    """Return a file's parts; those between the marks for float and again for double."""
    parts: list[str] = []
    remark = ""
    for index, part in enumerate(re.split(r"/\* per type \*/\n|/\* end \*/\n?", text)):
        # A remark on the whole file stands before its first function.
        if index % 2 == 0 and not _FUNCTION.search(part):
            remark = part
            continue
        parts.append(remark + part)
        remark = ""
        if index % 2:
            parts += [_doubled(part), _halved(part), _in_bytes(part)]
    return parts


def _halved(text: str) -> str:
    """Return the kernels that read weights, with weights in half floats; all else stays float."""
    found = split(re.sub(r"^ */\*.*?\*/\n", "", text, flags=re.S | re.M))
    kept = []
    for name, body in found.items():
        if re.search(r"\*(wx|wh|tile)\b", body):
            body = re.sub(r"const float \*(wx|wh|tile)\b", r"const uint16_t *\1", body)
            body = body.replace("const float *const block", "const uint16_t *const block")
            body = body.replace("const float *const column", "const uint16_t *const column")
            body = body.replace("column[j]", "rnnx_from_half(column[j])").replace(
                "accumulate_f32", "accumulate_h16"
            )
            kept.append(body.replace(f"{name}(", f"{name.replace('_f32', '_h16')}("))
    return "\n\n".join(kept)


def _in_bytes(text: str) -> str:
    """Return the kernels that read weights, with weights and inputs of 8 bits (byte.c); states stay float."""
    found = split(re.sub(r"^ */\*.*?\*/\n", "", text, flags=re.S | re.M))
    kept = []
    for name, body in found.items():
        if name == "rnnx_accumulate_f32" or not re.search(r"\*(wx|wh|tile)\b", body):
            continue
        body = re.sub(r"const float \*(wx|wh|tile)\b", r"const int8_t *\1", body)
        body = re.sub(r"const float \*x\b", "const uint8_t *x", body)
        body = body.replace("const float *const block", "const int8_t *const block")
        body = body.replace("accumulate_f32", "accumulate_i8")
        if "*wh" in body:
            # The product takes the hidden state in bytes, hq; its rows and blocks are nh bytes a lane.
            body = body.replace("wh + (size_t)b * (size_t)units", "wh + (size_t)b * (size_t)nh")
            hidden = r"\bh \+ \(size_t\)r \* \(size_t\)units,\s*\(size_t\)units,\s*units,"
            body = re.sub(hidden, "hq + (size_t)r * (size_t)nh, (size_t)nh, nh,", body)
            unused = "" if re.search(r"\bh \+ ", body) else "\n  (void)h;"
            body = re.sub(
                r"int back\) \{", rf"int back, const uint8_t *hq, int nh) {{{unused}", body, count=1
            )
        kept.append(body.replace(f"{name}(", f"{name.replace('_f32', '_i8')}("))
    return "\n\n".join(kept)


def _doubled(text: str) -> str:
    text = re.sub(r"^ */\*.*?\*/\n", "", text, flags=re.S | re.M)
    text = re.sub(r"\bfloat\b", "double", text).replace("_f32", "_f64")
    return re.sub(r"(\d\.\d+)f\b", r"\1", text)
