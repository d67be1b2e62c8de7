"""The captions files of a dataset's folders, and what is said about pictures and entries that do not meet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_core.engine.dataset_report import shown
from lora_core.engine.loading import File
from lora_core.errors import DatasetError
from lora_core.folders import Caption
from lora_core.metadata_file import MetadataFile


class MetadataFiles:
    """Reads each captions file once. `left_out`: pictures that their file does not name."""

    def __init__(self, separator: str, lines: bool) -> None:
        self._rules = separator, lines
        self._files: dict[str, MetadataFile] = {}
        self.left_out: dict[str, list[str]] = {}

    def caption(self, file: str, picture: Path, root: Path, name: str) -> Caption | None:
        """The caption of a picture; None, and a note, for one that is not in the file. Raises DatasetError."""
        if file not in self._files:
            self._files[file] = MetadataFile(Path(file), *self._rules)
        text = self._files[file].caption(picture, root)
        if text is None:
            self.left_out.setdefault(file, []).append(name)
            return None
        return Caption(text, Path(file))

    def require_pictures(self, files: Sequence[File]) -> None:
        """Raises DatasetError for a captions file that names none of the pictures."""
        used = {file.subset.metadata_file for file in files}
        for path, table in self._files.items():
            if path not in used:
                example = next(iter(sorted(table.unused)), "nothing")
                raise DatasetError(
                    f"The captions file {path} names none of the {len(self.left_out[path])} pictures found; it names "
                    f"{example}. Its names must be those of the pictures, as paths or below the folder of pictures."
                )

    def notes(self) -> list[str]:
        """Sentences for the report."""
        found = []
        for path, table in self._files.items():
            name, left_out = Path(path).name, self.left_out.get(path, [])
            if left_out:
                found.append(f"Not in {name}, so not trained on: {shown(left_out)}.")
            if table.unused:
                found.append(f"In {name} are pictures that were not found: {shown(sorted(table.unused))}.")
        return found
