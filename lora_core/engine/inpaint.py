"""Inpainting: an InpaintJob becomes PNG files, as a stream of events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lora_core.commands import Commands
from lora_core.engine.generate import (
    lora_digests,
    parameters,
    prepared_models,
    progress,
    request_of,
    seed_of,
)
from lora_core.engine.lora_uses import named_loras
from lora_core.engine.models import Models
from lora_core.engine.picture_files import save_picture
from lora_core.engine.samplers import Step
from lora_core.engine.sampling import SampleRequest, Start, decode, draw_noise, encode, latent_factor, sample_from
from lora_core.errors import ConfigError
from lora_core.events import Event, Finished, Note, Preview, Saved, Stage
from lora_core.inpaint_plan import InpaintOptions, InpaintPlan, paste, plan
from lora_core.jobs.generate import InpaintJob
from lora_core.masks import latent_mask, mask_from_alpha, mask_from_picture
from lora_core.picture_read import read_picture

BLANK = 'The mask is blank, so "only masked" has nothing to cut out: the whole picture is drawn anew (img2img).'


@dataclass(frozen=True)
class Canvas:
    """A plan in latents: the scaled latents [1,c,h,w] of its working picture, its mask [1,1,h,w], further input."""

    plan: InpaintPlan
    latents: torch.Tensor
    mask: torch.Tensor | None
    extra: torch.Tensor | None


def inpaint(job: InpaintJob, commands: Commands | None = None) -> Iterator[Event]:
    """Repaint the masked part; `batch_count` results. A raised `stop` keeps the finished ones.

    Raises ConfigError, FileError, KeyMismatch, NotFinite.
    """
    commands = commands or Commands()
    prompt, named = named_loras(job)
    made = plan_of(job)
    if made.mask is None:
        yield Note(BLANK, "warning")
    yield Stage("Loading the base")
    models = prepared_models(job, named)
    yield Stage("Drawing")
    canvas = canvas_of(models, job, made)
    request = request_of(job, prompt, job.denoising_strength)
    saved: list[str] = []
    started = time.monotonic()
    for index in range(job.batch_count):
        seed, latents = seed_of(job, index), canvas.latents
        for step in repaint(models, request, canvas, seed, job.masked_content):
            yield progress(job, step, index, started)
            if commands.stop:
                yield Finished(tuple(saved), stopped=True)
                return
            latents = step.x
        result = paste(made, decode(models, blended(canvas, latents))[0])
        text = parameters(job, seed, lora_digests(named), inpaint_values(job))
        path = save_picture(result, Path(job.output_dir), job.name, text)
        saved.append(str(path))
        yield Saved(str(path), "picture", index + 1)
        yield Preview(index + 1, str(path), prompt)
    yield Finished(tuple(saved), {"pictures": len(saved), "seconds": round(time.monotonic() - started, 2)})


def plan_of(job: InpaintJob) -> InpaintPlan:
    """Read picture and mask, and prepare them. Raises FileError and ConfigError."""
    picture = read_picture(job.image)
    mask = mask_from_picture(read_picture(job.mask)) if job.mask else mask_from_alpha(picture)
    if mask is None:
        name = Path(job.image).name
        raise ConfigError(f"{name} has no transparency to take as the mask: name a mask picture (setting mask).")
    options = InpaintOptions(
        width=job.width,
        height=job.height,
        blur=job.mask_blur,
        content=job.masked_content,
        area=job.inpaint_area,
        padding=job.only_masked_padding,
    )
    return plan(picture, mask, options)


def canvas_of(models: Models, job: InpaintJob, made: InpaintPlan) -> Canvas:
    """Encode the plan's working picture; 9-channel models also get it with the masked part in grey."""
    factor = latent_factor(models)
    if job.width % factor or job.height % factor:
        raise ConfigError(f"{job.width} x {job.height} cannot be drawn: sides are multiples of {factor} pixels.")
    pixels = to_tensor(made.working)
    latents = encode(models, pixels)
    size = (latents.shape[3], latents.shape[2])
    mask = None if made.mask is None else torch.from_numpy(latent_mask(made.mask, size))[None, None].to(latents)
    extra = _extra(models, pixels, made.mask, latents) if models.architecture.inpainting else None
    return Canvas(made, latents, mask, extra)


def _extra(models: Models, pixels: torch.Tensor, mask: Image.Image | None, latents: torch.Tensor) -> torch.Tensor:
    hard = torch.ones_like(pixels[:, :1]) if mask is None else to_tensor(mask).round()
    hidden = encode(models, pixels * (1 - hard) + 0.5 * hard)
    return torch.cat([F.interpolate(hard, size=latents.shape[2:]).to(latents), hidden], dim=1)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """RGB or L -> [1, 3 or 1, h, w] in 0..1."""
    pixels = torch.from_numpy(np.array(picture)).float().div(255)
    return (pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1))[None]  # [h, w, c] -> [1, c, h, w]


def repaint(models: Models, request: SampleRequest, canvas: Canvas, seed: int, content: str) -> Iterator[Step]:
    """Sample one result; "latent noise" and "latent nothing" replace the masked latents beforehand."""
    noise = draw_noise([seed], canvas.latents.shape[1:]).to(canvas.latents.device)
    latents = canvas.latents
    if canvas.mask is not None and content in ("latent noise", "latent nothing"):
        inside = noise if content == "latent noise" else torch.zeros_like(noise)
        latents = latents * (1 - canvas.mask) + inside * canvas.mask
    return sample_from(models, request, request.prompts, noise, Start(latents, canvas.mask, canvas.extra))


def blended(canvas: Canvas, latents: torch.Tensor) -> torch.Tensor:
    """The sampled latents inside the mask, the picture's own outside."""
    if canvas.mask is None:
        return latents
    return latents * canvas.mask + canvas.latents * (1 - canvas.mask)


def inpaint_values(job: InpaintJob) -> dict[str, object]:
    """What A1111 writes about inpainting in a picture's parameters."""
    whole = job.inpaint_area == "whole picture"
    return {
        "Denoising strength": float(job.denoising_strength),
        "Mask blur": job.mask_blur,
        "Inpaint area": None if whole else "Only masked",
        "Masked area padding": None if whole else job.only_masked_padding,
        "Masked content": None if job.masked_content == "original" else job.masked_content,
    }
