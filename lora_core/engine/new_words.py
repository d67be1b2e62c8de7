"""The trigger word as new tokens whose vectors are trained (textual inversion, Gal et al. 2022, arXiv:2208.01618).

In captions the word becomes private characters, one for each vector, which `tokens.token_ids` turns into ids behind
the vocabulary. The vectors travel in the LoRA file as A1111 reads them, and in an embedding file of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_core.engine.branch import Size
from lora_core.engine.conditioning import Encode
from lora_core.engine.network import Network
from lora_core.engine.prompt import Conditioning
from lora_core.engine.tokens import FIRST_NEW, PRIVATE, token_ids
from lora_core.jobs.train import TrainJob
from lora_core.tensors import write_tensors

PLACE = "text_model.embeddings.token_embedding"
NAMES = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


class WordBranch(nn.Module):
    """An encoder's token embedding with further rows: ids [...] -> vectors [..., d]."""

    def __init__(self, base: nn.Embedding, start: torch.Tensor) -> None:
        super().__init__()
        self.base_layer: Any = base
        self.size = Size(len(start), float(len(start)))
        self.vectors = nn.Parameter(start.to(base.weight.device, torch.float32).clone())
        self.start = start.to(base.weight.device, torch.float32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        new = ids >= FIRST_NEW
        known = self.base_layer(ids.masked_fill(new, 0))
        rows = self.vectors[(ids - FIRST_NEW).clamp(0, len(self.vectors) - 1)].to(known.dtype)
        return torch.where(new[..., None], rows, known)

    def trained(self) -> dict[str, nn.Parameter]:
        return {"vectors": self.vectors}

    def constants(self) -> dict[str, torch.Tensor]:
        return {"start": self.start}

    def saved(self) -> dict[str, torch.Tensor]:
        """Nothing among the LoRA's modules; see `bundled`."""
        return {}

    def fast(self) -> tuple[str, ...]:
        return ()

    def changes(self) -> bool:
        return not torch.equal(self.vectors.detach(), self.start)

    def limit(self, longest: float) -> None:
        """The vectors of a word have no limit."""


def with_words(network: Network, encoders: Mapping[str, nn.Module], job: TrainJob) -> Network:
    """The network with the trigger's vectors on every text encoder, when the job trains them.

    They start as the vectors of `token_start` (or of the trigger's own spelling), repeated as often as needed.
    """
    count = job.network.token_vectors
    if not count:
        return network
    found = dict(network.branches)
    for name, encoder in encoders.items():
        embeddings: Any = encoder.get_submodule(PLACE.rpartition(".")[0])
        ids = token_ids(job.network.token_start or job.captions.trigger)
        rows = embeddings.token_embedding.weight.detach()[[ids[i % len(ids)] for i in range(count)]]
        embeddings.token_embedding = WordBranch(embeddings.token_embedding, rows)
        found[f"{name}.{PLACE}"] = embeddings.token_embedding
    return Network(found)


def words_of(network: Network) -> dict[str, WordBranch]:
    """The word's vectors by encoder."""
    return {n.split(".", 1)[0]: b for n, b in network.branches.items() if isinstance(b, WordBranch)}


def spelled(text: str, word: str, count: int) -> str:
    """The text with every whole `word`, also as ComfyUI names an embedding (embedding:word), as private characters."""
    new = "".join(chr(PRIVATE + i) for i in range(count))
    name = rf"(?<!\w)(?:embedding:{re.escape(word)}(?:\.(?:safetensors|pt|bin))?|{re.escape(word)})(?!\w)"
    return re.sub(name, new, text, flags=re.IGNORECASE) if count else text


def reading_words(encode: Encode, job: TrainJob) -> Encode:
    """`encode` that knows the job's new word."""
    count, word = job.network.token_vectors, job.captions.trigger.strip()
    if not count:
        return encode

    def encoded(texts: Sequence[str]) -> Conditioning:
        return encode([spelled(text, word, count) for text in texts])

    return encoded


def vectors(network: Network) -> dict[str, torch.Tensor]:
    """The present vectors [n, d], fp32: "emb_params" for a model with one encoder, "clip_l" and "clip_g" for two."""
    words = words_of(network)
    copies = {name: branch.vectors.detach().float().cpu().clone() for name, branch in words.items()}
    if len(copies) == 1:
        return {"emb_params": next(iter(copies.values()))}
    return {NAMES[name]: tensor for name, tensor in copies.items()}


def bundled(network: Network, word: str) -> dict[str, torch.Tensor]:
    """The vectors under the names by which A1111 finds them in a LoRA file."""
    found = vectors(network)
    if set(found) == {"emb_params"}:
        return {f"bundle_emb.{word}.string_to_param.*": found["emb_params"]}
    return {f"bundle_emb.{word}.{name}": tensor for name, tensor in found.items()}


def write_embedding(path: Path, found: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """An embedding file that A1111, ComfyUI and Forge load. Raises NotFinite, FileError or DiskFull."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, dict(found), dict(metadata))
