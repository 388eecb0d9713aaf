"""Names of a model as C writes them: made of its letters and digits, distinct, and none that C has."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 60  # characters; C99 tells apart names by their first 63
# Types of the headers that are included: C++ takes no member of a type's own name.
_TYPES = frozenset(
    [
        f"{sign}int{kind}{bits}_t"
        for sign in ("", "u")
        for kind in ("", "_least", "_fast")
        for bits in (8, 16, 32, 64)
    ]
    + ["intmax_t", "uintmax_t", "intptr_t", "uintptr_t", "size_t", "ssize_t", "ptrdiff_t", "max_align_t"]
    + ["nullptr_t", "va_list", "div_t", "ldiv_t", "lldiv_t", "float_t", "double_t", "off_t", "fpos_t"]
)
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
        "stdin",
        "stdout",
        "stderr",
        "assert",
        "NULL",
        "NAN",
        "INFINITY",
        "EOF",
        "errno",
        # Macros of compilers and of headers that programs include.
        "arm",
        "complex",
        "far",
        "hpux",
        "huge",
        "I",
        "i386",
        "imaginary",
        "interface",
        "linux",
        "math_errhandling",
        "mips",
        "near",
        "noreturn",
        "pascal",
        "small",
        "sparc",
        "sun",
        "typeof",
        "unix",
        "vax",
    ]
)


def c_name(text: str) -> str:
    """Return `text` as a C identifier: ASCII letters, digits and `_`, of moderate length."""
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text).strip("_")
    while "__" in safe:
        safe = safe.replace("__", "_")
    safe = safe[:_LONGEST].rstrip("_")
    return safe if safe and not safe[0].isdigit() else f"v_{safe}".rstrip("_")


def identifier(text: str) -> str:
    """Return `text` as a C identifier that is no keyword, type or macro; macros are written in capitals."""
    name = c_name(text)
    capitals = len(name) > 1 and name.upper() == name and not name.isdigit()
    return f"{name}_" if name in _KEYWORDS or name in _TYPES or capitals else name


def distinct(texts: Iterable[str], reserved: Iterable[str] = ()) -> list[str]:
    """Return a C identifier for each text, as near to it as can be; no two alike.

    Args:
        texts: names as the model has them.
        reserved: C names that are used already.
    """
    used, counts = set(reserved), dict[str, int]()
    found = []
    for text in texts:
        base = unique = identifier(text)
        while unique in used:
            counts[base] = counts.get(base, 1) + 1
            unique = f"{base}_{counts[base]}"
        used.add(unique)
        found.append(unique)
    return found
