"""Chunks of tokens through a text encoder, with the weights of either host's arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from lora_core.errors import KeyMismatch
from lora_core.prompt_chunks import EMPTY, EOS, Chunk

Encoded: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class Reading:
    """How one encoder is read: hidden state number `layer` from the end, through the final norm or not.

    `zero_padded`: OpenCLIP's encoders see 0 behind EOS. `vectors`: embeddings [n, d] by name. `kept`: what this encoder
    gave before, where nothing trains it or swaps its LoRAs.
    """

    layer: int
    norm: bool
    zero_padded: bool
    vectors: Mapping[str, torch.Tensor]
    kept: EncodedTexts | None = None


class EncodedTexts:
    """The last results of a text encoder that does not change, by what it read."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._found: dict[Hashable, Encoded] = {}

    def get(self, key: Hashable, encode: Callable[[], Encoded]) -> Encoded:
        """The result under `key`; made by `encode` when it is not there. The one not asked for longest goes first."""
        found = self._found.pop(key, None) or encode()
        self._found[key] = found
        while len(self._found) > self._most:
            del self._found[next(iter(self._found))]
        return found


def weighted_a1111(
    encoder: Any, texts: Sequence[Sequence[Chunk]], reading: Reading, emphasis: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Context [n, 77 * chunks, d] and the first chunk's pooled text of n texts, as A1111 encodes them together.

    Shorter texts get empty chunks. Tokens are multiplied by their weights; "original" then restores the mean of all
    texts' chunk i together.
    """
    parts: list[torch.Tensor] = []
    pooled = None
    for i in range(max(len(chunks) for chunks in texts)):
        column = [chunks[i] if i < len(chunks) else EMPTY for chunks in texts]
        z, projected = encode_chunks(encoder, column, reading)
        parts.append(_emphasized(z, column, emphasis))
        pooled = projected if i == 0 else pooled
    return torch.cat(parts, dim=1), pooled


def _emphasized(z: torch.Tensor, chunks: Sequence[Chunk], emphasis: str) -> torch.Tensor:
    if emphasis not in ("original", "no norm"):
        return z
    weighted = z * torch.tensor([chunk.weights for chunk in chunks], device=z.device)[..., None]
    after = weighted.mean()
    return weighted if emphasis == "no norm" or after == 0 else weighted * (z.mean() / after)


def weighted_comfyui(
    encoder: Any, chunks: Sequence[Chunk], reading: Reading
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Context [1, 77 * chunks, d] and the first chunk's pooled text of one text, as ComfyUI encodes it.

    A weighted token goes from the same place of the empty prompt's encoding in the token's direction.
    """
    z, pooled = encode_chunks(encoder, [*chunks, EMPTY], reading)
    z, empty = z[:-1], z[-1:]
    weights = torch.tensor([chunk.weights for chunk in chunks], device=z.device)[..., None]
    z = torch.where(weights == 1, z, (z - empty) * weights + empty)
    return z.flatten(0, 1)[None], None if pooled is None else pooled[:1]  # [chunks, 77, d] -> [1, chunks * 77, d]


def encode_chunks(encoder: Any, chunks: Sequence[Chunk], reading: Reading) -> Encoded:
    """Hidden states [n, 77, d] and projected text [n, p] (None for an encoder without projection), float32."""
    if reading.kept is None or any(chunk.vectors for chunk in chunks):
        return _encode(encoder, chunks, reading)
    read = (reading.layer, reading.norm, reading.zero_padded, *(chunk.tokens for chunk in chunks))
    return reading.kept.get(read, lambda: _encode(encoder, chunks, reading))


def _encode(encoder: Any, chunks: Sequence[Chunk], reading: Reading) -> Encoded:
    ids = torch.tensor([chunk.tokens for chunk in chunks])
    if reading.zero_padded:
        behind = (ids == EOS).cumsum(1) - (ids == EOS).int() > 0
        ids = ids.masked_fill(behind, 0)
    with _placed(encoder, chunks, reading.vectors):
        out = encoder(ids.to(next(encoder.parameters()).device), output_hidden_states=True, return_dict=True)
    layers = len(out.hidden_states) - 1
    if reading.layer > layers:
        raise KeyMismatch(f"Clip skip {reading.layer} goes past the {layers} layers of this text encoder.")
    hidden = out.hidden_states[-reading.layer]
    hidden = encoder.text_model.final_layer_norm(hidden) if reading.norm else hidden
    pooled = getattr(out, "text_embeds", None)
    return hidden.float(), None if pooled is None else pooled.float()


@contextmanager
def _placed(encoder: Any, chunks: Sequence[Chunk], vectors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While inside, embeddings' vectors stand where the chunks place them."""

    def replace(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        for row, chunk in enumerate(chunks):
            for placed in chunk.vectors:
                rows = vectors[placed.name][placed.first : placed.first + placed.count]
                output[row, placed.position : placed.position + placed.count] = rows.to(output)
        return output

    if not any(chunk.vectors for chunk in chunks):
        yield
        return
    handle = encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
