"""Captions: reading them from any file in any encoding, and varying them at each use. Standard library only."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any

from lora_core.draws import Draws
from lora_core.errors import FileError

MAX_CAPTION_BYTES = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KANA = re.compile("[\u3041-\u30ff]")
_WILDCARD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_TEXT_KEYS = ("caption", "text", "prompt", "description")
_TAG_KEYS = ("tags", "tag_string")


@dataclass(frozen=True)
class CaptionRules:
    """How a caption is varied; the fields are those of `jobs.dataset.Captions` after a subset's own rules.

    `warmup_least`: how many loose tags a tag warm-up begins with; 0 = there is none.
    """

    trigger: str = ""
    shuffle: bool = False
    keep_tokens: int = 0
    separator: str = ","
    prefix: str = ""
    suffix: str = ""
    caption_dropout: float = 0.0
    tag_dropout: float = 0.0
    keep_separator: str = ""
    secondary_separator: str = ""
    wildcards: bool = False
    warmup_least: int = 0
    trigger_first: bool = False


def decode_text(data: bytes) -> tuple[str, str]:
    """(text, encoding) of bytes in UTF-8, UTF-16 or UTF-32 (with or without a mark), cp932, or else cp1252/latin-1."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data.decode(name, errors="replace"), name.removesuffix("-sig")
    wide = _unmarked_utf16(data)
    for name in (wide, "utf-8", "cp932" if _looks_like_cp932(data) else "", "cp1252"):
        try:
            if name:
                return data.decode(name), name
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), "latin-1"


def _unmarked_utf16(data: bytes) -> str:
    """Name of the UTF-16 form whose zero high bytes show, or ""; other texts hold no zero bytes."""
    if len(data) % 2 or b"\0" not in data:
        return ""
    even, odd = data[::2].count(0), data[1::2].count(0)
    return "utf-16-le" if odd > even else "utf-16-be"


def _looks_like_cp932(data: bytes) -> bool:
    """Whether the bytes are Japanese rather than a Western text whose accents happen to form pairs.

    Kana decide. Without kana most characters of two bytes must have a second byte above ASCII: in a Western text the
    byte behind an accent is an ASCII letter.
    """
    try:
        text = data.decode("cp932")
    except UnicodeDecodeError:
        return False
    if _KANA.search(text):
        return True
    pairs = [c.encode("cp932") for c in text if "\u4e00" <= c <= "\u9fff" or "\u3000" <= c <= "\u3040"]
    high = sum(pair[-1] >= 0x80 for pair in pairs)
    return high * 2 > len(pairs)


def read_caption(data: bytes, extension: str, separator: str = ",", lines: bool = False) -> str:
    """The caption in a file's bytes: text, or JSON when the extension is ".json"; `lines` keeps the lines of a text.

    Raises FileError with the reason.
    """
    if len(data) > MAX_CAPTION_BYTES:
        raise FileError(f"it is larger than {MAX_CAPTION_BYTES >> 20} MB, too large for a caption")
    text, _ = decode_text(data)
    if extension.lower() != ".json":
        return text.replace("\0", "").strip("\ufeff\r\n ") if lines else one_line(text, separator)
    try:
        return json_caption(json.loads(text), separator)
    except (ValueError, RecursionError) as error:
        raise FileError(f"it is not valid JSON ({error})") from error


def json_caption(value: Any, separator: str = ",") -> str:
    """The caption in a JSON value: a string, a list of tags, or an object with a caption and/or tags (joined)."""
    if isinstance(value, str):
        return one_line(value, separator)
    if isinstance(value, list):
        return _join([str(tag).strip() for tag in value if str(tag).strip()], separator)
    if not isinstance(value, dict):
        return ""
    parts = [next((json_caption(value[key], separator) for key in keys if value.get(key)), "") for keys in _KEY_GROUPS]
    return _join([part for part in parts if part], separator)


_KEY_GROUPS = (_TEXT_KEYS, _TAG_KEYS)


def read_table(data: bytes, separator: str = ",") -> dict[str, str]:
    """metadata.jsonl: one JSON object a line with `file_name` and a caption -> {file name with "/": caption}.

    Raises FileError that names the first line that is not such an object.
    """
    text, _ = decode_text(data)
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name = str(row["file_name"]).replace("\\", "/").removeprefix("./")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileError(f"line {number} is not a JSON object with file_name ({error})") from error
        found[name] = json_caption(row, separator)
    return found


def one_line(text: str, separator: str = ",") -> str:
    """A caption of several lines as one: lines are joined as tags unless they end as sentences do."""
    lines = [line.strip() for line in text.replace("\ufeff", "").replace("\0", "").splitlines()]
    joined = ""
    for line in filter(None, lines):
        glue = (
            ""
            if not joined
            else " "
            if joined.endswith((separator, ".", "!", "?", ";", ":", ","))
            else _glue(separator)
        )
        joined += glue + line
    return joined


