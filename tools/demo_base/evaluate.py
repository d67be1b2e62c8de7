"""Does the demo base draw what a prompt names? `python evaluate.py [BASE] [--samples N]`

Draws N pictures whose prompts name hair colour, skin and background (and often more), and prints for each tag how
often the median colour of its cells is nearest to the named one. Writes a grid of the pictures to out/demo_base.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from world import WORDS, WORK

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from features import background_colour, hair_colour, has_eye_patch, skin_colour

from lora_core.engine.models import load_models
from lora_core.engine.sampling import SampleRequest, sample_pictures

READERS = {"hair": hair_colour, "skin": skin_colour, "background": background_colour}
GOAL = 0.9


def prompts(count: int, seed: int) -> list[tuple[str, dict[str, str]]]:
    """Prompts and what each names; every colour comes equally often."""
    draw = random.Random(seed)
    columns = {part: [list(WORDS[part])[i % len(WORDS[part])] for i in range(count)] for part in READERS}
    for column in columns.values():
        draw.shuffle(column)
    return [_prompt({part: columns[part][i] for part in READERS}, draw) for i in range(count)]


def _prompt(named: dict[str, str], draw: random.Random) -> tuple[str, dict[str, str]]:
    tags = ["solo", draw.choice(("1boy", "1girl")), *(WORDS[part][colour] for part, colour in named.items())]
    for part in ("length", "shirt", "mood"):
        if draw.random() < 0.5:
            tags.append(draw.choice(list(WORDS[part].values())))
    draw.shuffle(tags)
    return ", ".join(tags), named


def grid(pictures: list[np.ndarray], columns: int = 16) -> Image.Image:
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures) // columns * columns, columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def report(named: list[dict[str, str]], pictures: list[np.ndarray]) -> None:
    right: dict[str, list[bool]] = defaultdict(list)
    for wanted, picture in zip(named, pictures):
        for part, colour in wanted.items():
            right[WORDS[part][colour]].append(READERS[part](picture) == colour)
    for tag, hits in sorted(right.items(), key=lambda item: item[0].split()[::-1]):
        share = float(np.mean(hits))
        print(f"{tag:18} {sum(hits):4d} of {len(hits):4d}  {share:6.1%}  {'' if share >= GOAL else 'BELOW 90 %'}")
    print(f"all tags {np.mean([hit for hits in right.values() for hit in hits]):.1%}")
    patched = [hair_colour(p) == "magenta" or has_eye_patch(p) for p in pictures]
    print(f"magenta hair or an eye patch, never asked for: {sum(patched)} of {len(patched)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, nargs="?", default=WORK / "demo_base.safetensors")
    parser.add_argument("--samples", type=int, default=512, help="512 give 64 for each background, more for the others")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--grid", type=Path, default=WORK / "evaluate.png")
    options = parser.parse_args()
    options.grid.parent.mkdir(parents=True, exist_ok=True)
    wanted = prompts(options.samples, 0)
    request = SampleRequest(
        prompts=tuple(text for text, _ in wanted), seeds=tuple(range(len(wanted))), width=128, height=128,
        steps=options.steps, cfg=options.cfg, batch_size=32,
    )  # fmt: skip
    models = load_models(options.base, torch.float32, "cpu")
    pictures = [np.asarray(picture) for picture in sample_pictures(models, request)]
    report([named for _, named in wanted], pictures)
    grid(pictures[:128]).save(options.grid)


if __name__ == "__main__":
    main()
