"""Pictures and captions that a person dropped into a page, kept in a folder of their own."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from lora_core.errors import DatasetError
from lora_core.folders import CAPTION_SUFFIXES, TABLE
from lora_core.pictures import SUFFIXES

MAX_FILES = 5000
LONGEST = 120
_BAD = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def keep_uploads(files: Sequence[str | Path], folder: str | Path) -> list[Path]:
    """Copy pictures and captions into the folder, which is made; a picture and its caption keep a common stem.

    The same content under the same name is kept once; another content under it gets a number. Files of other kinds are
    left out. Raises DatasetError when none is left, there are too many, or the folder cannot be written.
    """
    if len(files) > MAX_FILES:
        raise DatasetError(f"{len(files)} files at once are too many: put them into a folder and name it instead.")
    wanted = [Path(file) for file in files if is_wanted(Path(file))]
    if not any(path.suffix.lower() in SUFFIXES for path in wanted):
        raise DatasetError("There is no picture among these files: drop .png, .jpg or .webp files.")
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        return [
            _copied(path, free_stem(target, group) + path.suffix, target) for group in by_stem(wanted) for path in group
        ]
    except OSError as error:
        raise DatasetError(f"The pictures cannot be kept in {target}: {error.strerror or error}.") from error


def is_wanted(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or path.suffix.lower() in CAPTION_SUFFIXES or path.name == TABLE


def by_stem(paths: Iterable[Path]) -> list[list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.stem, []).append(path)
    return list(groups.values())


def free_stem(target: Path, group: Sequence[Path]) -> str:
    """A stem under which every file of the group is new to the folder or already there with the same content."""
    stem = _BAD.sub("_", group[0].stem).strip(". ")[:LONGEST] or "picture"
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        places = [(path, target / f"{name}{path.suffix}") for path in group]
        if all(not place.exists() or filecmp.cmp(path, place, shallow=False) for path, place in places):
            return name
        number += 1


def _copied(path: Path, name: str, target: Path) -> Path:
    place = target / name
    if not place.exists():
        shutil.copyfile(path, place)
    return place