def with_trigger(caption: str, rules: CaptionRules) -> str:
    """The caption with the trigger in front unless it holds the trigger as a word of its own already."""
    trigger = rules.trigger.strip()
    if trigger and rules.trigger_first and holds(caption, trigger) and not rules.keep_separator:
        found = tags(caption, rules.separator)
        return _join(sorted(found, key=lambda tag: not holds(tag, trigger)), rules.separator)
    if not trigger or holds(rules.prefix, trigger) or holds(caption, trigger) or holds(rules.suffix, trigger):
        return caption
    return _join([trigger, caption], rules.separator) if caption else trigger


def holds(text: str, words: str) -> bool:
    """Whether `words` occur in `text` on word borders, whatever their case."""
    return re.search(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", text.casefold()) is not None


def fixed_caption(caption: str, rules: CaptionRules) -> str:
    """Trigger, prefix and suffix added, nothing shuffled or dropped; joined with spaces, as kohya's trainer does.

    Of alternatives the first one.
    """
    if rules.wildcards:
        caption = chosen(caption, None)
    whole = with_trigger(caption, rules)
    if rules.keep_separator and rules.keep_separator in whole:
        whole = _join([tag for part in _split(whole, rules) for tag in part], rules.separator)
    return _finished(whole, rules)


def varied_caption(caption: str, rules: CaptionRules, draws: Draws, warm: float = 1.0) -> str:
    """The caption for one use: dropout, then the loose tags shuffled and thinned; the trigger stays.

    `warm`: the share of the tag warm-up that is done.
    """
    if draws.unit() < rules.caption_dropout:
        return ""
    if rules.wildcards:
        caption = chosen(caption, draws)
    whole = with_trigger(caption, rules)
    if rules.shuffle or rules.tag_dropout > 0 or rules.keep_separator or (rules.warmup_least and warm < 1):
        kept, loose, end = _split(whole, rules)
        if rules.warmup_least and warm < 1:
            loose = loose[: int(warm * (len(loose) - rules.warmup_least)) + rules.warmup_least]
        loose = draws.shuffled(loose) if rules.shuffle else loose
        kept_or_lucky = [tag for tag in loose if draws.unit() >= rules.tag_dropout or _is_trigger(tag, rules)]
        whole = _join(kept + kept_or_lucky + end, rules.separator)
    return _finished(whole, rules)


def chosen(caption: str, draws: Draws | None) -> str:
    """One line of several, and one of each {a|b}; {{ and }} are braces. Without `draws` always the first."""

    def one(parts: list[str]) -> str:
        return parts[0] if draws is None else parts[int(draws.unit() * len(parts))]

    def piece(match: re.Match[str]) -> str:
        text = match.group(0)
        return text[0] if text in ("{{", "}}") else one(match.group(1).split("|"))

    lines = [line.strip() for line in caption.splitlines() if line.strip()]
    return _WILDCARD.sub(piece, one(lines)) if lines else ""


def is_fixed(caption: str, rules: CaptionRules) -> bool:
    """Whether every use of the caption gives the same text."""
    if rules.caption_dropout > 0:
        return False
    lines = [line for line in caption.splitlines() if line.strip()]
    if rules.wildcards and (
        len(lines) > 1 or any("|" in m.group(1) for m in _WILDCARD.finditer(caption) if m.group(1))
    ):
        return False
    _, loose, _ = _split(with_trigger(caption, rules), rules)
    droppable = [tag for tag in loose if not _is_trigger(tag, rules)]
    if rules.warmup_least and len(loose) > rules.warmup_least:
        return False
    return not (rules.shuffle and len(set(loose)) > 1) and not (rules.tag_dropout > 0 and droppable)


def tags(caption: str, separator: str = ",") -> list[str]:
    """The tags of a caption, without empty ones."""
    return [tag.strip() for tag in caption.split(separator or ",") if tag.strip()]


def _split(caption: str, rules: CaptionRules) -> tuple[list[str], list[str], list[str]]:
    """Tags that stay in front, loose ones, tags that stay at the end."""
    mark = rules.keep_separator
    if mark and mark in caption:
        front, loose, end = (*caption.split(mark, 2), "")[:3]
        return tags(front, rules.separator), tags(loose, rules.separator), tags(end, rules.separator)
    found = tags(caption, rules.separator)
    return found[: rules.keep_tokens], found[rules.keep_tokens :], []


def _is_trigger(tag: str, rules: CaptionRules) -> bool:
    return bool(rules.trigger.strip()) and holds(tag, rules.trigger.strip())


def _finished(caption: str, rules: CaptionRules) -> str:
    if rules.secondary_separator:
        caption = caption.replace(rules.secondary_separator, rules.separator)
    return _framed(caption, rules)


def _framed(caption: str, rules: CaptionRules) -> str:
    return " ".join(part for part in (rules.prefix.strip(), caption, rules.suffix.strip()) if part)


def _glue(separator: str) -> str:
    separator = separator or ","
    return f"{separator.strip()} " if separator.strip() else separator


def _join(parts: list[str], separator: str) -> str:
    return _glue(separator).join(parts)
