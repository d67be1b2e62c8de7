"""The saves of a training: which LoRA files belong together, and in which order they were made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lora_core.errors import ConfigError, FileError
from lora_core.keep_one import step_of
from lora_core.tensors import read_header

_NUMBERED = re.compile(r"(.+)-(\d{3,})")


@dataclass(frozen=True)
class Save:
    """A LoRA file; `step` from its metadata, else from its name, else its place. `trigger` from its metadata."""

    path: Path
    step: int
    trigger: str = ""

    @property
    def label(self) -> str:
        return f"{self.path.stem} ({self.step} steps)" if self.step else self.path.stem


def find_saves(files: Iterable[str], folder: str = "", name: str = "") -> tuple[Save, ...]:
    """The named files and those of a folder (with `name`: name.safetensors and name-000123.safetensors), by step.

    Raises ConfigError for files that are not there, and where there are none; FileError for one that is no LoRA.
    """
    paths = [Path(file) for file in files]
    missing = [f"There is no LoRA file {path}." for path in paths if not path.is_file()]
    if folder and not Path(folder).is_dir():
        missing.append(f"There is no folder {folder}.")
    if missing:
        raise ConfigError(missing)
    if folder:
        paths += [p for p in sorted(Path(folder).glob("*.safetensors")) if not name or step_of(p, name) is not None]
    if not paths:
        raise ConfigError(f"No LoRA {f'named {name} ' if name else ''}lies in {folder}.")
    unique = list({path.resolve(): path for path in paths}.values())
    return tuple(sorted((_save(path, i) for i, path in enumerate(unique, 1)), key=lambda s: (s.step, s.path.stem)))


def _save(path: Path, place: int) -> Save:
    header = read_header(path)
    if not any("lora" in key or key.endswith((".alpha", "hada_w1_a", "lokr_w1")) for key in header.tensors):
        raise FileError(f"{path.name} is no LoRA.")
    told = header.metadata.get("ss_steps", "")
    match = _NUMBERED.fullmatch(path.stem)
    step = int(told) if told.isdigit() else int(match[2]) if match else place
    return Save(path, step, header.metadata.get("modelspec.trigger_phrase", ""))
