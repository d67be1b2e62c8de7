"""Captions and tags of many pictures in one file, as kohya's fine-tuning scripts write it (meta_cap.json, meta_lat.json
or .jsonl). What such a file says is what sd-scripts' `FineTuningDataset` makes of it: caption, separator, tags.

Only the pictures that the file names are trained on; they are told by path or name, with or without its ending.
"""

from __future__ import annotations

import json
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_core.captions import decode_text
from lora_core.errors import DatasetError

MAX_BYTES = 1 << 30
_DRIVE = re.compile(r"[A-Za-z]:/")


class MetadataFile:
    """The captions of one file. `unused`: entries that no picture asked for. Raises DatasetError when damaged."""

    def __init__(self, path: Path, separator: str = ",", lines: bool = False) -> None:
        self.path = path
        rows = {spelled(key): text_of(row, separator, lines) for key, row in rows_of(path)}
        self.unused = set(rows)
        self._keys = {normal(key): key for key in rows} | {
            normal(stem): key for key in rows for stem in [posixpath.splitext(key)[0]] if stem not in rows
        }
        names = Counter(normal(posixpath.basename(key)) for key in rows)
        self._names = {n: key for key in rows for n in [normal(posixpath.basename(key))] if names[n] == 1}
        self._rows = rows

    def caption(self, picture: Path, root: Path) -> str | None:
        """The caption of a picture below `root`, None when the file does not name it."""
        for name in spellings(picture, root):
            if name in self._keys:
                return self._take(self._keys[name])
        moved = self._names.get(normal(picture.name))
        return self._take(moved) if moved is not None and is_absolute(moved) else None

    def _take(self, key: str) -> str:
        self.unused.discard(key)
        return self._rows[key]


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(picture, its entry) of a .json or .jsonl file. Raises DatasetError that names the file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"The captions file {path} is larger than {MAX_BYTES >> 30} GiB.")
        text, _ = decode_text(path.read_bytes())
        if path.suffix.lower() == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
            pairs = [(row.get("image_path") or row["file_name"], row) for row in found]
        else:
            pairs = list(json.loads(text).items())
    except OSError as error:
        raise DatasetError(f"The captions file {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"The captions file {path} is not as kohya's scripts write it (pictures with caption and tags): {error}."
        ) from error
    for name, row in pairs:
        if not isinstance(row, dict):
            raise DatasetError(f"In the captions file {path}, {name} has no object with caption and tags.")
        yield str(name), row


def text_of(row: dict[str, Any], separator: str, lines: bool) -> str:
    """The caption of an entry: caption, separator, tags; with `lines` the tags follow each line of the caption."""
    caption, tags = str(row.get("caption") or ""), row.get("tags")
    tags = separator.join(map(str, tags)) if isinstance(tags, list) else tags
    if not tags:
        return caption
    if lines and caption.strip():
        one = str(tags).replace("\n", separator)
        return "\n".join(f"{line}{separator}{one}" for line in caption.split("\n") if line.strip())
    return f"{caption}{separator}{tags}" if caption else str(tags)


def spellings(picture: Path, root: Path) -> Iterator[str]:
    """How a file may name a picture, the most exact first."""
    paths = [picture.absolute(), picture.resolve()]
    if picture.is_relative_to(root):
        paths.append(picture.relative_to(root))
    for path in paths:
        yield normal(path.as_posix())
    for path in paths:
        yield normal(path.with_suffix("").as_posix())


def spelled(key: str) -> str:
    """A key with "/" between its parts, without "./" in front."""
    return posixpath.normpath(key.replace("\\", "/"))


def is_absolute(key: str) -> bool:
    return key.startswith("/") or _DRIVE.match(key) is not None


def normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def common_folder(path: Path) -> str:
    """The folder that holds all pictures which the file names by absolute paths; "" where it names none so."""
    keys = [spelled(key) for key, _ in rows_of(path)]
    folders = {posixpath.dirname(key) for key in keys if is_absolute(key)}
    return posixpath.commonpath(sorted(folders)) if folders else ""
