"""Finding the LoRAs that a job names: by file, and by tag in the prompt."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_core.engine.apply import Use
from lora_core.errors import ConfigError
from lora_core.infotext import LoraTag, split_lora_tags
from lora_core.jobs.generate import GenerateJob
from lora_core.lora_file import read_lora
from lora_core.shapes import Architecture
from lora_core.tensors import read_header


@dataclass(frozen=True)
class NamedLora:
    """A LoRA file with its strengths and the name under which pictures mention it."""

    path: Path
    name: str
    strength: float
    text_encoder_strength: float | None


def named_loras(job: GenerateJob) -> tuple[str, tuple[NamedLora, ...]]:
    """The prompt without tags and every LoRA of the job. Raises ConfigError for names and files that are not there."""
    prompt, tags = split_lora_tags(job.prompt)
    found = [NamedLora(Path(u.path), Path(u.path).stem, u.strength, u.text_encoder_strength) for u in job.loras]
    missing = [f"There is no LoRA file {lora.path}." for lora in found if not lora.path.is_file()]
    if missing:
        raise ConfigError(missing)
    files = lora_files(job.lora_dirs) if tags else {}
    found += [NamedLora(_find(tag, files), tag.name, tag.strength, tag.text_encoder_strength) for tag in tags]
    return prompt, tuple(found)


def lora_files(folders: Sequence[str]) -> dict[str, Path]:
    """LoRA files below the folders by file stem; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.safetensors")):
            found.setdefault(path.stem, path)
    return found


def _find(tag: LoraTag, files: dict[str, Path]) -> Path:
    if tag.name in files:
        return files[tag.name]
    for path in files.values():
        if read_header(path).metadata.get("ss_output_name") == tag.name:
            return path
    near = difflib.get_close_matches(tag.name, list(files), n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"{len(files)} LoRAs are in the LoRA folders (lora_dirs)."
    raise ConfigError(f"The prompt names a LoRA {tag.name!r} that is not there. {hint}")


def read_uses(named: Sequence[NamedLora], arch: Architecture) -> list[Use]:
    """The LoRAs' weights. Raises FileError or KeyMismatch."""
    return [
        Use(read_lora(lora.path, arch), lora.strength, lora.text_encoder_strength, lora.path.name) for lora in named
    ]
