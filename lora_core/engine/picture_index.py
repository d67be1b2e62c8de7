"""What opening a picture file shows, remembered by content so that a later run decodes nothing."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_core.buckets import Size
from lora_core.errors import FileError
from lora_core.focus import Profile
from lora_core.picture_traits import Traits, traits
from lora_core.pictures import content_hash, decode, read_bytes
from lora_core.whole_files import write_text

Row = tuple[int, int, int, str, str, tuple[float, ...], str]


@dataclass(frozen=True)
class Look:
    """What opening a file showed: content hash, size (width, height) and frames, or the reason why it is no use."""

    content_hash: str = ""
    size: Size = (0, 0)
    frames: int = 1
    reason: str = ""
    traits: Traits | None = None


class PictureIndex:
    """Remembers size, frames and traits of contents that decoded, by content hash, in a JSON file (None: nowhere)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Row] = {}
        self._fresh = False
        try:
            data = json.loads(path.read_text("utf-8")) if path else {}
            self._known = {str(key): checked(row) for key, row in data.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._known = {}

    def look(self, path: Path) -> Look:
        """Open a file, or recognise its content."""
        try:
            data = read_bytes(path)
            mark = content_hash(data)
            if mark in self._known:
                width, height, frames, finger, small, detail, stands_out = self._known[mark]
                known = Traits(int(finger, 16), small, detail, Profile.of_text(stands_out))
                return Look(mark, (width, height), frames, traits=known)
            pixels = decode(data)
        except FileError as error:
            return Look(reason=str(error))
        found = traits(pixels)
        said = (f"{found.fingerprint:x}", found.thumbnail, found.detail, found.profile.text())
        self._known[mark] = (*pixels.size, pixels.frames, *said)
        self._fresh = True
        return Look(mark, pixels.size, pixels.frames, traits=found)

    def save(self) -> None:
        """Write what is new; a folder that cannot be written costs only time."""
        if not self._path or not self._fresh:
            return
        with contextlib.suppress(OSError):
            write_text(self._path, json.dumps(self._known))


def checked(row: Any) -> Row:
    """A row of the file, if it is one. Raises ValueError, TypeError."""
    w, h, n, mark, small, detail, profile = row
    spelled = (
        f"{int(mark, 16):x}",
        bytes.fromhex(small).hex(),
        tuple(map(float, detail)),
        Profile.of_text(profile).text(),
    )
    return int(w), int(h), int(n), *spelled
