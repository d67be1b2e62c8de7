"""A1111's prompt language (v1.10.1): emphasis, BREAK, AND, comments. Editing over time is in prompt_schedule.py."""

from __future__ import annotations

import re
from dataclasses import dataclass

UP, DOWN = 1.1, 1 / 1.1
_PIECE = re.compile(r"\\[()\[\]\\]?|:\s*([+-]?[.\d]+)\s*\)|[()\[\]:]|[^\\()\[\]:]+")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+))\s*$")


@dataclass
class Segment:
    """A stretch of text and its weight; `new_chunk` (BREAK) has no text of its own."""

    text: str
    weight: float = 1.0

    @property
    def new_chunk(self) -> bool:
        """A BREAK inside brackets has another weight than -1: A1111 then reads it as a word."""
        return self.text == "BREAK" and self.weight == -1


def without_comments(prompt: str) -> str:
    """The prompt without what stands from "#" to the end of its line."""
    prompt = re.sub(r"(^|\n)#[^\n]*(\n|$)", "\n", prompt)
    return re.sub(r"#[^\n]*(\n|$)", "\n", prompt)


def alternatives(prompt: str) -> tuple[tuple[str, float], ...]:
    """The parts between ANDs with their weights (Liu et al. 2022); a prompt without AND is one part.

    As in A1111 a number after a colon at the very end is a weight, also without AND.
    """
    return tuple(_weighted(part) for part in _AND.split(prompt))


def _weighted(part: str) -> tuple[str, float]:
    found = _WEIGHT.search(part)
    return (part.rstrip(), 1.0) if found is None else (part[: found.start()], float(found.group(1)))


def segments(prompt: str) -> list[Segment]:
    """The stretches of one weight: (a) times 1.1, (a:1.3) times 1.3, [a] by 1.1, nested ones multiplied.

    A backslash takes a bracket literally; brackets that nobody closes count to the end, those that nobody opened are
    text. Raises ValueError for "(a:1.2.3)", which is no number.
    """
    found: list[Segment] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for match in _PIECE.finditer(prompt):
        piece, number = match.group(0), match.group(1)
        round_ = opened["("]
        if piece.startswith("\\"):
            found.append(Segment(piece[1:]))
        elif piece in opened:
            opened[piece].append(len(found))
        elif number is not None and round_:
            _multiply(found, round_.pop(), float(number))
        elif piece == ")" and round_:
            _multiply(found, round_.pop(), UP)
        elif piece == "]" and opened["["]:
            _multiply(found, opened["["].pop(), DOWN)
        else:
            _add_text(found, piece)
    for start in opened["("]:
        _multiply(found, start, UP)
    for start in opened["["]:
        _multiply(found, start, DOWN)
    return _merged(found)


def _multiply(found: list[Segment], start: int, factor: float) -> None:
    for segment in found[start:]:
        segment.weight *= factor


def _add_text(found: list[Segment], text: str) -> None:
    for i, part in enumerate(_BREAK.split(text)):
        if i:
            found.append(Segment("BREAK", -1))
        found.append(Segment(part))


def _merged(found: list[Segment]) -> list[Segment]:
    merged: list[Segment] = []
    for segment in found:
        if merged and merged[-1].weight == segment.weight:
            merged[-1].text += segment.text
        else:
            merged.append(segment)
    return merged or [Segment("")]
