"""Textual-inversion embeddings (Gal et al. 2022): files of every usual kind, folders, and those bundled in LoRAs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from lora_core.errors import FileError, NotFinite
from lora_core.pickled_tensors import read_pickled
from lora_core.tensors import open_tensors

SUFFIXES = (".safetensors", ".pt", ".bin")
BUNDLE = "bundle_emb."
LARGEST = 64 * 2**20


@dataclass(frozen=True)
class Embedding:
    """Vectors [n, d], float32, by the name that they have in the file ("clip_l" and "clip_g" for SDXL).

    `lora`: the name of the LoRA that it came in.
    """

    name: str
    vectors: Mapping[str, torch.Tensor]
    lora: str = ""

    def rows(self, widths: Sequence[int]) -> tuple[torch.Tensor, ...] | None:
        """The vectors for text encoders of these widths, in their order; None when the embedding is not for them."""
        found = tuple(self._rows(key, width) for key, width in zip(("clip_l", "clip_g"), widths))
        if any(rows is None for rows in found):
            return None
        return tuple(rows for rows in found if rows is not None)

    def _rows(self, key: str, width: int) -> torch.Tensor | None:
        named = self.vectors.get(key)
        fitting = [named] if named is not None else list(self.vectors.values())
        fitting = [rows for rows in fitting if rows.shape[1] == width]
        return torch.cat(fitting) if fitting else None


def read_embedding(path: str | Path) -> Embedding:
    """Read a file of A1111 ("string_to_param"), diffusers or SDXL ("clip_l", "clip_g"); named by its stem.

    Pickles are read without running anything in them. Raises FileError or NotFinite.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"{path.name} is no embedding file: those end in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise FileError(f"There is no embedding file {path}.")
    if path.stat().st_size > LARGEST:
        raise FileError(f"{path.name} has {path.stat().st_size >> 20} MB: no textual inversion is that large.")
    if path.suffix.lower() == ".safetensors":
        with open_tensors(path) as file:
            data: Any = {key: file.read(key) for key in file.shapes}
    else:
        data = read_pickled(path)
    return _embedding(path.stem, data, path.name)


def _embedding(name: str, data: Any, file: str) -> Embedding:
    parts: list[Any] = data if isinstance(data, list) else [data]
    found: dict[str, torch.Tensor] = {}
    for i, part in enumerate(parts):
        tensors = part.get("string_to_param", part) if isinstance(part, Mapping) else {}
        for key, value in tensors.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() in (1, 2):
                found[f"{key}.{i}" if i else str(key)] = value.detach().float().reshape(-1, value.shape[-1])
    if not found:
        raise FileError(f"{file} holds no vectors of a textual inversion.")
    if not all(bool(torch.isfinite(rows).all()) for rows in found.values()):
        raise NotFinite(f"The embedding {file} holds NaN or infinity: it is broken.")
    return Embedding(name, found)


def bundled_embeddings(path: str | Path) -> dict[str, Embedding]:
    """The embeddings inside a LoRA file: keys `bundle_emb.<name>.string_to_param.*` or `bundle_emb.<name>.clip_l`."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    with open_tensors(path) as file:
        for key in file.shapes:
            if key.startswith(BUNDLE):
                name, _, part = key[len(BUNDLE) :].partition(".")
                found.setdefault(name, {})[part.removeprefix("string_to_param.")] = file.read(key)
    read = (_embedding(name, tensors, Path(path).name) for name, tensors in found.items())
    return {embedding.name: replace(embedding, lora=Path(path).stem) for embedding in read}


class EmbeddingFolders(Mapping[str, Embedding]):
    """The embeddings below some folders by file stem, read when they are asked for; the first folder wins.

    `further` are embeddings that are there already; a file of the same name goes before them.
    """

    def __init__(self, folders: Sequence[str | Path], further: Mapping[str, Embedding] | None = None) -> None:
        self._paths: dict[str, Path] = {}
        self._further = dict(further or {})
        self._read: dict[str, Embedding] = {}
        for folder in folders:
            for path in sorted(Path(folder).rglob("*")):
                if path.suffix.lower() in SUFFIXES and path.is_file():
                    self._paths.setdefault(path.stem, path)

    def __getitem__(self, name: str) -> Embedding:
        if name not in self._read:
            self._read[name] = read_embedding(self._paths[name]) if name in self._paths else self._further[name]
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._paths, **self._further})

    def __len__(self) -> int:
        return len({**self._paths, **self._further})

    def used_hashes(self, widths: Sequence[int]) -> dict[str, str]:
        """Of each embedding asked for that fits text encoders of these widths: the sha256 of its file, or the name of
        the LoRA that it came in. A1111 writes 12 digits or that name ("TI hashes")."""
        used = {name: found for name, found in self._read.items() if found.rows(widths) is not None}
        return {name: found.lora or self._hash(name) for name, found in used.items()}

    def _hash(self, name: str) -> str:
        path = self._paths.get(name)
        return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def bare_name(written: str) -> str:
    """The name of an embedding as ComfyUI's prompts write it: a path, with or without the file's ending."""
    path = PurePosixPath(written.replace("\\", "/"))
    return path.stem if path.suffix.lower() in SUFFIXES else path.name
