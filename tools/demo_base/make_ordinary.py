"""Write ordinary portraits and captions into lora_core/assets/demo/ordinary, which the demo trains on as well.

They tell the LoRA that only the trigger brings the character (DreamBooth's regularisation pictures).

    node tools/demo_base/render.mjs 12000 out/demo_base
    python tools/demo_base/make_ordinary.py
"""

from __future__ import annotations

import random

import numpy as np
from make_character import ASSETS
from PIL import Image
from world import CELL, WORDS, attributes, portraits

COUNT = 24


def caption(row: dict[str, str], rng: random.Random) -> str:
    """Everything that the world has a word for."""
    tags = ["solo", *(words[row[part]] for part, words in WORDS.items() if row[part] in words)]
    rng.shuffle(tags)
    return ", ".join(tags)


def main() -> None:
    pictures, rows = portraits(), attributes()
    rng = random.Random(0)
    folder = ASSETS / "ordinary"
    folder.mkdir(parents=True, exist_ok=True)
    for number, index in enumerate(rng.sample(range(len(rows)), COUNT), 1):
        stem = folder / f"ordinary_{number:02d}"
        enlarged = np.asarray(pictures[index]).repeat(CELL, 0).repeat(CELL, 1)
        Image.fromarray(enlarged).save(stem.with_suffix(".png"), optimize=True)
        stem.with_suffix(".txt").write_text(caption(rows[index], rng) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
