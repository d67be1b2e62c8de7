"""LoRA tags in prompts: A1111's `<lora:name:te:unet:dyn>` with block weights (`lbw=`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lora_core.errors import ConfigError

_TAG = re.compile(r"<(?:lora|lyco):([^<>]*)>")
_OTHER = re.compile(r"<(\w+):[^>]+>")
_KEYS = {"te", "unet", "dyn", "lbw"}
_NOTHING = "IN*=0,M*=0,OUT*=0"
PRESETS = {
    "NONE": f"TE=0,{_NOTHING}",
    "ALL": "TE=1",
    "INS": f"{_NOTHING},IN01=1,IN02=1",
    "IND": f"{_NOTHING},IN05=1,IN07=1,IN08=1",
    "INALL": f"{_NOTHING},IN*=1",
    "MIDD": f"{_NOTHING},IN05=1,IN07=1,IN08=1,M*=1,OUT03=1,OUT04=1,OUT05=1,OUT06=1",
    "OUTD": f"{_NOTHING},OUT03=1,OUT04=1,OUT05=1,OUT06=1",
    "OUTS": f"{_NOTHING},OUT07=1,OUT08=1,OUT09=1,OUT10=1,OUT11=1",
    "OUTALL": f"{_NOTHING},OUT*=1",
    "ALL0.5": "*=0.5",
}


@dataclass(frozen=True)
class LoraTag:
    """`<lora:name:strength>`, `<lora:name:text_encoder:unet:dyn>`, or with `te=`, `unet=`, `dyn=`, as A1111 reads it.

    `rank` (dyn) uses only that many of the LoRA's ranks. `lbw=` brings block weights (`blocks`, see
    `lora_core.block_weights`) or the name of one of the PRESETS of the extension "LoRA block weight".
    """

    name: str
    strength: float = 1.0
    text_encoder_strength: float = 1.0
    blocks: str = ""
    rank: int | None = None


def split_lora_tags(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """The prompt without its LoRA tags, and the tags. Raises ConfigError for a tag that cannot be read."""
    tags = tuple(_read_tag(match.group(1)) for match in _TAG.finditer(prompt))
    return _TAG.sub("", prompt), tags


def without_lora_tags(prompt: str) -> str:
    """The prompt without its LoRA tags, also such as cannot be read."""
    return _TAG.sub("", prompt)


def without_other_tags(prompt: str) -> str:
    """The prompt without tags of other networks, as A1111 takes them out. Raises ConfigError for a hypernetwork."""
    for match in _OTHER.finditer(prompt):
        if match[1] == "hypernet":
            raise ConfigError(f"Hypernetworks cannot be used here: take {match[0]} out of the prompt.")
    return _OTHER.sub("", prompt)


def _read_tag(body: str) -> LoraTag:
    name, *rest = body.split(":")
    named = dict(part.split("=", 1) for part in rest if "=" in part)
    plain = [part.strip() for part in rest if "=" not in part]
    lists = [part for part in plain if part in PRESETS or "," in part]
    numbers = [part for part in plain if part not in lists]
    unknown = named.keys() - _KEYS
    if not name or unknown or len(numbers) > 3 or len(lists) + ("lbw" in named) > 1:
        raise ConfigError(_fault(body, unknown))
    try:
        te = float(named.get("te", numbers[0] if numbers else 1.0))
        unet = float(named.get("unet", numbers[1] if len(numbers) > 1 else te))
        rank = int(named["dyn"] if "dyn" in named else numbers[2]) if "dyn" in named or len(numbers) > 2 else None
    except ValueError:
        raise ConfigError(f"The tag <lora:{body}> holds a strength that is no number.") from None
    blocks = named.get("lbw", lists[0] if lists else "")
    return LoraTag(name, unet, te, PRESETS.get(blocks, blocks), rank)


def _fault(body: str, unknown: set[str]) -> str:
    hint = f" It does not know {', '.join(sorted(unknown))}." if unknown else ""
    return (
        f"The tag <lora:{body}> cannot be read: write <lora:name:strength>, <lora:name:te:unet> or "
        f"<lora:name:strength:lbw=1,0,...>.{hint}"
    )
