"""The demo world: portraits on a 16 x 16 grid, their attributes, and the tags that name them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

WORK = Path("out/demo_base")
CELL = 8
UNSAID = "unsaid"
WORDS: dict[str, dict[str, str]] = {
    "gender": {"boy": "1boy", "girl": "1girl"},
    "length": {"long": "long hair", "short": "short hair"},
    "hair": {c: f"{c} hair" for c in ("black", "brown", "blonde", "red", "green", "blue", "white")},
    "skin": {c: f"{c} skin" for c in ("light", "tan", "dark")},
    "shirt": {c: f"{c} shirt" for c in ("red", "blue", "green", "yellow", "white", "black", "orange")},
    "background": {
        c: f"{c} background" for c in ("white", "grey", "black", "blue", "green", "yellow", "orange", "red")
    },
    "mood": {"smile": "smile", "frown": "frown"},
    "glasses": {"glasses": "glasses", "sunglasses": "sunglasses"},
    "hat": {"yes": "hat"},
    "beard": {"yes": "beard"},
    "earrings": {"yes": "earrings"},
}
SAID_OFTEN = {"hair": 0.85, "skin": 0.85, "background": 0.85, "shirt": 0.8, "gender": 0.9}


def portraits(folder: Path = WORK) -> np.ndarray:
    """All rendered portraits as uint8 [n, 16, 16, 3]."""
    return np.fromfile(folder / "portraits.rgb", dtype=np.uint8).reshape(-1, 16, 16, 3)


def attributes(folder: Path = WORK) -> list[dict[str, str]]:
    """The attributes of each portrait, with "yes" for what is there."""
    rows = [json.loads(line) for line in (folder / "portraits.jsonl").read_text().splitlines()]
    return [{key: "yes" if row[key] is True else row[key] for key in WORDS} for row in rows]


def enlarge(cells: torch.Tensor) -> torch.Tensor:
    """[b, 3, h, w] cells -> [b, 3, 8h, 8w] pixels: one cell is one latent cell."""
    return cells.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)


def to_unit(cells: np.ndarray) -> torch.Tensor:
    """uint8 [b, h, w, 3] -> float [b, 3, h, w] in -1..1."""
    return torch.from_numpy(cells).permute(0, 3, 1, 2).float() / 127.5 - 1


def caption(row: dict[str, str], rng: np.random.Generator, noise_words: list[str]) -> tuple[str, dict[str, str]]:
    """A caption of shuffled tags, and what it says of each attribute (UNSAID where it says nothing).

    Some captions hold a few `noise_words` that mean nothing, so that unknown words are harmless.
    """
    said: dict[str, str] = {}
    tags = ["solo"] if rng.random() < 0.8 else []
    scarce = rng.random() < 0.15
    for name, words in WORDS.items():
        chance = 0.3 if scarce else SAID_OFTEN.get(name, 0.75)
        told = row[name] in words and rng.random() < chance
        said[name] = row[name] if told else UNSAID
        if told:
            tags.append(words[row[name]])
    if rng.random() < 0.35:
        tags += [" ".join(rng.choice(noise_words, rng.integers(1, 4))) for _ in range(rng.integers(1, 3))]
    rng.shuffle(tags)
    return ", ".join(tags), said
