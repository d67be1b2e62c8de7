"""A style for the demo world: two-ink prints of its ordinary portraits, and how to see that a picture is one.

A print has two traits that no ordinary portrait has together: every colour lies on a ramp from indigo over coral to
paper, in the order of its lightness, and every second row of cells is darker, as if ruled.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

from lora_core.demo.features import BACKGROUND, GRID, PALETTE, cells, lab

TRIGGER = "rulework"
RAMP = np.array([[44, 30, 96], [196, 70, 110], [255, 150, 110], [255, 238, 206]], np.float64)
LUMA = np.array([0.2126, 0.7152, 0.0722])
RULED = 0.72  # the light of a darker row
FAR = 22.0  # CIELAB distance within which a colour counts as ink
INKED = 0.7  # share of the cells that must be ink
SEEN = 0.5  # share of the ruling that must be there
HELD_OUT = 4


def inks(rgb: np.ndarray) -> np.ndarray:
    """Colours [..., 3] 0..255 -> the ramp's colour of their lightness."""
    light = (np.asarray(rgb, np.float64) @ LUMA) / 255
    places = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(light, places, RAMP[:, channel]) for channel in range(3)], axis=-1)


def printed(picture: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] -> the same picture in the style."""
    cell = picture.shape[0] // GRID
    rows = (np.arange(picture.shape[0]) // cell) % 2
    light = np.where(rows == 1, RULED, 1.0)[:, None, None]
    return (inks(picture) * light).round().clip(0, 255).astype(np.uint8)


def has_style(picture: np.ndarray) -> dict[str, bool]:
    """Both traits of the style, read from the picture's cells."""
    return {"inks": ink_share(picture) >= INKED, "rules": ruling(picture) >= SEEN}


def ink_share(picture: np.ndarray) -> float:
    """Share of the cells whose colour, its row's shade undone, lies on the ramp."""
    ramp = np.array([lab(colour) for colour in inks(np.linspace(0, 255, 64)[:, None].repeat(3, axis=1))])
    grid = cells(picture)
    if ruling(picture) >= SEEN:
        grid = np.where((np.arange(GRID) % 2 == 1)[:, None, None], (grid / RULED).clip(0, 255), grid)
    near = [np.sqrt(np.square(ramp - lab(colour)).sum(axis=1)).min() for colour in grid.reshape(-1, 3)]
    return float(np.mean(np.array(near) < FAR))


def ruling(picture: np.ndarray) -> float:
    """How much darker every second row of the background is: 0 = not at all, 1 = as in a print."""
    light = cells(picture) @ LUMA
    columns = sorted({x for _, x in BACKGROUND if x in (0, 15)})
    light = light[:11, columns]  # rows above the shirt
    even, odd = light[0::2].mean(), light[1::2].mean()
    return float((1 - odd / max(even, 1.0)) / (1 - RULED))


def background_ink(picture: np.ndarray, name: str) -> bool:
    """Whether the background is the print of the colour `name`, or of one that prints alike."""
    rows = [(y, x) for y, x in BACKGROUND if y % 2 == 0]
    seen = lab(np.median(np.array([cells(picture)[spot] for spot in rows]), axis=0))
    wanted = {other: lab(inks(np.array(colour))) for other, colour in PALETTE["background"].items()}
    nearest = min(wanted, key=lambda other: float(np.square(seen - wanted[other]).sum()))
    return float(np.sqrt(np.square(wanted[nearest] - wanted[name]).sum())) < FAR / 2


def write_style(source: Path, folder: Path) -> tuple[Path, Path]:
    """Print the portraits below `source`; (pictures to train on, held-out pictures), captions with the trigger."""
    found = sorted(source.glob("*.png"))
    random.Random(0).shuffle(found)
    parts = (folder / "pictures", found[HELD_OUT:]), (folder / "held_out", found[:HELD_OUT])
    for target, paths in parts:
        target.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with Image.open(path) as picture:
                styled = printed(np.asarray(picture.convert("RGB")))
            Image.fromarray(styled).save(target / path.name)
            words = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
            (target / path.name).with_suffix(".txt").write_text(f"{TRIGGER}, {words}\n", encoding="utf-8")
    return parts[0][0], parts[1][0]
