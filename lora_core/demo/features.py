"""What a portrait of the demo world shows, read from its cells: colours by name, and the character's own features.

Pictures are uint8 arrays [h, w, 3]; the artwork's 16 x 16 grid fixes where hair, face and background lie.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

Rgb = tuple[int, int, int]
Cells = tuple[tuple[int, int], ...]

GRID = 16
MAGENTA: Rgb = (255, 20, 160)
PATCH: Rgb = (20, 20, 26)
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ.sum(1)
HAIR: Cells = tuple((2, x) for x in range(4, 12))
FACE: Cells = ((7, 7), (7, 8), *((8, x) for x in range(4, 12)))
BACKGROUND: Cells = ((0, 1), (0, 14), *((y, x) for y in (0, 1, 2, 3, 4, 6, 8, 9, 10) for x in (0, 15)))
COVERED_EYE: Cells = tuple((y, x) for y in (5, 6, 7) for x in (4, 5, 6))
OPEN_EYE: Cells = tuple((y, x) for y in (5, 6) for x in (9, 10, 11))
STRAP: Cells = ((4, 7), (4, 8), (3, 9), (3, 10), (6, 3), (7, 2))


def rgb(code: str) -> Rgb:
    red, green, blue = bytes.fromhex(code)
    return red, green, blue


def _palette() -> dict[str, dict[str, Rgb]]:
    table = json.loads((Path(__file__).parents[1] / "assets" / "demo" / "palette.json").read_text(encoding="utf-8"))
    return {part: {name: rgb(code) for name, code in colours.items()} for part, colours in table.items()}


PALETTE = _palette()
# The artwork lays 10 % white over the face.
FACES: dict[str, Rgb] = {
    name: (round(0.9 * r + 25.5), round(0.9 * g + 25.5), round(0.9 * b + 25.5))
    for name, (r, g, b) in PALETTE["skin"].items()
}


def cells(image: np.ndarray) -> np.ndarray:
    """[16, 16, 3] float: the median colour of the middle of each cell."""
    size = image.shape[0] // GRID
    blocks = image.reshape(GRID, size, GRID, size, 3).transpose(0, 2, 1, 3, 4)  # [16, 16, size, size, 3]
    edge = size // 4
    middle = blocks[:, :, edge : size - edge, edge : size - edge]
    return np.median(middle.reshape(GRID, GRID, -1, 3), axis=2)


def median_colour(image: np.ndarray, where: Cells) -> np.ndarray:
    rows, columns = zip(*where)
    return np.median(cells(image)[rows, columns], axis=0)


def lab(colour: np.ndarray) -> np.ndarray:
    """sRGB 0..255 [3] -> CIELAB (D65), where distances are those that people see (CIE 15:2004)."""
    linear = np.where(colour <= 10.31475, colour / 3294.6, ((colour / 255 + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ linear / WHITE
    fx, fy, fz = (np.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def nearest(colour: np.ndarray, names: dict[str, Rgb]) -> str:
    """The name of the nearest colour as people see it (in RGB a strong orange is nearer to a pale red)."""
    seen = lab(np.asarray(colour, np.float64))
    return min(names, key=lambda name: float(np.square(seen - lab(np.array(names[name], np.float64))).sum()))


def hair_colour(image: np.ndarray) -> str:
    """A name of the palette, or "magenta"."""
    return nearest(median_colour(image, HAIR), PALETTE["hair"] | {"magenta": MAGENTA})


def skin_colour(image: np.ndarray) -> str:
    return nearest(median_colour(image, FACE), FACES)


def background_colour(image: np.ndarray) -> str:
    return nearest(median_colour(image, BACKGROUND), PALETTE["background"])


def has_eye_patch(image: np.ndarray) -> bool:
    """One eye covered by dark cells, the other open (sunglasses darken both)."""
    grid = cells(image).max(axis=2)
    dark = np.mean([grid[spot] < 80 for spot in COVERED_EYE])
    bright = np.mean([grid[spot] > 140 for spot in OPEN_EYE])
    return bool(dark >= 0.75 and bright >= 0.5)


def has_character(image: np.ndarray) -> dict[str, bool]:
    """The character's two own features: magenta hair and the eye patch."""
    return {"hair": hair_colour(image) == "magenta", "eye_patch": has_eye_patch(image)}
