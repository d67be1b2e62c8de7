"""From drawn pictures to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from lora_core.demo.features import background_colour, has_character
from lora_core.demo.figures import Measured, Share
from lora_core.demo.shots import Shot, ShotList

Pictures = Mapping[Shot, Image.Image]


def measure(shots: ShotList, pictures: Pictures) -> Measured:
    """Count the character and compare the pictures."""
    return Measured(
        with_lora=character(shots.character, pictures),
        without_lora=character(shots.character_base, pictures),
        leaked=character(shots.ordinary, pictures),
        obeyed=background(shots.character, pictures),
        change=change(shots.ordinary_base, shots.ordinary, pictures),
        change_with_trigger=change(shots.character_base, shots.character, pictures),
        change_of_seed=change(shots.ordinary_base, shots.other_seed, pictures),
    )


def character(shots: Sequence[Shot], pictures: Pictures) -> Share:
    """How many of the pictures show all of the character's own features."""
    return Share(sum(all(has_character(np.asarray(pictures[shot])).values()) for shot in shots), len(shots))


def background(shots: Sequence[Shot], pictures: Pictures) -> Share:
    """How many of the pictures have the background that their prompts name."""
    seen = [f"{background_colour(np.asarray(pictures[shot]))} background" in shot.prompt for shot in shots]
    return Share(sum(seen), len(shots))


def change(before: Sequence[Shot], after: Sequence[Shot], pictures: Pictures) -> float:
    """Mean over the pairs of `difference`."""
    pairs = [difference(pictures[a], pictures[b]) for a, b in zip(before, after)]
    return float(np.mean(pairs)) if pairs else 0.0


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference of two RGB pictures of one size, as a share of the range: 0 = the same."""
    first, second = (np.asarray(picture.convert("RGB"), dtype=np.float32) for picture in (a, b))
    return float(np.abs(first - second).mean() / 255)
