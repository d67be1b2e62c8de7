"""Variants of a training picture: where it is cropped and how its colours shift. Pure functions of random draws.

The amounts are those of kohya's trainer (sd-scripts): colours change in a third of the variants, half of these by hue,
half by gamma; faces are named by the end of the file's name, `_cx_cy_w_h` in pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lora_core.buckets import Fit
from lora_core.draws import Draws

COLOUR_SHARE, HUE, GAMMA = 0.33, 8.0, 0.05
SMALL_FACE, SHAKE = 40, 20
_FACE = re.compile(r"_(\d+)_(\d+)_(\d+)_(\d+)$")


@dataclass(frozen=True)
class Tint:
    """A shift of the hue (in degrees of 180) and a gamma; (0, 1) changes nothing."""

    hue: float = 0.0
    gamma: float = 1.0


@dataclass(frozen=True)
class Face:
    """A face's centre and size in pixels of the picture."""

    x: int
    y: int
    width: int
    height: int


def face_of(stem: str) -> Face | None:
    """The face that a file's name tells."""
    found = _FACE.search(stem)
    face = Face(*map(int, found.groups())) if found else None
    return face if face and face.x > 0 and face.width and face.height else None


def face_range(text: str) -> tuple[float, float] | None:
    """ "2.0,4.0": how many times larger than the face the crop is, from and to; None when empty. Raises ValueError."""
    if not text.strip():
        return None
    low, high = (float(part) for part in text.split(","))
    if not 1 <= low <= high:
        raise ValueError(f"{text!r} must be two numbers of at least 1, the smaller first")
    return low, high


def drawn_tint(draws: Draws) -> Tint:
    if draws.unit() >= COLOUR_SHARE:
        return Tint()
    hue, amount = draws.unit() < 0.5, 2 * draws.unit() - 1
    return Tint(hue=HUE * amount) if hue else Tint(gamma=1 + GAMMA * amount)


def random_crop(fit: Fit, draws: Draws) -> Fit:
    """Any place of the resized picture, uniformly."""
    left, top = (draws.below(r - b + 1) for r, b in zip(fit.resized, fit.bucket))
    return replace(fit, offset=(left, top))


def face_crop(fit: Fit, face: Face, sizes: tuple[float, float], anywhere: bool, draws: Draws) -> Fit:
    """A crop around a face, at a scale that makes the crop `sizes` times as large as the face; never enlarged."""
    scale = face_scale(fit, face, sizes, draws)
    resized = tuple(max(b, int(side * scale + 0.5)) for side, b in zip(fit.original, fit.bucket))
    largest = round(max(face.width, face.height) * scale)
    centre = (int(face.x * scale + 0.5), int(face.y * scale + 0.5))
    offsets = []
    for length, side, middle in zip(resized, fit.bucket, centre):
        start = middle - side // 2
        if anywhere:
            reach = max(length - middle, middle)
            start += draws.below(reach + 1) + draws.below(reach + 1) - reach
        elif sizes[0] != sizes[1] and largest > min(fit.bucket) // 10 and largest >= SMALL_FACE:
            reach = largest // SHAKE
            start += draws.below(2 * reach + 1) - reach
        offsets.append(max(0, min(start, length - side)))
    return replace(fit, resized=(resized[0], resized[1]), offset=(offsets[0], offsets[1]))


def face_scale(fit: Fit, face: Face, sizes: tuple[float, float], draws: Draws) -> float:
    covering = max(b / o for b, o in zip(fit.bucket, fit.original))
    side, largest = min(fit.bucket), max(face.width, face.height)
    if covering >= 1:
        return covering
    least = min(1.0, max(covering, side / (largest * sizes[1])))
    most = min(1.0, max(least, side / (largest * sizes[0])))
    return least + (most - least) * draws.unit()
