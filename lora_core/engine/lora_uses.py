"""Finding the LoRAs and embeddings that a job names, and merging the LoRAs as the host does."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lora_core.block_weights import parse_blocks
from lora_core.embeddings import Embedding, EmbeddingFolders, bundled_embeddings
from lora_core.engine.apply import Use, apply_loras
from lora_core.engine.models import Models
from lora_core.engine.other_networks import OtherNetwork, read_any
from lora_core.errors import ConfigError
from lora_core.jobs.generate import GenerateJob
from lora_core.lora import Lora, LoraModule
from lora_core.lora_tags import LoraTag, split_lora_tags, without_other_tags
from lora_core.prompt_a1111 import without_comments
from lora_core.shapes import Architecture
from lora_core.tensors import read_header


@dataclass(frozen=True)
class NamedLora:
    """A LoRA file with its strengths and the name under which pictures mention it; see LoraTag for the rest."""

    path: Path
    name: str
    strength: float
    text_encoder_strength: float | None
    blocks: str = ""
    rank: int | None = None


def named_loras(job: GenerateJob) -> tuple[str, tuple[NamedLora, ...]]:
    """The prompt without tags and every LoRA of the job. Raises ConfigError for names and files that are not there."""
    like_a1111 = job.arithmetic == "a1111"
    prompt, tags = split_lora_tags(without_comments(job.prompt) if like_a1111 else job.prompt)
    if like_a1111:
        prompt, tags = without_other_tags(prompt), _last_strengths(tags)
    found = [
        NamedLora(Path(u.path), Path(u.path).stem, u.strength, u.text_encoder_strength, u.blocks) for u in job.loras
    ]
    missing = [f"There is no LoRA file {lora.path}." for lora in found if not lora.path.is_file()]
    if missing:
        raise ConfigError(missing)
    files = lora_files(job.lora_dirs) if tags else {}
    for tag in tags:
        path = _find(tag, files)
        found.append(NamedLora(path, tag.name, tag.strength, tag.text_encoder_strength, tag.blocks, tag.rank))
    return prompt, tuple(found)


def _last_strengths(tags: Sequence[LoraTag]) -> tuple[LoraTag, ...]:
    """A1111 gives a LoRA that is named several times the strengths of its last tag, each time."""
    last = {tag.name: tag for tag in tags}
    return tuple(last[tag.name] for tag in tags)


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
    hint = f"Did you mean {' or '.join(near)}?" if near else f"LoRAs in the LoRA folders (lora_dirs): {len(files)}."
    raise ConfigError(f"The prompt names a LoRA {tag.name!r} that is not there. {hint}")


def read_uses(named: Sequence[NamedLora], arch: Architecture) -> list[Use]:
    """The LoRAs' weights. Raises FileError, KeyMismatch, or ConfigError for block weights that cannot be read."""
    uses: list[Use] = []
    for lora in named:
        blocks = parse_blocks(lora.blocks, arch.family) if lora.blocks else None
        read = first_ranks(read_any(lora.path, arch), lora.rank)
        uses.append(Use(read, lora.strength, lora.text_encoder_strength, lora.path.name, blocks))
    return uses


def first_ranks(lora: Lora | OtherNetwork, rank: int | None) -> Lora | OtherNetwork:
    """The LoRA with only its first ranks, scaled as before; A1111 does so for "dyn", but not in Tucker form."""
    if rank is None or isinstance(lora, OtherNetwork):
        return lora
    return replace(lora, modules={name: _first(module, rank) for name, module in lora.modules.items()})


def _first(module: LoraModule, rank: int) -> LoraModule:
    if module.mid is not None or rank >= module.rank:
        return module
    if rank < 1:
        raise ConfigError(f"A LoRA cannot be cut to rank {rank}: dyn is at least 1.")
    return LoraModule(module.down[:rank], module.up[:, :rank], module.scale * rank)


def merge_loras(models: Models, named: Sequence[NamedLora], arithmetic: str) -> None:
    """Merge the LoRAs for good. ComfyUI keeps text encoders in half precision, before and after merging."""
    halves = arithmetic == "comfyui"
    if halves:
        _round_text_encoders(models)
    apply_loras(models, read_uses(named, models.architecture), keep=False)
    if halves and named:
        _round_text_encoders(models)


@torch.no_grad()
def _round_text_encoders(models: Models) -> None:
    for encoder in models.text_encoders:
        for weight in encoder.parameters():
            weight.copy_(weight.half())


def job_embeddings(job: GenerateJob) -> EmbeddingFolders:
    """The embeddings by name: those of the job's folders, then those bundled in its LoRAs."""
    bundled: dict[str, Embedding] = {}
    for lora in named_loras(job)[1]:
        bundled = {**bundled_embeddings(lora.path), **bundled}
    return EmbeddingFolders(job.embedding_dirs, bundled)
