"""Pictures to latents and back, whole or in tiles, with a second try in fp32 when half precision gives NaN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from lora_core.engine.models import Models
from lora_core.engine.tiles import in_tiles
from lora_core.errors import NotFinite
from lora_core.shapes import VAE

Draw = Callable[[torch.Size], torch.Tensor]
NAN_NOTE = "The VAE gave NaN in half precision; it is used in fp32 from here on."
TILE = 64  # latent cells a side
OVERLAP = 16
WHOLE = 160 * 160  # latent cells (1280 x 1280 pixels) up to which the VAE takes a picture in one piece


@torch.no_grad()
def encode(models: Models, pixels: torch.Tensor, tiled: bool = False, draw: Draw | None = None) -> torch.Tensor:
    """Pixels [n,3,h,w] in 0..1 -> scaled latents fp32.

    The mean of the VAE's posterior (ComfyUI), or with `draw`, which makes N(0, 1), a sample of it (A1111).
    """
    models.work(VAE)
    rows = [_try(models, lambda row=row: _moments(models, row * 2 - 1, tiled)) for row in pixels.split(1)]
    mean, log_variance = torch.cat(rows).float().chunk(2, dim=1)
    if draw is not None:
        spread = (0.5 * log_variance.clamp(-30, 20)).exp()
        mean = mean + spread * draw(mean.shape).to(mean)
    return mean * models.vae.config.scaling_factor


@torch.no_grad()
def decode(models: Models, latents: torch.Tensor, tiled: bool = False) -> list[Image.Image]:
    """Scaled latents [n,c,h,w] -> RGB pictures, one at a time; values are cut to bytes as both hosts do.

    A VAE that gives NaN is used in fp32 from then on; NotFinite is raised when that does not help.
    """
    return [to_picture(pixels) for pixels in decode_tensor(models, latents, tiled)]


@torch.no_grad()
def decode_tensor(models: Models, latents: torch.Tensor, tiled: bool = False) -> torch.Tensor:
    """Scaled latents [n,c,h,w] -> pixels [n,3,H,W] float32 in 0..1 on the CPU."""
    models.work(VAE)
    scaled = latents / models.vae.config.scaling_factor
    rows = [_try(models, lambda row=row: _pixels(models, row, tiled)) for row in scaled.split(1)]
    return torch.cat([((row.float() + 1) / 2).clamp(0, 1).cpu() for row in rows])


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """[3,h,w] in 0..1 -> RGB."""
    return Image.fromarray((pixels * 255).permute(1, 2, 0).numpy().astype(np.uint8))  # [3, h, w] -> [h, w, 3]


def _try(models: Models, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    found = compute()
    if bool(torch.isfinite(found).all()):
        return found
    if next(models.vae.parameters()).dtype != torch.float32:
        models.vae = models.vae.float()
        models.notes.append(NAN_NOTE)
        return _try(models, compute)
    raise NotFinite("The VAE gave NaN even in fp32: the VAE file or the latents are broken.")


def _moments(models: Models, pixels: torch.Tensor, tiled: bool) -> torch.Tensor:
    """Mean and log variance [1,2c,h,w] of the posterior."""
    place = next(models.vae.parameters())
    factor = 2 ** (len(models.vae.config.block_out_channels) - 1)

    def moments(part: torch.Tensor) -> torch.Tensor:
        return models.vae.encode(part.to(place)).latent_dist.parameters

    if not tiled and pixels.shape[2] * pixels.shape[3] <= WHOLE * factor * factor:
        return moments(pixels)
    height, width = (side // factor * factor for side in pixels.shape[2:])
    pixels = pixels[:, :, :height, :width]  # what is left over fills no latent cell
    return in_tiles(pixels, moments, TILE * factor, OVERLAP * factor, 1 / factor)


def _pixels(models: Models, latents: torch.Tensor, tiled: bool) -> torch.Tensor:
    place = next(models.vae.parameters())
    factor = 2 ** (len(models.vae.config.block_out_channels) - 1)

    def pixels(part: torch.Tensor) -> torch.Tensor:
        return models.vae.decode(part.to(place)).sample

    if not tiled and latents.shape[2] * latents.shape[3] <= WHOLE:
        return pixels(latents)
    return in_tiles(latents, pixels, TILE, OVERLAP, factor)
