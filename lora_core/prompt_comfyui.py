"""ComfyUI's prompt language (0.3): nested weights, a number replacing the outer ones, and `embedding:` names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lora_core.errors import ConfigError

UP = 1.1
EMBEDDING = "embedding:"
DEEPEST = 200
_ESCAPES = {"\\)": "\0\1", "\\(": "\0\2"}


@dataclass(frozen=True)
class Word:
    """What is kept in one chunk where it fits: a stretch of text of one weight.

    `embedding`: its first word names an embedding, the rest is text.
    """

    text: str
    weight: float
    embedding: bool = False


def weights(prompt: str) -> list[tuple[str, float]]:
    """Stretches of text with their weights: (a) times 1.1, (a:1.3) sets 1.3 whatever stands around it.

    `\\(` and `\\)` are literal; brackets that do not balance are text.
    """
    for written, mark in _ESCAPES.items():
        prompt = prompt.replace(written, mark)
    return [(_unescaped(text), weight) for text, weight in _weighted(prompt, 1.0, 0)]


def words(prompt: str) -> list[Word]:
    """The prompt's words in order."""
    return [word for text, weight in weights(prompt) for word in _split(text, weight)]


def _unescaped(text: str) -> str:
    for written, mark in _ESCAPES.items():
        text = text.replace(mark, written[1])
    return text


def _weighted(text: str, current: float, depth: int) -> Iterator[tuple[str, float]]:
    if depth > DEEPEST:
        raise ConfigError(f"The prompt nests its brackets more than {DEEPEST} deep.")
    for part in _outermost(text):
        if len(part) < 2 or part[0] != "(" or part[-1] != ")":
            yield part, current
            continue
        inside, weight = part[1:-1], current * UP
        before, colon, number = inside.rpartition(":")
        if colon and before:
            try:
                inside, weight = before, float(number)
            except ValueError:
                inside = part[1:-1]
        yield from _weighted(inside, weight, depth + 1)


def _outermost(text: str) -> list[str]:
    """The text cut at its outermost brackets. One bracket too many at the end of a level hides the next opening one."""
    parts, current, level = [], "", 0
    for char in text:
        if char == "(" and level == 0 and current:
            parts.append(current)
            current = ""
        level += (char == "(") - (char == ")")
        current += char
        if char == ")" and level == 0:
            parts.append(current)
            current = ""
    return [*parts, current] if current else parts


def _split(text: str, weight: float) -> Iterator[Word]:
    first, *others = re.split(rf" {EMBEDDING}|\n{EMBEDDING}", text)
    for part in [first, *(EMBEDDING + other for other in others)]:
        if part.startswith(EMBEDDING):
            yield Word(part[len(EMBEDDING) :].strip("\n"), weight, embedding=True)
        elif part:
            yield Word(part, weight)
