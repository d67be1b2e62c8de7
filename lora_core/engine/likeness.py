"""How much drawn pictures are like others, measured with the base's own UNet and VAE: nothing is downloaded.

A picture is described by what the base's UNet holds of it (mean and deviation of its middle and first up blocks at
timestep 261 with an empty prompt: the features of Tang et al. 2023, "Emergent Correspondence from Image Diffusion").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lora_core.engine.conditioning import unet_arguments
from lora_core.engine.models import Models
from lora_core.engine.noise import diffuse
from lora_core.engine.prompt import Conditioning, encode_prompts, time_ids
from lora_core.engine.randomness import generator
from lora_core.engine.schedule import alphas_cumprod

TIMESTEP = 261
BATCH = 4
SHRINKAGE = 0.1


@torch.no_grad()
def describe(models: Models, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents [n,c,h,w] -> features [n,d] fp32 on the CPU; any LoRA must be taken out before."""
    text = encode_prompts(models.text_encoders, models.architecture, [""])
    return torch.cat([_features(models, rows, text) for rows in latents.split(BATCH)])


def _features(models: Models, latents: torch.Tensor, text: Conditioning) -> torch.Tensor:
    place = next(models.unet.parameters())
    noise = torch.randn(latents.shape[1:], generator=generator(0, "likeness"))
    steps = torch.full((len(latents),), TIMESTEP)
    x = diffuse(latents.float().cpu(), noise.expand_as(latents), steps, alphas_cumprod(), "epsilon").latents
    count, factor = len(latents), 2 ** (len(models.vae.config.block_out_channels) - 1)
    sizes = None
    if text.pooled is not None:
        sizes = time_ids(latents.shape[2] * factor, latents.shape[3] * factor).expand(count, -1)
        text = Conditioning(text.context, text.pooled.expand(count, -1))
    text = Conditioning(text.context.expand(count, -1, -1), text.pooled)
    with _caught(models.unet) as seen:
        models.unet(_padded(models, x).to(place), steps.to(place.device), return_dict=False,
                    **unet_arguments(text, sizes, place.device))  # fmt: skip
    parts = [f.float().flatten(2) for f in seen]  # [n, c, h, w] -> [n, c, h * w]
    return torch.cat([torch.cat([p.mean(2), p.std(2, unbiased=False)], dim=1) for p in parts], dim=1).cpu()


def _padded(models: Models, x: torch.Tensor) -> torch.Tensor:
    """9-channel models: a mask that hides nothing, and nothing behind it."""
    missing = models.unet.config.in_channels - x.shape[1]
    return torch.cat([x, x.new_zeros((x.shape[0], missing, *x.shape[2:]))], dim=1) if missing else x


@contextmanager
def _caught(unet: Any) -> Iterator[list[torch.Tensor]]:
    """The outputs of the middle block and the first two up blocks of the next call."""
    seen: list[torch.Tensor] = []
    blocks = [unet.mid_block, *unet.up_blocks[:2]]
    hooks = [block.register_forward_hook(lambda _m, _i, out: seen.append(out)) for block in blocks if block is not None]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Direction:
    """The way from what the base draws (0) to what the subject looks like (1), a diagonal Fisher discriminant."""

    origin: torch.Tensor
    weights: torch.Tensor

    def of(self, features: torch.Tensor) -> torch.Tensor:
        """Features [n,d] -> likeness [n]."""
        return (features - self.origin) @ self.weights


def direction(base: torch.Tensor, subject: torch.Tensor) -> Direction:
    """From features of pictures by the base alone [n,d] and of the subject [m,d]; each feature counts by how far the
    two groups' means lie apart, against how much it varies inside them."""
    apart = subject.mean(0) - base.mean(0)
    groups = [group - group.mean(0) for group in (base, subject) if len(group) > 1]
    spread = torch.cat(groups).square().mean(0) if groups else torch.ones_like(apart)
    weights = apart / (spread + SHRINKAGE * spread.mean() + 1e-12)
    return Direction(base.mean(0), weights / (apart @ weights).clamp(min=1e-12))


def nearest(latents: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each picture's latents [n,c,h,w] the place [n] of the nearest of `others` [m,c,h,w], and how near [n]:
    the correlation of both after the others' mean is taken away (1 = the same picture)."""
    mean = others.float().mean(0) if len(others) > 1 else torch.zeros_like(others[0], dtype=torch.float32)
    rows, columns = ((x.float().cpu() - mean.cpu()).flatten(1) for x in (latents, others))
    rows, columns = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in (rows, columns))
    found = (rows @ columns.T).max(dim=1)
    return found.indices, found.values
