"""Captions from a program or a tagging model that the user has. Nothing is downloaded, no caption is overwritten.

The plug point: a command line in which `{picture}` stands for the picture's path; what it prints is the caption. No
shell reads it. Jobs of the hosts cannot name a command, so that nobody can run programs over the network.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_core.caption_edit import MAX_LENGTH, SEPARATOR, caption_rows
from lora_core.captions import one_line
from lora_core.errors import ConfigError, FileError

PLACE = "{picture}"
TAIL = 300
Captioner = Callable[[Path], str]


@dataclass(frozen=True)
class Captioned:
    """A picture, its new caption and the file that it went to; or why there is none."""

    name: str
    caption: str = ""
    path: Path | None = None
    fault: str = ""


def caption_folder(folder: str | Path, captioner: Captioner, front: str = "") -> Iterator[Captioned]:
    """Caption every picture of a folder (and below) that has no caption of any kind, into a new .txt beside it.

    `front` is put in front of each, with a comma. Raises DatasetError for a folder that is none; a picture that cannot
    be captioned or written is told as a fault, and the others go on.
    """
    for row in caption_rows(folder):
        if row.source is not None:
            continue
        try:
            caption = one_line(captioner(row.path)[:MAX_LENGTH], SEPARATOR).strip()
            if not caption:
                raise FileError("nothing was said of it")
            text = f"{front}{SEPARATOR} {caption}" if front else caption
            yield Captioned(row.name, text, written(row.path.with_suffix(".txt"), text))
        except FileError as error:
            yield Captioned(row.name, fault=str(error))


def written(path: Path, text: str) -> Path:
    """A new file; one that is there by now stays. Raises FileError."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise FileError(f"{path.name} cannot be written ({error.strerror or error})") from error
    return path


def by_command(command: str, seconds: float = 300) -> Captioner:
    """A captioner that runs a command for each picture. Raises ConfigError for a command without `{picture}`."""
    try:
        parts = shlex.split(command, posix=os.name != "nt")
    except ValueError as error:
        raise ConfigError(f"The command {command!r} cannot be read: {error}.") from error
    if not parts or not any(PLACE in part for part in parts[1:]):
        raise ConfigError(f"The command {command!r} must name {PLACE}, where the picture's path goes.")

    def captioner(picture: Path) -> str:
        call = [part.replace(PLACE, str(picture)) for part in parts]
        try:
            done = subprocess.run(call, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired as error:
            raise FileError(f"{parts[0]} took longer than {seconds:g} seconds") from error
        except OSError as error:
            raise FileError(f"{parts[0]} cannot be started ({error.strerror or error})") from error
        if done.returncode:
            said = " ".join(done.stderr.decode("utf-8", "replace").split())[-TAIL:]
            raise FileError(f"{parts[0]} ended with {done.returncode}{f': {said}' if said else ''}")
        return done.stdout.decode("utf-8", "replace")

    return captioner
