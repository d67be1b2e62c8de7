"""From one text (no AND, no editing) to conditioning, as A1111 or ComfyUI computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from lora_core.embeddings import Embedding, bare_name
from lora_core.engine.models import Models
from lora_core.engine.prompt import Conditioning
from lora_core.engine.prompt_encoding import Reading, weighted_a1111, weighted_comfyui
from lora_core.engine.tokens import token_ids
from lora_core.errors import ConfigError
from lora_core.prompt_a1111 import Segment, segments
from lora_core.prompt_chunks import Match, Tokenize, a1111_chunks, comfyui_chunks
from lora_core.prompt_comfyui import words
from lora_core.prompt_spelling import spelled_a1111, spelled_comfyui, spelled_openclip

Vectors = Mapping[str, tuple[torch.Tensor, ...]]


class Options(Protocol):
    """The part of PromptOptions that matters for one text."""

    @property
    def clip_skip(self) -> int: ...
    @property
    def emphasis(self) -> str: ...
    @property
    def embeddings(self) -> Mapping[str, Embedding]: ...


def encode_a1111(models: Models, texts: Sequence[str], options: Options) -> list[Conditioning]:
    """Conditioning of each text, all of one length. Embeddings are found by name anywhere in the text."""
    finder = _Finder(models, options.embeddings)
    segmented = [_segments(text, options.emphasis) for text in texts]
    parts = []
    for i, encoder in enumerate(models.text_encoders):
        ids = _openclip_ids if _is_openclip(models, i) else _clip_ids
        chunks = [a1111_chunks(segments, ids, finder.at) for segments in segmented]
        reading = _reading(models, i, _a1111_layer(models, options), finder.found)
        parts.append(weighted_a1111(encoder, chunks, reading, options.emphasis))
    return _joined(parts, len(texts))


def encode_comfyui(models: Models, text: str, options: Options) -> Conditioning:
    """Conditioning of a text. Embeddings are written `embedding:name`."""
    finder = _Finder(models, options.embeddings)
    chunks = comfyui_chunks(words(text), lambda part: token_ids(spelled_comfyui(part)), finder.named)
    layer = _comfyui_layer(models, options)
    parts = [
        weighted_comfyui(encoder, chunks, _reading(models, i, layer, finder.found))
        for i, encoder in enumerate(models.text_encoders)
    ]
    return _joined(parts, 1)[0]


def _clip_ids(text: str) -> list[int]:
    return token_ids(spelled_a1111(text))


def _openclip_ids(text: str) -> list[int]:
    return token_ids(spelled_openclip(text))


def _is_openclip(models: Models, encoder: int) -> bool:
    return encoder == 1 or models.architecture.family == "sd2"


def _segments(text: str, emphasis: str) -> list[Segment]:
    if emphasis == "none":
        return [Segment(text)]
    try:
        return segments(text)
    except ValueError as error:
        number = str(error).partition(": ")[2]
        raise ConfigError(f"The prompt has a weight that is no number: {number} in {text!r}.") from None


def _joined(parts: Sequence[tuple[torch.Tensor, torch.Tensor | None]], count: int) -> list[Conditioning]:
    context = torch.cat([context for context, _ in parts], dim=-1)
    pooled = next((pooled for _, pooled in parts if pooled is not None), None)
    return [Conditioning(context[i : i + 1], None if pooled is None else pooled[i : i + 1]) for i in range(count)]


def _a1111_layer(models: Models, options: Options) -> tuple[int, bool]:
    """A1111 skips layers of SD1's encoder only."""
    family = models.architecture.family
    return (2, False) if family == "sdxl" else (options.clip_skip if family == "sd1" else 1, True)


def _comfyui_layer(models: Models, options: Options) -> tuple[int, bool]:
    """ComfyUI reads SD2 and SDXL from the last layer but one; SD2's very last is not loaded at all."""
    skip = options.clip_skip
    layers = {"sdxl": (max(skip, 2), False), "sd2": (max(skip - 1, 1), True)}
    return layers.get(models.architecture.family, (skip, True))


def _reading(models: Models, encoder: int, layer: tuple[int, bool], vectors: Vectors) -> Reading:
    own = {name: rows[encoder] for name, rows in vectors.items()}
    kept = models.texts[encoder] if models.texts else None
    return Reading(*layer, zero_padded=_is_openclip(models, encoder), vectors=own, kept=kept)


class _Finder:
    """Finds embeddings in a prompt and remembers the vectors of those found, for each text encoder."""

    def __init__(self, models: Models, embeddings: Mapping[str, Embedding]) -> None:
        self.widths = [shape.width for shape in models.architecture.text_encoders]
        self.embeddings = embeddings
        self.found: dict[str, tuple[torch.Tensor, ...]] = {}
        self.names = _names(embeddings, _openclip_ids if _is_openclip(models, 0) else _clip_ids)

    def named(self, written: str) -> int | None:
        """The number of vectors, None for an unknown name or one for other models."""
        return self._vectors(bare_name(written), written)

    def at(self, ids: Sequence[int], position: int) -> Match | None:
        """The embedding with the longest name that begins at a position; those for other models are plain words."""
        for named, name in self.names.get(ids[position], ()):
            if tuple(ids[position : position + len(named)]) == named:
                vectors = self._vectors(name, name)
                if vectors is not None:
                    return Match(name, vectors, len(named))
        return None

    def _vectors(self, name: str, key: str) -> int | None:
        if name not in self.embeddings:
            return None
        rows = self.embeddings[name].rows(self.widths)
        if rows is None:
            return None
        self.found[key] = rows
        return len(rows[0])


def _names(embeddings: Mapping[str, Embedding], ids_of: Tokenize) -> dict[int, list[tuple[tuple[int, ...], str]]]:
    """First id -> (all ids, name), the longest first."""
    found: dict[int, list[tuple[tuple[int, ...], str]]] = {}
    for name in embeddings:
        ids = tuple(ids_of(name))
        if ids:
            found.setdefault(ids[0], []).append((ids, name))
    return {first: sorted(rows, key=lambda row: len(row[0]), reverse=True) for first, rows in found.items()}
