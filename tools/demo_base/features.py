"""What a portrait shows; the demo measures with the same functions, so they live in lora_core.demo.features."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_core.demo.features import (
    COVERED_EYE,
    MAGENTA,
    PALETTE,
    PATCH,
    STRAP,
    background_colour,
    hair_colour,
    has_character,
    has_eye_patch,
    skin_colour,
)

__all__ = [
    "COVERED_EYE",
    "MAGENTA",
    "PALETTE",
    "PATCH",
    "STRAP",
    "background_colour",
    "hair_colour",
    "has_character",
    "has_eye_patch",
    "skin_colour",
]
