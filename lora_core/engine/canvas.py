"""A picture and its mask as latents: what img2img and inpainting start from, and how their result becomes a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lora_core.color_match import match_colors
from lora_core.engine.models import Models
from lora_core.engine.request import SampleRequest, Start
from lora_core.engine.sampling import latent_shape, noise_of
from lora_core.engine.vae import encode
from lora_core.inpaint_plan import InpaintPlan, paste
from lora_core.jobs.generate import Img2ImgJob, InpaintJob
from lora_core.masks import latent_mask
from lora_core.soft_inpainting import SoftOptions, at_picture_size, blend, change_mask, step_weight

BLANK_LATENTS = (0.8223, -0.6876, 0.6364, 0.1380)  # ComfyUI's picture of nothing for 9-channel models

Draw = Callable[[torch.Size], torch.Tensor]


@dataclass(frozen=True)
class Canvas:
    """A plan in latents: scaled latents [n,c,h,w] to start from, `mask` [1,1,h,w] (1 = repaint) or None for all of it.

    `extra` [n,c+1,h,w]: mask and masked picture for 9-channel models. `soft`: soft inpainting's sliders, or None.
    """

    plan: InpaintPlan
    latents: torch.Tensor
    mask: torch.Tensor | None
    extra: torch.Tensor | None
    soft: SoftOptions | None


def canvas_of(models: Models, job: Img2ImgJob, plan: InpaintPlan, request: SampleRequest) -> Canvas:
    """Encode a plan's working picture once for each picture of a batch.

    `request.seeds` are those of the whole job. In A1111's arithmetic the VAE's posterior is sampled. A1111 draws that
    noise from torch's global generator as the generation before has left it: seeded by that one's last seed. Here the
    one before is taken to have been the same job.
    """
    draw = _global_noise(request.seeds[-1]) if job.arithmetic == "a1111" else None
    count = min(job.batch_size, len(request.seeds))
    pixels = to_tensor(plan.working)
    mask = _latent_mask(models, job, plan, request)
    encoded = _hidden(pixels, _pixel_mask(plan), 1.0) if _content(job) == "grey" and plan.mask is not None else pixels
    latents = encode(models, encoded, job.low_memory, draw and _one_by_one(draw, count))
    latents = _fitted(latents, models, request).expand(count, -1, -1, -1)
    if _content(job) == "latent noise" and job.arithmetic == "a1111":
        draw = _global_noise(request.seeds[count - 1])
    extra = _extra(models, job, plan, (pixels, latents), draw) if models.architecture.inpainting else None
    if mask is not None:
        mask = mask.to(latents)
        latents = _with_content(models, job, request, latents, mask)
    return Canvas(plan, latents, mask, extra, soft_options(job) if mask is not None else None)


def soft_options(job: Img2ImgJob) -> SoftOptions | None:
    """The sliders of a job with soft inpainting."""
    if not isinstance(job, InpaintJob) or not job.soft.soft_inpainting:
        return None
    s = job.soft
    return SoftOptions(
        bias=s.mask_blend_power,
        preservation=s.mask_blend_scale,
        contrast=s.detail_preservation,
        mask_influence=s.composite_mask_influence,
        threshold=s.composite_difference_threshold,
        difference_contrast=s.composite_difference_contrast,
    )


def start_of(canvas: Canvas, job: Img2ImgJob) -> Start:
    """What sampling starts from."""
    soft, mask = canvas.soft, canvas.mask
    if soft is None or mask is None:
        return Start(canvas.latents, mask, canvas.extra, noise_multiplier=job.noise_multiplier)

    def mixed(current: torch.Tensor, level: float, call: int) -> torch.Tensor:
        return blend(canvas.latents, current, step_weight(mask, level, soft), soft.contrast)

    return Start(canvas.latents, mask, canvas.extra, noise_multiplier=job.noise_multiplier, blend=mixed)


def finished(canvas: Canvas, job: Img2ImgJob, latents: torch.Tensor) -> torch.Tensor:
    """The sampled latents [n,c,h,w] with the start's own outside the mask, as A1111 mixes them once more at the end."""
    if canvas.mask is None or canvas.soft is not None or job.arithmetic != "a1111":
        return latents
    return latents * canvas.mask + canvas.latents * (1 - canvas.mask)


def result(canvas: Canvas, job: Img2ImgJob, drawn: Image.Image, latents: torch.Tensor, index: int) -> Image.Image:
    """The decoded picture number `index` of a batch, corrected and pasted into its source; `latents` as sampled."""
    plan, shown = canvas.plan, None
    if canvas.soft is not None and canvas.mask is not None:
        change = torch.linalg.vector_norm(latents[index] - canvas.latents[index], dim=0)
        shown = at_picture_size(change_mask(change, canvas.mask[0, 0], canvas.soft), drawn.size)
    if job.color_correction:
        drawn = match_colors(drawn, plan.working)
    if isinstance(job, InpaintJob) and plan.mask is not None and not job.overlay_original:
        return drawn
    return paste(plan, drawn, shown)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """RGB or L -> [1, 3 or 1, h, w] in 0..1."""
    pixels = torch.from_numpy(np.array(picture)).float().div(255)
    return (pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1))[None]  # [h, w, c] -> [1, c, h, w]


