"""Names of the contract as C writes them: valid, distinct, and no keyword of C or C++."""

from __future__ import annotations

from collections.abc import Iterable

from rnnx_native.program import c_name

_KEYWORDS = frozenset(
    [
        "alignas",
        "alignof",
        "and",
        "and_eq",
        "asm",
        "auto",
        "bitand",
        "bitor",
        "bool",
        "break",
        "case",
        "catch",
        "char",
        "char8_t",
        "char16_t",
        "char32_t",
        "class",
        "compl",
        "concept",
        "const",
        "consteval",
        "constexpr",
        "constinit",
        "const_cast",
        "continue",
        "co_await",
        "co_return",
        "co_yield",
        "decltype",
        "default",
        "delete",
        "do",
        "double",
        "dynamic_cast",
        "else",
        "enum",
        "explicit",
        "export",
        "extern",
        "false",
        "float",
        "for",
        "friend",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "mutable",
        "namespace",
        "new",
        "noexcept",
        "not",
        "not_eq",
        "nullptr",
        "operator",
        "or",
        "or_eq",
        "private",
        "protected",
        "public",
        "register",
        "reinterpret_cast",
        "requires",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "static_assert",
        "static_cast",
        "struct",
        "switch",
        "template",
        "this",
        "thread_local",
        "throw",
        "true",
        "try",
        "typedef",
        "typeid",
        "typename",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "wchar_t",
        "while",
        "xor",
        "xor_eq",
        "_Bool",
        "_Complex",
        "_Imaginary",
        "main",
        "errno",
        "stdin",
        "stdout",
        "stderr",
        "assert",
        "NULL",
        "NAN",
        "INFINITY",
        "EOF",
        "linux",
        "unix",
    ]
)


def distinct(texts: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return a C name for each text: itself where it is one, else as near as can be; no two alike.

    Args:
        texts: names as the model has them.
        taken: C names that are used already.
    """
    used, counts = set(taken), dict[str, int]()
    found = []
    for text in texts:
        base = c_name(text)
        base = unique = f"{base}_" if base in _KEYWORDS else base
        while unique in used:
            counts[base] = counts.get(base, 1) + 1
            unique = f"{base}_{counts[base]}"
        used.add(unique)
        found.append(unique)
    return found
