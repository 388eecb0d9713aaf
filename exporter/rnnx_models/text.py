"""Text to learn from: read from files and folders, given a vocabulary, split in training and held-out."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rnnx.errors import FileError, UsageError
from rnnx.files import read_bytes
from rnnx.text.vocabulary import IdArray, code_points, encode

SUFFIXES = frozenset(
    {".adoc", ".c", ".cc", ".cpp", ".cs", ".css", ".csv", ".go", ".h", ".hpp", ".html", ".java", ".js"}
    | {".json", ".kt", ".log", ".lua", ".md", ".org", ".php", ".pl", ".py", ".pyi", ".r", ".rb", ".rs"}
    | {".rst", ".scala", ".sh", ".sql", ".svg", ".swift", ".tex", ".text", ".toml", ".ts", ".tsv", ".txt"}
    | {".xml", ".yaml", ".yml"}
)
# Installed packages lie inside the standard library's folder: nobody who names that folder means them.
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
MOST_SYMBOLS = 50_000  # the order-3 count model packs four ids into 63 bits
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Corpus:
    """A text, ready to learn from.

    Attributes:
        symbols: the vocabulary in code point order; an id is an index into it.
        training: int64 [characters], ids of the text to learn from.
        held_out: int64 [characters], ids of the text to be judged by, none of it in `training`.
        files: how many files were read.
        held_out_files: how many of them are held out; 0 if the end of the text is held out instead.
        replaced: how many characters were too rare for the vocabulary and stand as U+FFFD.
    """

    symbols: tuple[str, ...]
    training: IdArray
    held_out: IdArray
    files: int
    held_out_files: int
    replaced: int

    def digest(self) -> str:
        """Return the SHA-256 of text, vocabulary and split, to tell whether two runs learn from the same."""
        state = hashlib.sha256(repr((self.symbols, len(self.training))).encode())
        state.update(self.training.tobytes())
        state.update(self.held_out.tobytes())
        return state.hexdigest()


def read_corpus(
    paths: Sequence[Path],
    *,
    held_out: float = 0.05,
    vocabulary_size: int = 256,
    exclude: Sequence[str] = (),
) -> Corpus:
    """Read a text from files and folders.

    Whole files are held out, spread over the sorted list, until they are about the share asked for. Where
    there are too few files for that, the end of the text is held out. The same files give the same split.

    Args:
        paths: files and folders, as `find_files` takes them.
        held_out: share of the characters to hold out, above 0 and at most 0.5.
        vocabulary_size: most symbols the vocabulary may have, see `choose_symbols`.
        exclude: patterns of what to leave out, see `find_files`.

    Raises:
        UsageError: `held-out-invalid`, `vocabulary-size-invalid` or `text-too-short`.
        FileError: `text-missing`, `no-text`, `text-not-utf8`, or `cannot-read`.
    """
    if not 0 < held_out <= 0.5:
        raise UsageError(
            "held-out-invalid",
            expected="a held-out share above 0 and at most 0.5",
            found=repr(held_out),
            fix="try 0.05",
        )
    files = find_files(paths, exclude=exclude)
    texts = [read_text(file) for file in files]
    whole = "".join(texts)
    if len(whole) < 4:
        raise too_short(4, len(whole))
    symbols = choose_symbols(whole, vocabulary_size)
    ids, replaced = _encode_rare(symbols, whole)
    chosen = _hold_out([len(text) for text in texts], held_out)
    if not any(chosen):
        boundary = len(ids) - max(2, round(len(ids) * held_out))
        return Corpus(symbols, ids[:boundary], ids[boundary:], len(files), 0, replaced)
    mask = np.repeat(chosen, [len(text) for text in texts])
    return Corpus(symbols, ids[~mask], ids[mask], len(files), sum(chosen), replaced)


def find_files(paths: Iterable[Path], *, exclude: Sequence[str] = ()) -> list[Path]:
    """Return the text files that `paths` name, sorted within each folder, none twice.

    A file is taken whatever it is called. A folder is searched through, links to folders not followed, for
    names that end as text does (`SUFFIXES`); hidden names and `SKIPPED_FOLDERS` are left out.

    Args:
        paths: files and folders.
        exclude: patterns with * and ?; what matches one by name or by path inside its folder is left out.

    Raises:
        FileError: `text-missing` for a path that is not there, `no-text` if nothing is found.
    """
    found: dict[Path, None] = {}
    paths = list(paths)
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(_search(path, path, exclude)))
        elif path.exists():
            found[path] = None
        else:
            raise FileError(
                "text-missing",
                expected=f"a text file or folder at {path}",
                found="nothing there",
                fix="check the path",
            )
    if not found:
        raise FileError(
            "no-text",
            expected=f"text files ({', '.join(sorted(SUFFIXES)[:4])}, .py, .txt, ...) in {_list(paths)}",
            found="none",
            fix="name a folder with text, or the files themselves, which may be called anything",
        )
    return list(found)


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; a byte order mark is dropped and lines end in a line feed.

    Raises:
        FileError: `text-not-utf8` with the offset of the first undecodable byte, or `cannot-read`.
    """
    data = read_bytes(path, what="a text file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(
            "text-not-utf8",
            expected=f"UTF-8 text in {path}",
            found=f"byte 0x{data[error.start]:02x} at offset {error.start}, which is not ({error.reason})",
            fix="convert the file to UTF-8, or leave it out with --exclude",
        ) from error
    # Line ends and marks differ between machines; the model should not.
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def choose_symbols(text: str, vocabulary_size: int) -> tuple[str, ...]:
    """Return the vocabulary of `text`: its code points in order, at most `vocabulary_size`.

    If there are more, the most frequent stay (the lower code point first, where two are equal) and one
    place goes to U+FFFD, which stands for all others. They are replaced, not dropped, because dropping
    would join neighbours that never stood side by side, and because nats per character then stay
    comparable: the number of characters is the same.

    Raises:
        UsageError: `vocabulary-size-invalid`.
    """
    if not 2 <= vocabulary_size <= MOST_SYMBOLS:
        raise UsageError(
            "vocabulary-size-invalid",
            expected=f"a vocabulary of 2 to {MOST_SYMBOLS} symbols",
            found=str(vocabulary_size),
            fix="try 128",
        )
    points, counts = np.unique(code_points(text), return_counts=True)
    if len(points) > vocabulary_size:
        order = np.lexsort((points, -counts))
        kept = points[order][points[order] != ord(REPLACEMENT)][: vocabulary_size - 1]
        points = np.sort(np.append(kept, np.uint32(ord(REPLACEMENT))))
    return tuple(map(chr, points.tolist()))


