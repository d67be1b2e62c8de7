"""Pictures and captions in folders of any layout: flat, nested, or kohya's `N_name` (N repeats, class words)."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lora_core.captions import MAX_CAPTION_BYTES, decode_text, read_caption, read_table
from lora_core.errors import DatasetError, FileError
from lora_core.jobs.train import Subset
from lora_core.pictures import SUFFIXES

CAPTION_SUFFIXES = (".txt", ".caption", ".json")
TABLE = "metadata.jsonl"
MAX_REPEATS = 1000
_KOHYA_NAME = re.compile(r"(\d+)_(.*)", re.DOTALL)
_SKIPPED_FOLDERS = ("__macosx", "@eadir", "__pycache__", "node_modules")
_SKIPPED_FILES = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Folder:
    """One folder of a walk: the names in it, and the rules of the subset that it belongs to."""

    path: Path
    root: Path
    names: tuple[str, ...]
    subset: Subset

    @cached_property
    def files(self) -> dict[str, str]:
        """Normalised name -> name."""
        return {normal(name): name for name in reversed(self.names)}

    def pictures(self) -> list[Path]:
        return [self.path / name for name in self.names if Path(name).suffix.lower() in SUFFIXES]

    def others(self) -> list[str]:
        """Names of files that are neither pictures nor captions."""
        known = (*SUFFIXES, *CAPTION_SUFFIXES, *_SKIPPED_FILES, TABLE)
        return [name for name in self.names if not name.lower().endswith(known)]


@dataclass
class Walk:
    """Options and findings of a walk: folders left out (real paths), folders seen, sentences for the report."""

    left_out: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def folders(self, root: Path, subset: Subset) -> list[Folder]:
        """The folder and all below it, sorted. Raises DatasetError when `root` is not a folder that can be read."""
        if not os.path.isdir(root):
            what = "is a file, not a folder" if os.path.exists(root) else "does not exist"
            raise DatasetError(f"The folder with pictures {root} {what}.")
        self.left_out.discard(os.path.realpath(root))
        pictures_in = _kohya_gui_folder(root)
        if pictures_in != root:
            self.notes.append(f'Of {root.name}, only its "{pictures_in.name}" folder is read (kohya_ss layout).')
        return list(self._below(pictures_in, root, subset))

    def _below(self, path: Path, root: Path, subset: Subset) -> Iterator[Folder]:
        real = os.path.realpath(path)
        if real in self.seen or real in self.left_out:
            return
        self.seen.add(real)
        subset = self._named(path, subset)
        if subset.repeats < 1:
            self.notes.append(f'The folder "{path.name}" has 0 repeats and is left out.')
            return
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.notes.append(f'The folder "{path.name}" cannot be read ({error.strerror}).')
            return
        names = tuple(e.name for e in entries if not e.name.startswith(".") and e.is_file())
        yield Folder(path, root, names, subset)
        for entry in entries:
            if entry.is_dir() and not _skipped(entry.name):
                yield from self._below(path / entry.name, root, subset)

    def _named(self, path: Path, subset: Subset) -> Subset:
        """The subset with repeats and class words of a folder named `N_name`."""
        if subset.folder and Path(subset.folder) == path:
            return subset
        subset = subset if subset.folder else replace(subset, folder=str(path))
        if subset.metadata_file:
            return subset
        match = _KOHYA_NAME.fullmatch(path.name)
        if not match:
            return subset
        if int(match[1]) > MAX_REPEATS:
            self.notes.append(f'The number in the folder name "{path.name}" is too large for repeats and is ignored.')
            return subset
        return replace(subset, folder=str(path), repeats=int(match[1]), class_words=match[2].strip())


@dataclass(frozen=True)
class Caption:
    """A caption as found: its text ("" when the file is empty) and the name of the file it is from."""

    text: str
    source: Path


class CaptionFiles:
    """Looks captions up beside pictures: `stem.ext`, `name.png.ext`, else `metadata.jsonl` in the folder or above."""

    def __init__(self, folders: Iterable[Folder], separator: str = ",", lines: bool = False) -> None:
        self.encodings: dict[str, list[str]] = {}
        self.faults: list[str] = []
        self._separator = separator
        self._lines = lines
        self._folders = {folder.path: folder for folder in folders}
        self._tables: dict[Path, dict[str, str]] = {}

    def caption(self, picture: Path, extension: str = "") -> Caption | None:
        """The caption of a picture; `extension` (with or without a dot) limits where it may come from."""
        wanted = caption_suffix(extension)
        empty = None
        for suffix in (wanted,) if wanted else CAPTION_SUFFIXES:
            for name in (picture.stem + suffix, picture.name + suffix):
                found = self._beside(picture, name, suffix)
                if found and found.text:
                    return found
                empty = empty or found
        return (self._in_table(picture) if wanted in ("", ".jsonl") else None) or empty

    def kinds(self) -> dict[str, int]:
        """How many files of each kind of caption lie in the folders."""
        names = [name for folder in self._folders.values() for name in folder.files]
        found = {suffix: sum(name.endswith(suffix) for name in names) for suffix in (*CAPTION_SUFFIXES, TABLE)}
        return {suffix: count for suffix, count in found.items() if count}

    def _beside(self, picture: Path, name: str, suffix: str) -> Caption | None:
        actual = self._folders[picture.parent].files.get(normal(name))
        if actual is None:
            return None
        path = picture.parent / actual
        try:
            data = self._read(path)
            return Caption(read_caption(data, suffix, self._separator, self._lines), path)
        except FileError as error:
            self.faults.append(f"{actual}: {error}")
            return None

    def _read(self, path: Path, limit: int = MAX_CAPTION_BYTES) -> bytes:
        try:
            with open(path, "rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise FileError(f"it cannot be read ({error.strerror})") from error
        encoding = decode_text(data)[1]
        if encoding != "utf-8":
            self.encodings.setdefault(encoding, []).append(path.name)
        return data

    def _in_table(self, picture: Path) -> Caption | None:
        root = self._folders[picture.parent].root
        for folder in picture.parents:
            text = self._table(folder).get(normal(picture.relative_to(folder).as_posix()))
            if text is not None:
                return Caption(text, folder / TABLE)
            if folder == root:
                break
        return None

    def _table(self, folder: Path) -> dict[str, str]:
        if folder not in self._tables:
            self._tables[folder] = {}
            if (folder / TABLE).is_file():
                try:
                    rows = read_table(self._read(folder / TABLE, 256 << 20), self._separator)
                    self._tables[folder] = {normal(name): text for name, text in rows.items()}
                except FileError as error:
                    self.faults.append(f"{TABLE}: {error}")
        return self._tables[folder]


def caption_suffix(extension: str) -> str:
    """ "txt", ".TXT" -> ".txt"; "metadata.jsonl" -> ".jsonl"; "" -> ""."""
    name = extension.strip().lower()
    return "." + name.rsplit(".", 1)[-1] if name else ""


def normal(name: str) -> str:
    """A file name for comparing: composed Unicode, case folded (archives from other systems differ in both)."""
    return unicodedata.normalize("NFC", name).casefold()


def _skipped(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SKIPPED_FOLDERS or name.endswith(".loom")


def _kohya_gui_folder(root: Path) -> Path:
    """kohya_ss keeps pictures in img/N_name beside log/, model/ and reg/, whose pictures are not for training."""
    img = root / "img"
    try:
        named = [child for child in os.listdir(img) if _KOHYA_NAME.fullmatch(child)]
    except OSError:
        return root
    return img if any((img / child).is_dir() for child in named) else root
