"""Brackets of a prompt that do not come in pairs: the hosts read them in silence, each in its own way."""

from __future__ import annotations

import re

_ROUND, _SQUARE = ("(", ")"), ("[", "]")
_READ_AS = {
    "a1111": ("A1111 lets it reach to the prompt's end", "A1111 takes it as text"),
    "comfyui": ("ComfyUI takes it and all behind it as text", "ComfyUI takes it as text"),
}


def unpaired(text: str, kinds: tuple[tuple[str, str], ...]) -> list[tuple[str, int]]:
    """Each bracket that lacks its other half, with how many of it; a backslash before one takes it as a letter."""
    text = re.sub(r"\\.", "", text, flags=re.DOTALL)
    found = []
    for opening, closing in kinds:
        depth = extra = 0
        for char in text:
            depth += char == opening
            if char == closing:
                extra += depth == 0
                depth -= depth > 0
        found += [(opening, depth)] * (depth > 0) + [(closing, extra)] * (extra > 0)
    return found


def bracket_faults(text: str, arithmetic: str, what: str = "prompt") -> list[str]:
    """A sentence for each kind of bracket of a prompt that does not come in pairs. ComfyUI knows round ones only."""
    kinds = (_ROUND, _SQUARE) if arithmetic == "a1111" else (_ROUND,)
    return [_sentence(bracket, count, arithmetic, what) for bracket, count in unpaired(text, kinds)]


def open_tags(text: str, what: str = "prompt") -> list[str]:
    """A sentence for each `<lora:` without its ">": it applies nothing."""
    found = re.findall(r"<(?:lora|lyco):[^<>]*(?=<|$)", text)
    return [f'The {what} has "{tag.strip()[:60]}" without a ">" at its end: no LoRA is applied by it.' for tag in found]


def _sentence(bracket: str, count: int, arithmetic: str, what: str) -> str:
    opening = bracket in "(["
    lacking, read = "is never closed" if opening else "was never opened", _READ_AS[arithmetic][0 if opening else 1]
    if count > 1:
        lacking = lacking.replace("is ", "are ").replace("was ", "were ")
        read = read.replace(" it ", " them ")
    number = "one" if count == 1 else str(count)
    return f'The {what} has {number} "{bracket}" that {lacking}: {read}.'