def too_short(needed: int, found: int) -> UsageError:
    """Return the error for a text of `found` characters where `needed` are the least."""
    return UsageError(
        "text-too-short",
        expected=f"a text of at least {needed} characters to learn from",
        found=f"{found}",
        fix="give more text, or lower --sequence-length or --batch-size",
    )


def _search(folder: Path, top: Path, exclude: Sequence[str]) -> Iterable[Path]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        inside = entry.relative_to(top).as_posix()
        excluded = any(
            fnmatch.fnmatchcase(name, pattern) for pattern in exclude for name in (inside, entry.name)
        )
        if excluded or entry.name.startswith("."):
            continue
        if entry.is_dir():
            if not entry.is_symlink() and entry.name not in SKIPPED_FOLDERS:
                yield from _search(entry, top, exclude)
        elif entry.is_file() and entry.suffix.lower() in SUFFIXES:
            yield entry


def _encode_rare(symbols: tuple[str, ...], text: str) -> tuple[IdArray, int]:
    known = code_points("".join(symbols))  # ascending
    points = code_points(text)
    rare = ~np.isin(points, known)
    if not rare.any():
        return encode(symbols, text), 0
    ids = np.searchsorted(known, np.where(rare, np.uint32(ord(REPLACEMENT)), points))
    return ids.astype(np.int64), int(rare.sum())


def _hold_out(lengths: Sequence[int], share: float) -> list[bool]:
    """Return which files to hold out: each that keeps the share held out so far near `share`."""
    chosen = []
    seen = held = 0
    for length in lengths:
        seen += length
        take = length > 0 and held + length / 2 <= share * seen
        held += length * take
        chosen.append(take)
    return chosen


def _list(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths)) or "no path at all"
