"""After a choice between the saves of a training: keep one in the host's list, put the others away (never deleted)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lora_core.errors import FileError

BESIDE = (".json", ".png", ".preview.png", ".jpg", ".txt", ".civitai.info")


def saves_of(folder: str | Path, name: str) -> list[Path]:
    """name.safetensors and name-000123.safetensors of a folder, by step, the final one last."""
    found = [p for p in Path(folder).glob("*.safetensors") if step_of(p, name) is not None]
    return sorted(found, key=lambda p: step_of(p, name) or float("inf"))


def step_of(path: Path, name: str) -> int | None:
    """The step in a save's name, 0 for the final one, None for another training's file."""
    if path.stem == name:
        return 0
    head, dash, digits = path.stem.rpartition("-")
    return int(digits) if dash and head == name and len(digits) >= 6 and digits.isdigit() else None


def keep_one(chosen: str | Path, others: Sequence[str | Path], away: str | Path) -> list[Path]:
    """Move the other saves, with what lies beside them, into `away`; their new places.

    Raises FileError, before anything is moved, when the chosen one is not there; or for a file that cannot be moved.
    """
    if not Path(chosen).is_file():
        raise FileError(f"{Path(chosen).name} is not there any more: nothing was put away.")
    target = Path(away)
    moved: list[Path] = []
    for other in map(Path, others):
        if other.exists() and not os.path.samefile(other, chosen):
            for path in [other, *(b for e in BESIDE if (b := other.with_name(other.stem + e)).is_file())]:
                moved.append(_moved(path, target))
    return moved


def _moved(path: Path, target: Path) -> Path:
    place = target / path.name
    number = 1
    while place.exists():
        number += 1
        place = target / f"{path.stem}-{number}{path.suffix}"
    try:
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)
    except OSError as error:
        raise FileError(f"{path.name} cannot be moved to {target}: {error.strerror or error}.") from error
    return place
