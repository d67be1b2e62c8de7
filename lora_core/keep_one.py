"""After a choice between the saves of a training: keep one in the host's list, put the others away (never deleted)."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from lora_core.errors import FileError
from lora_core.tensors import read_header

BESIDE = (".json", ".png", ".preview.png", ".jpg", ".txt", ".civitai.info")


def saves_of(folder: str | Path, name: str, files: Sequence[str], ended: float | None = None) -> list[Path]:
    """The LoRA files that one training has in its folder, by step, the final one last; those of others never.

    `files`: what the training is known to have written; what began after `ended` (seconds since 1970) has taken the
    place of such a file. Files without a mark of their training (minimal metadata) count only if they are among them.
    """
    limit = math.inf if ended is None else ended
    known = [path for path in map(Path, files) if path.is_file() and begun(path) <= limit]
    training = next(filter(None, map(training_of, reversed(known))), "")
    every = Path(folder).glob("*.safetensors") if training else (p for p in known if p.parent == Path(folder))
    found: dict[int, tuple[int, Path]] = {}
    for path in every:
        place = place_of(path, name)
        if place and training_of(path) == training and place[1] < found.get(place[0], (math.inf, path))[0]:
            found[place[0]] = place[1], path
    return [found[step][1] for step in sorted(found, key=lambda step: step or math.inf)]


def saves_with(path: Path) -> list[Path]:
    """A save and the others of its training beside it, by step, the final one last; itself alone where none is told."""
    names = {re.sub(pattern, "", path.stem) for pattern in (r"-\d{6,}$", r"(-\d{6,})?(-\d{1,4})?$")}
    found = max((saves_of(path.parent, name, [str(path)]) for name in sorted(names)), key=len)
    return found or [path]


def place_of(path: Path, name: str) -> tuple[int, int] | None:
    """Step (0 for the final one) and number (2 and more where the name was taken) of a save: name-000123-2.

    None for another training's file.
    """
    found = re.fullmatch(rf"{re.escape(name)}(?:-(\d{{6,}}))?(?:-([2-9]|[1-9]\d{{1,3}}))?", path.stem)
    return (int(found[1] or 0), int(found[2] or 1)) if found else None


def step_of(path: Path, name: str) -> int | None:
    """The step in a save's name, 0 for the final one, None for another training's file."""
    place = place_of(path, name)
    return place[0] if place and place[1] == 1 else None


def training_of(path: Path) -> str:
    """What marks the training of a LoRA file: its session's number, or its start; "" where it does not say."""
    told = told_by(path)
    return told.get("ss_session_id") or told.get("ss_training_started_at", "")


def begun(path: Path) -> float:
    """When the training of a file began, else when the file was made, in seconds since 1970; 0 where it is not said."""
    told = told_by(path)
    with contextlib.suppress(ValueError):
        return float(told.get("ss_training_started_at", ""))
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.datetime.fromisoformat(told.get("modelspec.date", "")).timestamp()
    return 0.0


def told_by(path: Path) -> dict[str, str]:
    with contextlib.suppress(FileError):
        return dict(read_header(path).metadata)
    return {}


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
