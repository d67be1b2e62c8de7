"""The parsers of both hosts' prompt languages against tables that the hosts' own parsers gave.

A1111's answers are the ones that were the same in four starts of the program: for some prompts with unbalanced
brackets its parser (lark 1.1.2) answers differently from start to start.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from recorded import DATA

from lora_core.errors import ConfigError
from lora_core.prompt_a1111 import Segment, alternatives, segments, without_comments
from lora_core.prompt_chunks import BACKTRACK, BOS, CHUNK, COMMA, EOS, Match, Placed, a1111_chunks, comfyui_chunks
from lora_core.prompt_comfyui import Word, weights, words
from lora_core.prompt_schedule import Timing, schedule

TABLES = json.loads((DATA / "prompt_parsing.json").read_text("utf-8"))


@pytest.mark.parametrize("row", TABLES["a1111"], ids=lambda row: row["prompt"][:30])
def test_a1111(row: dict[str, Any]) -> None:
    prompt = row["prompt"]
    assert [list(entry) for entry in schedule(prompt, Timing(10))] == row["schedule"]
    assert [list(entry) for entry in schedule(prompt, Timing(10, 6))] == row["hires"]
    assert [list(part) for part in alternatives(prompt)] == row["parts"]
    if isinstance(row["attention"], str):
        with pytest.raises(ValueError):
            segments(prompt)
    else:
        assert [[s.text, s.weight] for s in segments(prompt)] == row["attention"]


@pytest.mark.parametrize(("prompt", "expected"), TABLES["comfyui"], ids=lambda value: str(value)[:30])
def test_comfyui(prompt: str, expected: list[list[Any]]) -> None:
    assert [list(part) for part in weights(prompt)] == expected


def test_comments() -> None:
    assert without_comments("a # b\n# c\nd") == "a \nd"
    assert without_comments("# a") == "\n"


@pytest.mark.parametrize("read", [lambda text: schedule(text, Timing(5)), weights])
def test_endless_brackets_are_refused_in_a_sentence(read: Any) -> None:
    with pytest.raises(ConfigError, match="deep"):
        read("(" * 5000 + "a" + ")" * 5000)


def test_many_brackets_side_by_side_are_read_in_time() -> None:
    text = "[a:(" * 45
    assert schedule(text, Timing(5)) == [(5, text)]


def ids(text: str) -> list[int]:
    """One id for each letter; a comma is CLIP's."""
    return [COMMA if char == "," else 1000 + ord(char) for char in text if char != " "]


def nothing(_: Any, __: int) -> None:
    return None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("x" * 80, 75),
        ("x" * (74 - BACKTRACK) + "," + "y" * 40, 75),
        ("x" * (75 - BACKTRACK) + "," + "y" * 40, 76 - BACKTRACK),
        ("x" * 74 + "," + "y" * 3, 75),
        ("x" * 75 + "," + "y" * 3, 75),
        ("x" * 73 + "," + "yy", 74),
    ],
)
def test_a1111_ends_a_chunk_behind_a_near_comma(text: str, first: int) -> None:
    chunks = a1111_chunks([Segment(text)], ids, nothing)
    assert len(chunks) == 2
    assert chunks[0].tokens == (BOS, *ids(text)[:first], *[EOS] * (76 - first))
    assert chunks[1].tokens[1 : 1 + len(text) - first] == tuple(ids(text)[first:])


def test_a1111_break_and_embeddings() -> None:
    def find(tokens: Any, position: int) -> Match | None:
        return Match("emb", 4, 2) if list(tokens[position : position + 2]) == ids("em") else None

    chunks = a1111_chunks([Segment("ab"), Segment("BREAK", -1), Segment("c em d", 1.5)], ids, find)
    assert [chunk.tokens[1:3] for chunk in chunks] == [tuple(ids("ab")), (*ids("c"), 0)]
    assert chunks[1].vectors == (Placed(2, "emb", 0, 4),)
    assert chunks[1].weights[:8] == (1.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.0)
    with pytest.raises(ConfigError, match="at most 75"):
        a1111_chunks([Segment("em")], ids, lambda *_: Match("emb", 76, 2))


def test_comfyui_moves_short_words_and_cuts_long_ones() -> None:
    short = comfyui_chunks([Word("x" * 70, 1.0), Word("y" * 7, 1.2)], ids, lambda _: None)
    assert [sum(w == 1.2 for w in chunk.weights) for chunk in short] == [0, 7]
    long = comfyui_chunks([Word("x" * 70, 1.0), Word("y" * 8, 1.2)], ids, lambda _: None)
    assert [sum(w == 1.2 for w in chunk.weights) for chunk in long] == [5, 3]
    cut = comfyui_chunks([Word("x" * 70, 1.0), Word("emb", 1.2, True)], ids, lambda _: 9)
    assert [chunk.vectors for chunk in cut] == [(Placed(71, "emb", 0, 5),), (Placed(1, "emb", 5, 4),)]
    assert all(len(chunk.tokens) == CHUNK + 2 for chunk in [*short, *long, *cut])


def test_comfyui_names_of_embeddings() -> None:
    known = {"a": 2, "b": 3}
    asked = words("x embedding:a, y\nembedding:b")
    assert asked == [Word("x", 1.0), Word("a, y", 1.0, True), Word("b", 1.0, True)]
    chunk = comfyui_chunks(asked, ids, known.get)[0]
    assert chunk.vectors == (Placed(2, "a", 0, 2), Placed(6, "b", 0, 3))
    assert chunk.tokens[4:6] == tuple(ids(",y"))
    with pytest.raises(ConfigError, match="'c'"):
        comfyui_chunks(words("embedding:c"), ids, known.get)
