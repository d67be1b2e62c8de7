"""What a picture's pixels tell without a model: a fingerprint for copies, and whether fine detail is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from lora_core.focus import Profile, profile
from lora_core.pictures import Pixels

WINDOW = 1024
NEAR = 4
NEAR_COLOUR = 10.0
SOFT = 0.035
BANDS, WAVES, JUDGED = 7, 6, 3
ABOVE_ROUNDING = 50.0


@dataclass(frozen=True)
class Traits:
    """`fingerprint`: 64 bits, whether each of 8 x 8 cells is darker than its right neighbour (difference hash).

    `thumbnail`: 8 x 8 cells, three bytes each, in hexadecimal.

    `detail`: the strength of waves over that of waves twice as long, from waves of two pixels on: 0.04 to 0.4 in
    photographs and drawings; below 0.035 where a blur or an enlargement took the finer waves away.

    `profile`: where something stands out.
    """

    fingerprint: int
    thumbnail: str
    detail: tuple[float, ...]
    profile: Profile

    def is_soft(self, scale: float = 1.0) -> bool:
        """Whether fine detail is missing in the picture at `scale` times its size."""
        gone = max(0, math.ceil(-math.log2(scale) - 0.25))  # octaves that making it smaller takes away
        return min(self.detail[gone : gone + JUDGED], default=1.0) < SOFT


def traits(pixels: Pixels) -> Traits:
    """The traits of a decoded picture."""
    picture = Image.fromarray(pixels.rgb)
    grey, small = picture.convert("L"), picture.resize((8, 8), Image.Resampling.BOX)
    fine = detail(np.asarray(grey, np.float32))
    return Traits(fingerprint(grey), small.tobytes().hex(), fine, profile(pixels.rgb))


def fingerprint(grey: Image.Image) -> int:
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def detail(grey: np.ndarray) -> tuple[float, ...]:
    """Ratios of each octave's mean power to that of the octave below, from the finest on.

    1 where the octave below is hardly more than the rounding of the numbers; none for octaves of a few waves.
    """
    height, width = grey.shape
    side = min(height, width, WINDOW) // 2 * 2
    if side < 16:
        return ()
    top, left = (height - side) // 2, (width - side) // 2
    cut = grey[top : top + side, left : left + side]
    window = np.hanning(side).astype(np.float32)
    power = np.abs(np.fft.rfft2((cut - cut.mean()) * window[:, None] * window)) ** 2
    wave = np.hypot(np.fft.fftfreq(side)[:, None] * 2, np.fft.rfftfreq(side)[None] * 2)
    bands = [n for n in range(1, BANDS + 1) if 0.5**n * side / 2 >= WAVES]
    octaves = [power[(wave >= 0.5**n) & (wave < 0.5 ** (n - 1))].mean() for n in bands]
    least = ABOVE_ROUNDING / 12 * float((window**2).sum()) ** 2
    return tuple(round(float(fine / coarse), 4) if coarse > least else 1.0 for fine, coarse in pairwise(octaves))


def alike(one: Traits, other: Traits) -> bool:
    """Whether two pictures are the same but for a few per cent of brightness, size or compression."""
    if (one.fingerprint ^ other.fingerprint).bit_count() > NEAR:
        return False
    small = [np.frombuffer(bytes.fromhex(t.thumbnail), np.uint8).astype(np.int16) for t in (one, other)]
    return float(np.abs(small[0] - small[1]).mean()) < NEAR_COLOUR


def near_copies(pictures: Sequence[Traits]) -> list[list[int]]:
    """Groups of places whose pictures are alike, each with at least two."""
    parent = list(range(len(pictures)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    values = np.array([one.fingerprint for one in pictures], np.uint64)
    for i in range(len(values)):
        apart = np.unpackbits((values[i + 1 :] ^ values[i]).view(np.uint8).reshape(-1, 8), axis=1).sum(1)
        for j in (i + 1 + np.nonzero(apart <= NEAR)[0]).tolist():
            if alike(pictures[i], pictures[j]):
                parent[root(j)] = root(i)
    groups: dict[int, list[int]] = {}
    for i in range(len(values)):
        groups.setdefault(root(i), []).append(i)
    return [group for group in groups.values() if len(group) > 1]
