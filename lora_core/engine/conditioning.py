"""What the UNet is told besides the noisy latents: text, and for SDXL pooled text and sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lora_core.architecture import Architecture
from lora_core.engine.prompt import Conditioning, encode_prompts

Encode = Callable[[Sequence[str]], Conditioning]


@dataclass(frozen=True)
class TextRules:
    """How captions become conditioning."""

    architecture: Architecture
    clip_skip: int
    max_tokens: int
    weighted: bool = False


def live_encoder(encoders: tuple[nn.Module, ...], rules: TextRules) -> Encode:
    """Encode at each call, with gradients where the caller allows them."""

    def encode(texts: Sequence[str]) -> Conditioning:
        return encode_prompts(encoders, rules.architecture, texts, rules.clip_skip, rules.max_tokens, rules.weighted)

    return encode


def stack(rows: Sequence[Conditioning]) -> Conditioning:
    """Join one-row conditionings along the batch."""
    pooled = [row.pooled for row in rows if row.pooled is not None]
    return Conditioning(torch.cat([row.context for row in rows]), torch.cat(pooled) if pooled else None)


def unet_arguments(text: Conditioning, sizes: torch.Tensor | None, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of diffusers' UNet: context [b,t,d]; for SDXL pooled [b,p] and time ids [b,6]."""
    arguments: dict[str, Any] = {"encoder_hidden_states": text.context.to(device)}
    if text.pooled is not None and sizes is not None:
        arguments["added_cond_kwargs"] = {"text_embeds": text.pooled.to(device), "time_ids": sizes.to(device)}
    return arguments


def to_cpu(text: Conditioning) -> Conditioning:
    """A detached copy on the CPU, for keeping."""
    pooled = None if text.pooled is None else text.pooled.detach().cpu()
    return replace(text, context=text.context.detach().cpu(), pooled=pooled)
