"""What each host does to a prompt's characters before it looks up tokens."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable

_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_LIGATURES = {**{c: unicodedata.normalize("NFKC", c) for c in "ĲĳǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬆ"}, "ŉ": "ʼn", "ﬅ": "ſt"}
_WIDE = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)} | {"\u3000": " "}
_DROPPED = [*range(9), 11, *range(14, 32), 127, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)]
_STRAIGHT = {**dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'"), **dict.fromkeys("\u201c\u201d\u201e\u201f", '"')}
_BREAKS = dict.fromkeys("\r\u2028\u2029\u0085", "\n")
_TIDY = (
    str.maketrans(_LIGATURES),
    str.maketrans(_WIDE),
    str.maketrans(_STRAIGHT),
    str.maketrans(_BREAKS),
    {code: None for code in _DROPPED},
)
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_COLOUR = re.compile("\033\\[[\\d;]*[a-zA-Z]")

Spell = Callable[[str], str]


def spelled_comfyui(text: str) -> str:
    """transformers' CLIPTokenizer without ftfy: no control characters, spaces around Chinese ones, NFC, lower case."""
    kept = "".join(_spaced(char) for char in text)
    return " ".join(unicodedata.normalize("NFC", kept).split()).lower()


def _spaced(char: str) -> str:
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs":
        return " "
    if category.startswith("C") or char == "\ufffd":
        return ""
    return f" {char} " if any(low <= ord(char) <= high for low, high in _CJK) else char


def spelled_a1111(text: str) -> str:
    """As transformers' CLIPTokenizer with ftfy, which A1111 brings along; wrong encodings are not repaired here.

    Straight quotes, no ligatures, no wide letters, HTML entities by their characters (until a "<" is met), NFC.
    """
    found, entities = [], True
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        entities = entities and "<" not in line
        found.append(_tidied(line, entities))
    return " ".join("".join(found).split()).lower()


def spelled_openclip(text: str) -> str:
    """As OpenCLIP's own tokenizer, which A1111 uses for SD2 and SDXL's second encoder: HTML entities go twice more."""
    return " ".join(html.unescape(html.unescape(spelled_a1111(text))).split()).lower()


def _tidied(line: str, entities: bool) -> str:
    before = ""
    while line != before:
        before = line
        if entities:
            line = _ENTITY.sub(_unescaped, line)
        line = line.replace("\r\n", "\n")
        line = _COLOUR.sub("", line)
        for table in _TIDY:
            line = line.translate(table)
        line = unicodedata.normalize("NFC", line)
    return line


def _unescaped(match: re.Match[str]) -> str:
    found = html.unescape(match[0])
    return match[0] if ";" in found else found
