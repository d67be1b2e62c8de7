"""Tagging with a local ONNX model of the WD tagger's kind: one probability for each tag of a list."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_core.captioning import Captioner
from lora_core.errors import EngineMissing, FileError
from lora_core.pictures import read_pixels

RATING = "9"
SIDE = 448
FACES = 3  # ">_<", "^_^": tags so short keep their underscore


def by_model(model: str | Path, tags: str | Path, threshold: float = 0.35) -> Captioner:
    """A captioner that names the tags whose probability reaches `threshold`, the likeliest first.

    `tags` is the model's list: selected_tags.csv, or one tag a line. Raises EngineMissing without onnxruntime,
    FileError for files that cannot be read or do not belong together.
    """
    names = tag_names(Path(tags))
    try:
        session: Any = importlib.import_module("onnxruntime").InferenceSession(
            str(model), providers=["CPUExecutionProvider"]
        )
    except ModuleNotFoundError as error:
        raise EngineMissing("A tagging model needs the package onnxruntime: install it, or use --command.") from error
    except Exception as error:  # the runtime's own exceptions share no class
        raise FileError(f"The model {Path(model).name} cannot be opened: {str(error).strip()[:200]}.") from error
    port = session.get_inputs()[0]

    def captioner(picture: Path) -> str:
        values = np.asarray(session.run(None, {port.name: model_input(picture, list(port.shape))})[0], np.float64)[0]
        if len(values) != len(names):
            raise FileError(f"the model knows {len(values)} tags, the list {len(names)}")
        if values.min() < 0 or values.max() > 1:
            values = 1 / (1 + np.exp(-values))
        found = [i for i in np.argsort(-values, kind="stable") if values[i] >= threshold and names[i]]
        return ", ".join(names[i] for i in found)

    return captioner


def tag_names(path: Path) -> list[str]:
    """The tags of a list, "" for those that are no tags (ratings). Raises FileError."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"The list of tags {path} cannot be read: {error}.") from error
    if path.suffix.lower() != ".csv":
        return [spelled(line.strip()) for line in lines if line.strip()]
    rows = list(csv.DictReader(lines))
    if not rows or "name" not in rows[0]:
        raise FileError(f"The list of tags {path.name} has no column called name.")
    return ["" if row.get("category") == RATING else spelled(row["name"] or "") for row in rows]


def spelled(tag: str) -> str:
    return tag.replace("_", " ") if len(tag) > FACES else tag


def model_input(picture: Path, shape: list[Any]) -> np.ndarray:
    """float32 [1, s, s, 3] BGR of 0..255, or [1, 3, s, s] RGB of 0..1, on a white square; the input's shape decides."""
    last = shape[-1] == 3
    side = next((n for n in (shape[1:3] if last else shape[2:]) if isinstance(n, int) and n > 3), SIDE)
    pixels = Image.fromarray(read_pixels(picture).rgb)
    longest = max(pixels.size)
    square = Image.new("RGB", (longest, longest), "white")
    square.paste(pixels, ((longest - pixels.width) // 2, (longest - pixels.height) // 2))
    rgb = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    if last:
        return np.ascontiguousarray(rgb[None, :, :, ::-1])
    return np.ascontiguousarray((rgb / 255).transpose(2, 0, 1)[None])  # hwc -> chw
