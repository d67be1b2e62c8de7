"""A strength per block: "1,1,0.5,...", or NAME=WEIGHT pairs, for any module by its canonical name."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lora_core.errors import ConfigError
from lora_core.families import reference
from lora_core.jobs.generate import LoraUse
from lora_core.keys_unet import unet_modules
from lora_core.shapes import UNET

TE, OTHER = "TE", "UNET"
_STAGES = {"input_blocks": "IN", "middle_block": "M", "output_blocks": "OUT"}
_SHORT = {  # the blocks that carry a LoRA without convolutions
    "sd1": (*(f"IN{i:02}" for i in (1, 2, 4, 5, 7, 8)), "M00", *(f"OUT{i:02}" for i in range(3, 12))),
    "sdxl": (*(f"IN{i:02}" for i in (4, 5, 7, 8)), "M00", *(f"OUT{i:02}" for i in range(6))),
}


@functools.cache
def block_names(family: str) -> tuple[str, ...]:
    """IN00.., M00, OUT00..: the blocks of a family's UNet as block-weight tools number them (12+1+12 or 9+1+9)."""
    count = 9 if family == "sdxl" else 12
    return (*(f"IN{i:02}" for i in range(count)), "M00", *(f"OUT{i:02}" for i in range(count)))


@functools.cache
def _labels(family: str) -> dict[str, str]:
    """Canonical module name -> block, for the UNet."""
    found: dict[str, str] = {}
    for module in unet_modules(reference(family).unet):
        stage, _, rest = module.ldm.partition(".")
        index = rest.partition(".")[0]
        label = f"{_STAGES[stage]}{int(index):02}" if stage in _STAGES else OTHER
        found[f"{UNET}.{module.name}"] = "M00" if stage == "middle_block" else label
    return found


def block_of(canonical: str, family: str) -> str:
    """The block of a module: "IN04", "M00", "OUT11", "TE" for text encoders, "UNET" for what is outside the blocks."""
    return _labels(family).get(canonical, OTHER) if canonical.startswith(f"{UNET}.") else TE


@dataclass(frozen=True)
class BlockWeights:
    """Pairs of a pattern and a weight; the last that fits a module counts, none means 1."""

    pairs: tuple[tuple[str, float], ...]
    family: str

    def of(self, canonical: str) -> float:
        found = self.named(canonical)
        return 1.0 if found is None else found

    def named(self, canonical: str) -> float | None:
        """The number of the last pattern that fits a module, None if none does."""
        for pattern, weight in reversed(self.pairs):
            if fits(canonical, pattern, self.family):
                return weight
        return None


def fits(canonical: str, pattern: str, family: str) -> bool:
    """Whether a pattern of blocks ("IN*", "TE") or of canonical names ("*attn2*") fits a module."""
    label = block_of(canonical, family)
    return fnmatch.fnmatchcase(label, pattern.upper()) or fnmatch.fnmatchcase(canonical, pattern)


def parse_blocks(text: str, family: str) -> BlockWeights:
    """Read one line of block weights for a family. Raises ConfigError.

    Numbers alone: one per block (12+1+12; SDXL 9+1+9, or 9+3+9 as sd-scripts counts, whose three middle ones must
    agree, or 1+9+3+9+1 as its ranks), with one more in front for the text encoders; or the short lists of 17 and 12
    (text encoders, then the blocks that have attention). Else NAME=WEIGHT pairs; NAME is a block, a pattern of blocks
    ("IN*", "OUT0?"), "TE", or a pattern of canonical names ("*attn2*").
    """
    parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
    if any("=" in part for part in parts):
        return BlockWeights(tuple(_pair(part) for part in parts), family)
    numbers = [_number(part, text) for part in parts]
    if family == "sdxl" and len(numbers) == 23:
        numbers = numbers[1:-1]
    names = _names_for(len(numbers), family)
    if family == "sdxl" and len(numbers) in (21, 22):
        numbers = _one_middle(numbers, text)
    if names is None or len(names) != len(numbers):
        full = len(block_names(family))
        raise ConfigError(
            f"Block weights for this model are {full} numbers ({full + 1} with the text encoders in front), "
            f"not {len(numbers)}: {text!r}."
        )
    return BlockWeights(tuple(zip(names, numbers)), family)


def _names_for(count: int, family: str) -> tuple[str, ...] | None:
    full, short = block_names(family), (TE, *_SHORT["sdxl" if family == "sdxl" else "sd1"])
    counts: Mapping[int, tuple[str, ...]] = {len(full): full, len(full) + 1: (TE, *full), len(short): short, 0: ()}
    if family == "sdxl":
        counts = {**counts, 21: full, 22: (TE, *full)}
    return counts.get(count)


def _one_middle(numbers: list[float], text: str) -> list[float]:
    first = len(numbers) - 12
    if len(set(numbers[first : first + 3])) > 1:
        raise ConfigError(f"The three weights of SDXL's middle block must be equal: {text!r}.")
    return numbers[:first] + numbers[first + 2 :]


def _pair(part: str) -> tuple[str, float]:
    name, _, value = part.partition("=")
    return name.strip(), _number(value, part)


def _number(value: str, text: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{value!r} in the block weights {text!r} is no number.") from None


def weigher(use: LoraUse, blocks: str, family: str) -> Callable[[str], float]:
    """Canonical module name -> strength of one LoRA there: its own strength times the block's weight."""
    weights = parse_blocks(blocks, family)
    text = use.strength if use.text_encoder_strength is None else use.text_encoder_strength

    def weight(canonical: str) -> float:
        return (use.strength if canonical.startswith(f"{UNET}.") else text) * weights.of(canonical)

    return weight
