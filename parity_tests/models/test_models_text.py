"""Text, vocabulary, split, and the count model, with everything that can be wrong with a text."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rnnx.errors import FileError, InputError, RnnxError, UsageError
from rnnx.text.vocabulary import decode, encode
from rnnx_models.batches import Batches
from rnnx_models.count_model import CountModel
from rnnx_models.text import choose_symbols, find_files, read_corpus, read_text


def code_of(caught: pytest.ExceptionInfo[RnnxError]) -> str:
    assert "expected" in str(caught.value)
    assert "fix:" in str(caught.value)
    return caught.value.code


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            "b.py": "b",
            "a/z.txt": "z",
            "a/picture.png": "no",
            "a/__pycache__/x.py": "no",
            "site-packages/y.py": "no",
            ".hidden/x.txt": "no",
            ".x.txt": "no",
            "c.MD": "c",
        },
    )
    found = [path.relative_to(tmp_path).as_posix() for path in find_files([tmp_path])]
    assert found == ["a/z.txt", "b.py", "c.MD"]
    assert find_files([tmp_path, tmp_path / "b.py"]) == find_files([tmp_path]), "none twice"
    assert find_files([tmp_path / "a" / "picture.png"]), "a file that is named may be called anything"


def test_patterns_leave_files_and_folders_out(tmp_path: Path) -> None:
    make(tmp_path, {"a.py": "a", "test/b.py": "b", "c/test_d.py": "d", "c/e.py": "e"})
    found = find_files([tmp_path], exclude=["test", "c/test_*"])
    assert [path.name for path in found] == ["a.py", "e.py"]


def test_text_is_the_same_on_every_machine(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\rthree\n".encode())
    assert read_text(path) == "one\ntwo\nthree\n"


def test_whole_files_are_held_out(tmp_path: Path) -> None:
    make(tmp_path, {f"{index:02}.txt": chr(ord("a") + index % 20) * 100 for index in range(40)})
    corpus = read_corpus([tmp_path], held_out=0.1)
    assert corpus.files == 40
    assert corpus.held_out_files == 4
    assert len(corpus.held_out) == 400
    assert len(corpus.training) + len(corpus.held_out) == 4000
    for piece in corpus.held_out.reshape(4, 100):
        assert (piece == piece[0]).all(), "files are held out whole"
    again = read_corpus([tmp_path], held_out=0.1)
    assert again.digest() == corpus.digest()
    assert read_corpus([tmp_path], held_out=0.2).digest() != corpus.digest()


def test_the_end_of_a_single_file_is_held_out(tmp_path: Path) -> None:
    make(tmp_path, {"a.txt": "abcdefghij" * 10})
    corpus = read_corpus([tmp_path], held_out=0.07)
    assert corpus.held_out_files == 0
    assert decode(corpus.symbols, corpus.held_out) == "defghij"
    assert len(corpus.training) == 93


def test_rare_characters_are_replaced_not_dropped(tmp_path: Path) -> None:
    text = "aaaa bbb é cc ü" * 3
    assert choose_symbols(text, 7) == (" ", "a", "b", "c", "é", "ü")
    assert choose_symbols(text, 5) == (" ", "a", "b", "c", "\ufffd")
    assert choose_symbols("éü" + "abc", 3) == ("a", "b", "\ufffd"), "the lower code point stays"
    make(tmp_path, {"a.txt": text})
    corpus = read_corpus([tmp_path], vocabulary_size=5)
    assert corpus.replaced == 6
    whole = decode(corpus.symbols, [*corpus.training, *corpus.held_out])
    assert whole == text.replace("é", "\ufffd").replace("ü", "\ufffd")


def test_text_and_ids_are_each_others_inverse() -> None:
    symbols = ["h", "é", "🐍", "\n"]
    ids = encode(symbols, "🐍h\né")
    assert ids.tolist() == [2, 0, 3, 1]
    assert ids.dtype == np.int64
    assert decode(symbols, ids) == "🐍h\né"
    assert encode(symbols, "").tolist() == []
    assert encode(symbols, "").dtype == np.int64


@pytest.mark.parametrize(("text", "shown"), [("héllo", "'é'"), ("h🐍", "'🐍'"), ("h\udcff", "U+DCFF")])
def test_a_character_outside_the_vocabulary_is_named_with_its_place(text: str, shown: str) -> None:
    with pytest.raises(InputError, match="at character 1 ") as caught:
        encode(["h", "l", "o"], text, what="prompt")
    assert code_of(caught) == "character-outside-vocabulary"
    assert shown in caught.value.found
    assert "prompt" in caught.value.expected
    caught.value.found.encode()  # can be printed, whatever the character


@pytest.mark.parametrize("ids", [[0, 3], [0, -1]])
def test_an_id_outside_the_vocabulary_is_named(ids: list[int]) -> None:
    with pytest.raises(InputError, match="at position 1") as caught:
        decode(["h", "l", "o"], ids)
    assert code_of(caught) == "id-outside-vocabulary"


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    make(tmp_path, {"picture.png": "no", "__pycache__/a.py": "no"})
    with pytest.raises(FileError, match="none") as caught:
        read_corpus([tmp_path])
    assert code_of(caught) == "no-text"


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nowhere") as caught:
        read_corpus([tmp_path / "nowhere"])
    assert code_of(caught) == "text-missing"


def test_undecodable_bytes_are_named_with_file_and_offset(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine " * 10)
    (tmp_path / "latin.txt").write_bytes("café au lait".encode("latin-1"))
    with pytest.raises(FileError, match=r"latin\.txt.*0xe9 at offset 3") as caught:
        read_corpus([tmp_path])
    assert code_of(caught) == "text-not-utf8"
    assert read_corpus([tmp_path], exclude=["latin.*"]).files == 1


@pytest.mark.parametrize("text", ["", "abc"])
def test_no_text_at_all_is_refused(tmp_path: Path, text: str) -> None:
    make(tmp_path, {"a.txt": text})
    with pytest.raises(UsageError) as caught:
        read_corpus([tmp_path])
    assert code_of(caught) == "text-too-short"


def test_text_shorter_than_one_sequence_is_refused() -> None:
    ids = np.zeros(24, np.int64)
    assert Batches(np.zeros(25, np.int64), 3, 8).per_pass == 1
    with pytest.raises(UsageError, match=r"at least 25 .* found 24") as caught:
        Batches(ids, 3, 8)
    assert code_of(caught) == "text-too-short"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"held_out": 0.0}, "held-out-invalid"),
        ({"held_out": 0.9}, "held-out-invalid"),
        ({"vocabulary_size": 1}, "vocabulary-size-invalid"),
        ({"vocabulary_size": 60_000}, "vocabulary-size-invalid"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, arguments: dict[str, float], code: str) -> None:
    make(tmp_path, {"a.txt": "some text to read"})
    with pytest.raises(UsageError) as caught:
        read_corpus([tmp_path], **arguments)
    assert code_of(caught) == code


def test_batches_go_on_where_the_last_stopped() -> None:
    ids = np.arange(21, dtype=np.int64)
    batches = Batches(ids, 2, 3)
    token, target = batches.at(0)
    assert token.tolist() == [[0, 1, 2], [10, 11, 12]]
    assert target.tolist() == [[1, 2, 3], [11, 12, 13]]
    assert batches.at(2)[0].tolist() == [[6, 7, 8], [16, 17, 18]]
    assert batches.per_pass == 3
    assert [batches.begins_anew(number) for number in range(5)] == [True, False, False, True, False]
    assert batches.at(3)[0].tolist() == token.tolist()


def test_witten_bell_by_hand() -> None:
    # "abab" over a, b, c. Empty context: N = 4, T = 2, so P(a) = P(b) = (2 + 2/3) / 6 = 4/9, P(c) = 1/9.
    # After a: N = 2 (b twice), T = 1: P(b|a) = (2 + 4/9) / 3 = 22/27, P(a|a) = (4/9) / 3 = 4/27.
    # After b: N = 1 (a once), T = 1: P(a|b) = (1 + 4/9) / 2 = 13/18, P(c|b) = (1/9) / 2 = 1/18.
    # After c, never seen: as after nothing.
    model = CountModel(np.array([0, 1, 0, 1]), 3, order=1)
    found = model.probabilities(np.array([0, 1, 0, 0, 1, 2, 1]))
    np.testing.assert_allclose(found, [4 / 9, 22 / 27, 13 / 18, 4 / 27, 22 / 27, 1 / 18, 4 / 9], rtol=1e-14)
    expected = -(math.log(4 / 9) + math.log(22 / 27)) / 2
    assert model.nats_per_character(np.array([0, 1])) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_count_model_is_a_distribution_in_every_context(order: int) -> None:
    generator = np.random.default_rng(0)
    model = CountModel(generator.integers(0, 4, 300), 5, order)
    context = generator.integers(0, 5, order)
    total = sum(model.probabilities(np.append(context, symbol))[-1] for symbol in range(5))
    assert total == pytest.approx(1, rel=1e-12)


def test_count_model_on_a_text_shorter_than_its_order() -> None:
    model = CountModel(np.array([0, 1]), 3, order=3)
    assert model.probabilities(np.array([0])).shape == (1,)


@pytest.mark.parametrize("order", [-1, 40])
def test_impossible_orders_are_refused(order: int) -> None:
    with pytest.raises(UsageError) as caught:
        CountModel(np.array([0, 1]), 3, order)
    assert code_of(caught) == "order-invalid"
