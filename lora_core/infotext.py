"""The text format of A1111's picture parameters ("infotext"), written and read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_KEY = re.compile(r"\s*(\w[\w \-/.+]*):\s*")
_JSON = json.JSONDecoder()
NEGATIVE = "Negative prompt:"


def infotext(prompt: str, negative: str, values: Mapping[str, object]) -> str:
    """A1111's three paragraphs: prompt, "Negative prompt: ...", "Key: value, ..."; empty values are left out."""
    parts = [f"{key}: {quote(value)}" for key, value in values.items() if value not in (None, "")]
    prompt, negative = normal_prompt(prompt), normal_prompt(negative)
    lines = [prompt, *([f"{NEGATIVE} {negative}"] if negative else []), ", ".join(parts)]
    return "\n".join(lines).lstrip("\n")


def normal_prompt(prompt: str) -> str:
    """A prompt as an infotext can hold it: no space at the ends of its lines, no empty lines at its ends."""
    return "\n".join(line.strip() for line in re.split(r"\r\n|\r|\n", prompt)).strip()


def quote(value: object) -> str:
    """A value as A1111 writes it: in JSON quotes when a reader could not tell where it ends."""
    text = spell_number(value) if isinstance(value, float) else str(value)
    unclear = set(text) & set(",:\n\r") or text != text.strip() or text[:1] in ('"', "[", "{")
    return json.dumps(text, ensure_ascii=False) if unclear else text


def spell_number(number: float) -> str:
    """The shortest text that reads back as the same number: 7 and 7.5, not 7.0."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def written_hashes(hashes: Sequence[tuple[str, str]]) -> str:
    """The value of "Lora hashes" or "TI hashes": `name: hash` with 12 digits each, and names as A1111 has them.

    An embedding that came in a LoRA has that LoRA's name in the hash's place.
    """
    pairs = [(name, digest[:12] if is_hash(digest) else digest) for name, digest in hashes if digest]
    return ", ".join(f"{re.sub('[:,]', '', name)}: {re.sub('[:,]', '', digest)}" for name, digest in pairs)


def is_hash(text: str) -> bool:
    """Whether a text may be 8 or more digits of a hash in hexadecimal."""
    return re.fullmatch("[0-9a-fA-F]{8,}", text) is not None


def read_hashes(text: str) -> tuple[tuple[str, str], ...]:
    """The pairs of a "Lora hashes" or "TI hashes" value."""
    pairs = (part.rpartition(":") for part in text.split(","))
    return tuple((name.strip(), digest.strip()) for name, colon, digest in pairs if colon and name.strip())


@dataclass(frozen=True)
class Infotext:
    """The three paragraphs of A1111's parameters; `rest` holds lines behind them, as some extensions write."""

    prompt: str
    negative: str = ""
    values: dict[str, str] = field(default_factory=dict)
    rest: tuple[str, ...] = ()


def read_infotext(text: str) -> Infotext | None:
    """Read A1111's parameters; None where no line holds at least three "Key: value" pairs."""
    lines = [line.strip() for line in text.strip().split("\n")]
    place = next((i for i in reversed(range(len(lines))) if len(list(_pairs(lines[i]))) >= 3), None)
    if place is None:
        return None
    named = [i for i in range(len(lines)) if re.match(r"Steps: \d+, ", lines[i]) and len(list(_pairs(lines[i]))) >= 3]
    place = named[-1] if named else place
    first = next((i for i in range(place) if lines[i].startswith(NEGATIVE)), place)
    negative = "\n".join([lines[first][len(NEGATIVE) :].strip(), *lines[first + 1 : place]]) if first < place else ""
    prompt = "\n".join(lines[:first])
    return Infotext(prompt.strip("\n"), negative.strip("\n"), dict(_pairs(lines[place])), tuple(lines[place + 1 :]))


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """The "Key: value" pairs of one line; a value is JSON, or reaches to the next comma."""
    place = 0
    while place < len(line):
        match = _KEY.match(line, place)
        value, place = _value(line, match.end() if match else place)
        if match:
            yield match[1], value


def _value(line: str, start: int) -> tuple[str, int]:
    """The value that begins at `start`, and the place behind its comma."""
    if line[start : start + 1] in ('"', "{", "["):
        try:
            value, end = _JSON.raw_decode(line, start)
        except (ValueError, RecursionError):
            pass
        else:
            text = value if isinstance(value, str) else line[start:end]
            comma = re.compile(r"\s*(?:,|$)").match(line, end)
            if comma:
                return text, comma.end()
    end = line.find(",", start)
    end = len(line) if end < 0 else end
    return line[start:end].strip(), end + 1
