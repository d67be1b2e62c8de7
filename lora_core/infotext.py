"""LoRA tags in prompts and A1111's picture parameters ("infotext")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_core.errors import ConfigError

_TAG = re.compile(r"<lora:([^<>]*)>")


@dataclass(frozen=True)
class LoraTag:
    """`<lora:name:strength>`, or `<lora:name:text_encoder:unet>`, or with `te=` and `unet=`, as A1111 reads them."""

    name: str
    strength: float = 1.0
    text_encoder_strength: float = 1.0


def split_lora_tags(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """The prompt without its LoRA tags, and the tags. Raises ConfigError for a tag that cannot be read."""
    tags = tuple(_read_tag(match.group(1)) for match in _TAG.finditer(prompt))
    return _TAG.sub("", prompt), tags


def _read_tag(body: str) -> LoraTag:
    name, *rest = body.split(":")
    named = dict(part.split("=", 1) for part in rest if "=" in part)
    plain = [part for part in rest if "=" not in part]
    unknown = named.keys() - {"te", "unet"}
    if not name or unknown or len(plain) > 2:
        raise ConfigError(f"The tag <lora:{body}> cannot be read: write <lora:name:strength> or <lora:name:te:unet>.")
    try:
        te = float(named.get("te", plain[0] if plain else 1.0))
        unet = float(named.get("unet", plain[1] if len(plain) > 1 else te))
    except ValueError:
        raise ConfigError(f"The tag <lora:{body}> holds a strength that is no number.") from None
    return LoraTag(name, unet, te)


def infotext(prompt: str, negative: str, values: Mapping[str, object]) -> str:
    """A1111's three paragraphs: prompt, "Negative prompt: ...", "Key: value, ..."; empty values are left out."""
    parts = [f"{key}: {quote(value)}" for key, value in values.items() if value not in (None, "")]
    lines = [prompt, *([f"Negative prompt: {negative}"] if negative else []), ", ".join(parts)]
    return "\n".join(lines)


def quote(value: object) -> str:
    """A value as A1111 writes it: in JSON quotes when it holds a comma, a colon or a line break."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text


def lora_hashes(hashes: Sequence[tuple[str, str]]) -> str:
    """The value of "Lora hashes": `name: hash` with 12 digits each."""
    return ", ".join(f"{name}: {digest[:12]}" for name, digest in hashes if digest)
