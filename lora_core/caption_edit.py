"""Captions as a person edits them: every picture of a folder with its text, and writing a text back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_core.captions import one_line
from lora_core.errors import ConfigError, DatasetError
from lora_core.folders import CaptionFiles, Walk
from lora_core.jobs.train import Subset
from lora_core.whole_files import write_text

MAX_LENGTH = 10_000
SEPARATOR = ","


@dataclass(frozen=True)
class CaptionRow:
    """A picture by its name relative to the folder, its caption ("" for none) and the file that it is from."""

    name: str
    path: Path
    caption: str
    source: Path | None


def caption_rows(folder: str | Path) -> list[CaptionRow]:
    """All pictures of the folder and below, in a training's order. Raises DatasetError."""
    folders = Walk().folders(Path(folder), Subset(""))
    captions = CaptionFiles(folders)
    rows: list[CaptionRow] = []
    for each in folders:
        for path in each.pictures():
            found = captions.caption(path)
            name = path.relative_to(folder).as_posix()
            rows.append(CaptionRow(name, path, found.text if found else "", found.source if found else None))
    return rows


def write_captions(folder: str | Path, texts: Mapping[str, str]) -> list[Path]:
    """Write captions as UTF-8 .txt beside their pictures; texts that did not change are left alone.

    Raises ConfigError for a name that is no picture of the folder (then nothing is written), DatasetError for a file
    that cannot be written.
    """
    rows = {row.name: row for row in caption_rows(folder)}
    strange = sorted(texts.keys() - rows.keys())
    if strange:
        raise ConfigError(f"There is no picture {strange[0]} in {folder}: look at the folder again.")
    cleaned = {name: one_line(text[:MAX_LENGTH], SEPARATOR) for name, text in texts.items()}
    changed = sorted(name for name, text in cleaned.items() if text != rows[name].caption)
    return [_write(target(rows[name]), cleaned[name]) for name in changed]


def target(row: CaptionRow) -> Path:
    """The .txt that the caption is from, else a new one named after the picture."""
    if row.source is not None and row.source.suffix.lower() == ".txt":
        return row.source
    return row.path.with_suffix(".txt")


def _write(path: Path, text: str) -> Path:
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise DatasetError(f"The caption {path} cannot be written: {error.strerror or error}.") from error
    return path
