"""Where a picture is cropped: around what stands out in it, or around its faces, instead of its middle.

What stands out: colours far from the picture's mean colour (Achanta et al., "Frequency-tuned salient region
detection", CVPR 2009) and strong edges. Pure functions; the same pixels always give the same crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from lora_core.augment import Face
from lora_core.buckets import Fit

CELLS = 32
SIDE = 128
FACE_SHARE = 0.95
MIDDLE, GAIN = 0.05, 1e-3
_FLAT = 2.0


@dataclass(frozen=True)
class Profile:
    """How much stands out in each of `CELLS` equal columns (from the left) and rows (from the top), 0 to 255."""

    columns: bytes
    rows: bytes

    def text(self) -> str:
        return (self.columns + self.rows).hex()

    @classmethod
    def of_text(cls, text: str) -> Profile:
        """Inverse of `text`. Raises ValueError."""
        data = bytes.fromhex(text)
        if len(data) != 2 * CELLS:
            raise ValueError(f"a profile has {2 * CELLS} bytes, not {len(data)}")
        return cls(data[:CELLS], data[CELLS:])


def profile(rgb: np.ndarray) -> Profile:
    """The profile of a picture, uint8 [h, w, 3]; an even one for a picture without contrast."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    soft = picture.filter(ImageFilter.GaussianBlur(1)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    colours = np.asarray(soft, np.float32)
    distance = np.linalg.norm(colours - colours.mean((0, 1)), axis=2)
    down, across = np.gradient(colours.mean(2))
    edges = np.hypot(down, across)
    found = sum((_share(part) for part in (distance, edges)), np.zeros_like(edges))
    return _profile(found)


def with_faces(found: Profile, faces: Sequence[Face], size: tuple[int, int]) -> Profile:
    """The profile of a picture of `size` (width, height), with nearly all of its weight on the faces."""
    sides = []
    for values, length, spans in (
        (found.columns, size[0], [(f.x - f.width / 2, f.x + f.width / 2) for f in faces]),
        (found.rows, size[1], [(f.y - f.height / 2, f.y + f.height / 2) for f in faces]),
    ):
        edges = np.arange(CELLS + 1) * (length / CELLS)
        covered = [np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None) for start, end in spans]
        base = np.frombuffer(values, np.uint8).astype(np.float64)
        sides.append(FACE_SHARE * _share(np.sum(covered, axis=0)) + (1 - FACE_SHARE) * _share(base))
    return Profile(_bytes(sides[0]), _bytes(sides[1]))


def focused(fit: Fit, found: Profile) -> Fit:
    """The fit with its crop where most of the profile is inside and near the crop's middle."""
    sides = zip((found.columns, found.rows), fit.resized, fit.bucket)
    left, top = (best_start(np.frombuffer(v, np.uint8), length, kept) for v, length, kept in sides)
    return fit if (left, top) == fit.crop() else replace(fit, offset=(left, top))


def best_start(values: np.ndarray, length: int, kept: int) -> int:
    """Where a window of `kept` pixels begins in `length` pixels; the middle where nothing is better."""
    middle = (length - kept) // 2
    starts = np.arange(length - kept + 1)
    if len(starts) < 2 or not values.any():
        return middle
    places = (np.arange(length) + 0.5) * (CELLS / length) - 0.5
    weight = np.interp(places, np.arange(CELLS), values.astype(np.float64))
    apart = (np.arange(kept) + 0.5) / kept * 2 - 1
    scores = np.correlate(weight, 1 - apart**2 / 2, "valid") / weight.sum()
    scores -= MIDDLE * np.abs(starts - (length - kept) / 2) / (length - kept)
    return int(starts[scores.argmax()]) if scores.max() > scores[middle] + GAIN else middle


def _share(values: np.ndarray) -> np.ndarray:
    """Values that sum up to 1; all the same where there is nothing."""
    total = float(values.sum())
    even = total <= 0 or (values.ndim == 2 and float(values.max()) < _FLAT)
    return np.full(values.shape, 1 / values.size) if even else values / total


def _profile(found: np.ndarray) -> Profile:
    """[SIDE, SIDE] -> sums over cells."""
    step = SIDE // CELLS
    columns, rows = found.sum(0).reshape(CELLS, step).sum(1), found.sum(1).reshape(CELLS, step).sum(1)
    return Profile(_bytes(columns), _bytes(rows))


def _bytes(values: np.ndarray) -> bytes:
    return np.rint(values / values.max() * 255).astype(np.uint8).tobytes()