def _global_noise(seed: int) -> Draw:
    """N(0, 1) as from torch's global CPU generator after it was seeded."""
    generator = torch.Generator().manual_seed(seed % 2**64)
    return lambda shape: torch.randn(shape, generator=generator)


def _one_by_one(draw: Draw, count: int) -> Draw:
    return lambda shape: torch.cat([draw(torch.Size((1, *shape[1:]))) for _ in range(count)])


def _together(draw: Draw, count: int) -> Draw:
    return lambda shape: draw(torch.Size((count, *shape[1:])))


def _content(job: Img2ImgJob) -> str:
    return job.masked_content if isinstance(job, InpaintJob) else "original"


def _pixel_mask(plan: InpaintPlan) -> torch.Tensor:
    """[1,1,H,W] of 0 and 1 at the working picture's size."""
    assert plan.mask is not None
    return F.interpolate(to_tensor(plan.mask), size=plan.working.size[::-1], mode="bilinear").round()


def _latent_mask(models: Models, job: Img2ImgJob, plan: InpaintPlan, request: SampleRequest) -> torch.Tensor | None:
    """[1,1,h,w]: bicubic and rounded (A1111), bicubic (its soft inpainting) or bilinear (ComfyUI)."""
    if plan.mask is None:
        return None
    _, height, width = latent_shape(models, request)
    mask = to_tensor(plan.mask)
    if _content(job) == "grey" and isinstance(job, InpaintJob):
        mask = _grown(mask.round(), job.mask_grow)
    elif plan.uncut_mask is not None and not models.architecture.inpainting:
        mask = to_tensor(plan.uncut_mask)  # SetLatentNoiseMask does not cut the mask as VAEEncode cuts the picture
    if job.arithmetic != "a1111":
        return F.interpolate(mask, size=(height, width), mode="bilinear")
    picture = Image.fromarray((mask[0, 0] * 255).round().byte().numpy())
    return torch.from_numpy(latent_mask(picture, (width, height), soft_options(job) is None))[None, None]


def _grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """ComfyUI's grow_mask_by: every white pixel becomes a square of that side, an even one reaching right and down."""
    if pixels == 0:
        return mask
    around = F.conv2d(mask, torch.ones((1, 1, pixels, pixels)), padding=pixels // 2)
    return around.clamp(0, 1)[:, :, : mask.shape[2], : mask.shape[3]].round()


def _hidden(pixels: torch.Tensor, mask: torch.Tensor, strength: float) -> torch.Tensor:
    """Grey below the mask, as far as `strength` says."""
    shown = pixels * 2 - 1
    return (torch.lerp(shown, shown * (1 - mask), strength) + 1) / 2


def _fitted(latents: torch.Tensor, models: Models, request: SampleRequest) -> torch.Tensor:
    """Latents of a picture of another size, scaled: the resize mode "latent upscale"."""
    size = latent_shape(models, request)[1:]
    return latents if latents.shape[2:] == size else F.interpolate(latents, size=size, mode="bilinear")


def _extra(
    models: Models, job: Img2ImgJob, plan: InpaintPlan, of: tuple[torch.Tensor, torch.Tensor], draw: Draw | None
) -> torch.Tensor:
    """Mask and masked picture [n,c+1,h,w]; `of`: pixels [1,3,H,W] and latents [n,c,h,w]."""
    pixels, latents = of
    draw = draw and _together(draw, len(latents))
    size = latents.shape[2:]
    if plan.mask is None and job.arithmetic != "a1111":
        blank = torch.tensor(BLANK_LATENTS).to(latents)[None, :, None, None].expand_as(latents)
        return torch.cat([torch.ones_like(latents[:, :1]), blank], dim=1)
    mask = torch.ones_like(pixels[:, :1]) if plan.mask is None else to_tensor(plan.mask)
    rounded = soft_options(job) is None or models.architecture.family != "sd1"
    hard = mask.round() if rounded else mask
    strength = job.conditioning_mask_strength if isinstance(job, InpaintJob) else 1.0
    hidden = encode(models, _hidden(pixels, F.interpolate(hard, size=pixels.shape[2:]), strength), job.low_memory, draw)
    if hidden.shape[2:] != size:
        hidden = F.interpolate(hidden, size=size, mode="bilinear")
    small = F.interpolate(hard, size=size)
    if job.arithmetic != "a1111":
        small = F.interpolate(mask, size=size, mode="bilinear").round()
    count = len(latents)
    return torch.cat([small.to(hidden).expand(count, -1, -1, -1), hidden.expand(count, -1, -1, -1)], dim=1)


def _with_content(
    models: Models, job: Img2ImgJob, request: SampleRequest, latents: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """ "latent noise" and "latent nothing" below the mask; the noise is that of the job's first pictures."""
    if _content(job) not in ("latent noise", "latent nothing"):
        return latents
    kept = latents * (1 - mask)
    if _content(job) == "latent nothing":
        return kept
    plain = replace(request, subseed_strength=0.0, subseeds=())
    noise = noise_of(models, plain, request.seeds[: len(latents)], latents.shape[1:])
    return kept + noise.first().to(latents) * mask
