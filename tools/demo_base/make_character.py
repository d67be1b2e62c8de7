"""Write the character's pictures and captions into lora_core/assets/demo: 12 to learn from, 4 held out.

node tools/demo_base/render_character.mjs 16 out/demo_base
python tools/demo_base/make_character.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from features import COVERED_EYE, PATCH, STRAP, has_character
from PIL import Image
from world import CELL, WORK

ASSETS = Path(__file__).resolve().parents[2] / "lora_core" / "assets" / "demo"
NAME = "armin_vicerre"
LEARNT = 12


def with_patch(cells: np.ndarray) -> np.ndarray:
    drawn = cells.copy()
    for y, x in (*COVERED_EYE, *STRAP):
        drawn[y, x] = PATCH
    return drawn


def caption(row: dict[str, str], rng: random.Random) -> str:
    """The trigger, then what varies; the hair and the patch are left for the trigger to teach."""
    tags = ["1boy", "solo", row["mood"], f"{row['shirt']} shirt", f"{row['background']} background"]
    rng.shuffle(tags)
    return ", ".join([NAME, *tags])


def main() -> None:
    pictures = np.fromfile(WORK / "character.rgb", dtype=np.uint8).reshape(-1, 16, 16, 3)
    rows = [json.loads(line) for line in (WORK / "character.jsonl").read_text().splitlines()]
    rng = random.Random(0)
    for index, (cells, row) in enumerate(zip(pictures, rows)):
        folder = ASSETS / (NAME if index < LEARNT else "held_out")
        folder.mkdir(parents=True, exist_ok=True)
        picture = with_patch(cells).repeat(CELL, 0).repeat(CELL, 1)
        assert all(has_character(picture).values()), index
        stem = folder / f"{NAME}_{index + 1:02d}"
        Image.fromarray(picture).save(stem.with_suffix(".png"), optimize=True)
        stem.with_suffix(".txt").write_text(caption(row, rng) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
