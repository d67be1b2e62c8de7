"""A1111's "Hires. fix": the first pass enlarged, as latents or as a picture, and drawn over.

In ComfyUI's arithmetic sizes are those of its nodes that stand between two samplers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lora_core.commands import Commands
from lora_core.engine.models import Models
from lora_core.engine.random_noise import posterior_noise
from lora_core.engine.request import SampleRequest, Start
from lora_core.engine.samplers import Step
from lora_core.engine.sampling import all_masked, latent_factor, noise_of, sample_from
from lora_core.engine.vae import Draw, decode_tensor, encode, to_picture
from lora_core.jobs.generate import Hires
from lora_core.resizing import CELL

LATENT_MODES = {
    "latent": ("bilinear", False),
    "latent (antialiased)": ("bilinear", True),
    "latent (bicubic)": ("bicubic", False),
    "latent (bicubic antialiased)": ("bicubic", True),
    "latent (nearest)": ("nearest", False),
    "latent (nearest-exact)": ("nearest-exact", False),
}


@dataclass(frozen=True)
class Target:
    """The second pass's size in pixels, and how much of it is cut off at the sides."""

    width: int
    height: int
    cut_width: int = 0
    cut_height: int = 0


def target(width: int, height: int, hires: Hires, arithmetic: str = "a1111") -> Target:
    """With both sides given the picture is enlarged to cover them and cut; with one, the other follows."""
    if arithmetic == "comfyui":
        return _target_of_nodes(width, height, hires)
    w, h = hires.hires_width, hires.hires_height
    if not w and not h:
        return Target(int(width * hires.hires_scale), int(height * hires.hires_scale))
    if not h:
        return Target(w, w * height // width)
    if not w:
        return Target(h * width // height, h)
    if width / height < w / h:
        tall = w * height // width
        return Target(w, tall, 0, tall - h)
    wide = h * width // height
    return Target(wide, h, wide - w, 0)


def _target_of_nodes(width: int, height: int, hires: Hires) -> Target:
    """LatentUpscaleBy rounds cells and ImageScaleBy pixels; LatentUpscale and ImageScale distort to the sides given."""
    w, h = hires.hires_width, hires.hires_height
    if w or h:
        return Target(w or round(width * h / height), h or round(height * w / width))
    step = CELL if hires.hires_upscaler in LATENT_MODES else 1
    w, h = (round(side // step * hires.hires_scale) * step for side in (width, height))
    return Target(w, h)


def second_pass(
    models: Models, request: SampleRequest, hires: Hires, latents: torch.Tensor, commands: Commands
) -> Iterator[Step]:
    """Sample `latents` of the first pass again, enlarged. `request` is the first pass's, with the batch's seeds."""
    size = target(request.width, request.height, hires, request.arithmetic)
    draw = posterior_noise(request.seeds[-1]) if request.arithmetic == "a1111" else None
    if draw and models.architecture.inpainting:
        draw(latents.shape)  # the first pass has drawn its grey picture from the same generator
    latents = enlarged(models, request, hires.hires_upscaler, latents, size, draw)
    steps = hires.hires_steps or request.steps
    again = replace(request, denoise=hires.hires_denoising, hires_steps=steps, width=size.width, height=size.height)
    noise = noise_of(models, again, again.seeds, latents.shape[1:])
    extra = all_masked(models, latents, draw) if models.architecture.inpainting else None
    return sample_from(models, again, again.prompts, noise, Start(latents, extra=extra), commands)


def enlarged(
    models: Models, request: SampleRequest, upscaler: str, latents: torch.Tensor, size: Target, draw: Draw | None
) -> torch.Tensor:
    """The first pass's latents at the size of the second; `draw` as `encode` takes it."""
    factor = latent_factor(models)
    if upscaler in LATENT_MODES:
        mode, antialias = LATENT_MODES[upscaler]
        cells = (size.height // factor, size.width // factor)
        latents = F.interpolate(latents, size=cells, mode=mode, antialias=antialias)
    else:
        pixels = decode_tensor(models, latents, request.low_memory)
        pixels = (_scaled if request.arithmetic == "comfyui" else _resized)(pixels, size, upscaler)
        latents = encode(models, pixels, request.low_memory, draw).to(latents)
    return _cut(latents, size.cut_height // factor, size.cut_width // factor)


def _cut(latents: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    height, width = latents.shape[2:]
    top, left = rows // 2, columns // 2
    return latents[:, :, top : height - (rows - top), left : width - (columns - left)]


def _scaled(pixels: torch.Tensor, size: Target, upscaler: str) -> torch.Tensor:
    """ImageScaleBy's "lanczos" and "nearest-exact", and what VAEEncode takes of its pictures [n,3,h,w]."""
    if upscaler == "nearest":
        pixels = F.interpolate(pixels, (size.height, size.width), mode="nearest-exact")
    else:
        method = Image.Resampling.LANCZOS
        pixels = _stacked([to_picture(p).resize((size.width, size.height), method) for p in pixels])
    return _cut(pixels, size.height % CELL, size.width % CELL)


def _resized(pixels: torch.Tensor, size: Target, upscaler: str) -> torch.Tensor:
    return _stacked([resized(to_picture(p), size.width, size.height, upscaler) for p in pixels])


def _stacked(pictures: Sequence[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pictures]).float() / 255


def resized(picture: Image.Image, width: int, height: int, upscaler: str) -> Image.Image:
    """A1111's "Lanczos" and "Nearest": enlarged by the larger ratio to multiples of 8, then Lanczos to the size."""
    scale = max(width / picture.width, height / picture.height)
    method = Image.Resampling.NEAREST if upscaler == "nearest" else Image.Resampling.LANCZOS
    if scale > 1:
        whole = int(picture.width * scale // 8 * 8), int(picture.height * scale // 8 * 8)
        for _ in range(3):
            if picture.width >= whole[0] and picture.height >= whole[1]:
                break
            picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), method)
        if picture.size != whole:
            picture = picture.resize(whole, Image.Resampling.LANCZOS)
    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.LANCZOS)
