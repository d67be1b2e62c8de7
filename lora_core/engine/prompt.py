"""From texts to what the UNet is conditioned on, with the arithmetic that models were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_core.engine.tokens import CHUNK, chunks_needed, token_ids, tokenize, tokenize_weighted
from lora_core.errors import KeyMismatch
from lora_core.shapes import Architecture

__all__ = ["Conditioning", "chunks_needed", "encode_prompts", "time_ids", "token_ids", "tokenize"]


@dataclass(frozen=True)
class Conditioning:
    """Text context [n, tokens, d] for cross-attention and, for SDXL, the pooled text [n, p]."""

    context: torch.Tensor
    pooled: torch.Tensor | None = None


def encode_prompts(
    encoders: Sequence[nn.Module],
    arch: Architecture,
    texts: Sequence[str],
    clip_skip: int = 1,
    max_tokens: int = CHUNK,
    weighted: bool = False,
) -> Conditioning:
    """Encode plain texts; gradients flow when the caller has them on.

    `weighted`: (words:1.2) multiply the context of their tokens, as sd-scripts' weighted captions do; pooled text and
    the number of tokens stay.

    SD1, SD2: hidden state number `clip_skip` from the end, through the final layer norm (as sd-scripts trains and the
    hosts sample). SDXL: the last but one hidden state of both encoders without norm, side by side; `clip_skip` is
    ignored; pooled is the second encoder's projection at the first EOS of the first chunk.
    Chunks of 75 tokens are encoded each with BOS and EOS and put one after the other: context [n, 77 * chunks, d].
    """
    if arch.family != "sdxl":
        if len(encoders) != 1:
            raise KeyMismatch(f"A {arch.family} model has one text encoder; {len(encoders)} were loaded.")
        ids, weights = _tokens(texts, max_tokens, "eos" if arch.family == "sd1" else "zero", weighted)
        return Conditioning(_weigh(_context(encoders[0], ids, clip_skip), weights))
    if len(encoders) != 2:
        raise KeyMismatch(f"An SDXL model has two text encoders; {len(encoders)} were loaded.")
    ids, weights = _tokens(texts, max_tokens, "eos", weighted)
    first = _penultimate(encoders[0], ids)[0]
    second, pooled = _penultimate(encoders[1], _tokens(texts, max_tokens, "zero", weighted)[0])
    return Conditioning(_weigh(torch.cat([first, second], dim=-1), weights), pooled)


def _tokens(
    texts: Sequence[str], max_tokens: int, pad: str, weighted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids [n, chunks, 77], and their weights unless all are 1."""
    return tokenize_weighted(texts, max_tokens, pad) if weighted else (tokenize(texts, max_tokens, pad), None)


def _weigh(context: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return context if weights is None else context * weights.to(context).flatten(1)[..., None]


def _forward(encoder: nn.Module, ids: torch.Tensor) -> Any:
    n, chunks, length = ids.shape
    device = next(encoder.parameters()).device
    return encoder(ids.reshape(n * chunks, length).to(device), output_hidden_states=True, return_dict=True)


def _context(encoder: Any, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    out = _forward(encoder, ids)
    layers = len(out.hidden_states) - 1
    if clip_skip > layers:
        raise KeyMismatch(f"Clip skip {clip_skip} goes past the {layers} layers of this text encoder.")
    hidden = encoder.text_model.final_layer_norm(out.hidden_states[-clip_skip])
    return hidden.reshape(ids.shape[0], -1, hidden.shape[-1])  # [n * chunks, 77, d] -> [n, chunks * 77, d]


def _penultimate(encoder: nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    out = _forward(encoder, ids)
    hidden = out.hidden_states[-2]
    pooled = getattr(out, "text_embeds", None)
    chunks = ids.shape[1]
    return hidden.reshape(ids.shape[0], -1, hidden.shape[-1]), None if pooled is None else pooled[::chunks]


def time_ids(
    height: int, width: int, crop: tuple[int, int] = (0, 0), target: tuple[int, int] | None = None
) -> torch.Tensor:
    """SDXL's size conditioning [6]: original height and width, crop top and left, target height and width."""
    return torch.tensor([height, width, *crop, *(target or (height, width))], dtype=torch.float32)
