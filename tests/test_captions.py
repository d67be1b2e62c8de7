"""Reading captions in every encoding, and varying them as pure functions of a key."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.captions import (
    CaptionRules,
    decode_text,
    fixed_caption,
    is_fixed,
    json_caption,
    read_caption,
    read_table,
    varied_caption,
)
from lora_core.draws import Draws
from lora_core.errors import FileError

JAPANESE = ("青髪, 笑顔, ひとり", "青髪, 眼鏡, 赤い服", "カタカナ", "黒髪, 制服")
WESTERN = ("café, naïve, crêpe", "größe, Müßiggang, Öl", "it’s a “quoted” word – façade", "señor, élan, 1girl")


@pytest.mark.parametrize("text", ["plain ascii", *JAPANESE, *WESTERN, "中文, 女孩", "emoji 🦊"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_encodings(text, encoding):
    assert decode_text(text.encode(encoding))[0] == text


@pytest.mark.parametrize("text", ["plain ascii, tags", "café, größe, tag"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark(text, encoding):
    assert decode_text(text.encode(encoding)) == (text, encoding)


@pytest.mark.parametrize("text", JAPANESE)
def test_cp932(text):
    assert decode_text(text.encode("cp932")) == (text, "cp932")


@pytest.mark.parametrize("text", WESTERN)
def test_western_windows_text_is_not_taken_for_japanese(text):
    assert decode_text(text.encode("cp1252")) == (text, "cp1252")


def test_latin_1_takes_what_nothing_else_takes():
    assert decode_text(b"caf\xe9 \x81 x") == ("café \x81 x", "latin-1")


@given(st.binary(max_size=200))
def test_any_bytes_decode(data):
    assert isinstance(decode_text(data)[0], str)


@pytest.mark.parametrize(
    "value, caption",
    [
        ("a cat", "a cat"),
        (["1girl", " solo "], "1girl, solo"),
        ({"caption": "a cat"}, "a cat"),
        ({"text": "a cat"}, "a cat"),
        ({"tags": ["cat", "sofa"]}, "cat, sofa"),
        ({"caption": "a cat", "tags": "cat, sofa"}, "a cat, cat, sofa"),
        ({"caption": None, "prompt": "x"}, "x"),
        ({"width": 5}, ""),
        (7, ""),
    ],
)
def test_json_forms(value, caption):
    assert json_caption(value) == caption


@pytest.mark.parametrize(
    "text, caption",
    [
        ("one, two\n", "one, two"),
        ("one\r\ntwo\r\n\r\nthree", "one, two, three"),
        ("one,\ntwo", "one, two"),
        ("A cat sits.\nIt is red.", "A cat sits. It is red."),
        ("\n\n", ""),
    ],
)
def test_several_lines_become_one(text, caption):
    assert read_caption(text.encode(), ".txt") == caption


def test_faults_of_caption_files_are_told():
    with pytest.raises(FileError, match="not valid JSON"):
        read_caption(b"{oops", ".json")
    with pytest.raises(FileError, match="too large"):
        read_caption(b"a" * (2 << 20), ".txt")
    with pytest.raises(FileError, match="line 2"):
        read_table(b'{"file_name": "a.png", "text": "x"}\nnonsense')


def test_table_names_use_slashes():
    table = read_table(b'{"file_name": "in\\\\a.png", "text": "x"}\n\n{"file_name": "./b.png", "tags": ["y", "z"]}')
    assert table == {"in/a.png": "x", "b.png": "y, z"}


@pytest.mark.parametrize(
    "caption, rules, expected",
    [
        ("1boy, solo", {"trigger": "armin"}, "armin, 1boy, solo"),
        ("1boy, Armin", {"trigger": "armin"}, "1boy, Armin"),
        ("charming", {"trigger": "armin"}, "armin, charming"),
        ("", {"trigger": "armin"}, "armin"),
        ("1boy", {"trigger": "armin", "prefix": "armin,"}, "armin, 1boy"),
        ("1boy", {"prefix": "best quality,", "suffix": "on white"}, "best quality, 1boy on white"),
        ("a; b", {"trigger": "t", "separator": ";"}, "t; a; b"),
        ("", {}, ""),
    ],
)
def test_fixed_captions(caption, rules, expected):
    assert fixed_caption(caption, CaptionRules(**rules)) == expected


LETTERS = ", ".join("abcdefghij")


def draw(rules: CaptionRules, n: int, caption: str = LETTERS) -> list[str]:
    return [varied_caption(caption, rules, Draws(0, "caption", 0, 0, i)) for i in range(n)]


def test_shuffle_keeps_the_first_tags_and_loses_none():
    drawn = draw(CaptionRules(shuffle=True, keep_tokens=2), 50)
    assert all(text.startswith("a, b, ") and sorted(text.split(", ")) == LETTERS.split(", ") for text in drawn)
    assert len(set(drawn)) > 40
    assert drawn == draw(CaptionRules(shuffle=True, keep_tokens=2), 50)


def test_every_order_is_as_likely():
    counts = Counter(draw(CaptionRules(shuffle=True), 6000, "a, b, c"))
    assert len(counts) == 6 and all(abs(n - 1000) < 150 for n in counts.values())


def test_dropout_rates():
    dropped = sum(text == "" for text in draw(CaptionRules(caption_dropout=0.2), 3000))
    assert abs(dropped / 3000 - 0.2) < 0.04
    left = [len(text.split(", ")) for text in draw(CaptionRules(tag_dropout=0.3, keep_tokens=2), 3000)]
    assert min(left) >= 2 and abs(sum(left) / 3000 - (2 + 8 * 0.7)) < 0.1


def test_the_trigger_is_never_dropped():
    rules = CaptionRules(trigger="armin", tag_dropout=1.0, shuffle=True)
    assert set(draw(rules, 20, "1boy, armin, hat")) == {"armin"}


@pytest.mark.parametrize(
    "caption, rules",
    [
        ("a, b", CaptionRules()),
        ("a", CaptionRules(shuffle=True, tag_dropout=0.5, keep_tokens=1)),
        ("a, b", CaptionRules(shuffle=True, keep_tokens=1)),
        ("a, b", CaptionRules(shuffle=True)),
        ("t", CaptionRules(trigger="t", tag_dropout=0.5)),
        ("a", CaptionRules(trigger="t", shuffle=True, keep_tokens=1)),
        ("a, b, c", CaptionRules(tag_dropout=0.5, keep_tokens=2)),
        ("a", CaptionRules(caption_dropout=0.5)),
    ],
)
def test_is_fixed_says_whether_uses_differ(caption, rules):
    assert is_fixed(caption, rules) == (len(set(draw(rules, 64, caption))) == 1)
