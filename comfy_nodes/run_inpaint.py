"""Inpaint Plan and Paste at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lora_core.inpaint_plan import InpaintOptions, InpaintPlan, paste_array, plan
from lora_core.masks import latent_mask

from .declare import Context, Result
from .generate import eighth
from .inpaint import NOTHING
from .pictures import first, image_of, mask_of, matched_mask, pictures_of

LATENT_STEP = 8


@dataclass(frozen=True)
class Planned:
    """A plan with the floats that its source was made from, so that untouched ones stay the same: [h, w, 3 or 4]."""

    plan: InpaintPlan
    pixels: np.ndarray


def run_plan(context: Context, values: dict[str, Any]) -> Result:
    source = first(values["image"], "Inpaint Plan")
    picture = pictures_of(source)[0]
    width, height = (eighth(values[name] or side) for name, side in zip(("width", "height"), picture.size))
    content = values["masked_content"]
    options = InpaintOptions(
        width,
        height,
        blur=values["mask_blur"],
        invert=values["mask_invert"],
        content="fill" if content == NOTHING else content,
        area=values["inpaint_area"],
        padding=values["only_masked_padding"],
        resize_mode=values["resize_mode"],
    )
    made = plan(picture, matched_mask(values["mask"], picture), options)
    working = image_of([made.working])
    mask = mask_of(made.mask) if made.mask is not None else torch.ones(1, height, width)
    small = small_mask(made, (width // LATENT_STEP, height // LATENT_STEP), not values["soft_mask"])
    latent = latents(values.get("vae"), working, small, content == NOTHING)
    return Result((Planned(made, source[0].cpu().numpy()), working, mask, latent))


def small_mask(made: InpaintPlan, size: tuple[int, int], rounded: bool) -> torch.Tensor:
    """[1, 1, h / 8, w / 8], as A1111 masks latents."""
    if made.mask is None:
        return torch.ones(1, 1, size[1], size[0])
    return torch.from_numpy(latent_mask(made.mask, size, rounded))[None, None]


def latents(vae: Any, working: torch.Tensor, mask: torch.Tensor, nothing: bool) -> dict[str, torch.Tensor] | None:
    """What ComfyUI's samplers take; None without a VAE."""
    if vae is None:
        return None
    samples = vae.encode(working[:, :, :, :3])
    return {"samples": samples * (1 - mask.to(samples)) if nothing else samples, "noise_mask": mask}


def run_paste(context: Context, values: dict[str, Any]) -> Result:
    planned: Planned = values["plan"]
    drawn = values["drawn"].detach().float().cpu().numpy()  # [b, h, w, 3]
    pasted = [paste_array(planned.plan, planned.pixels, one) for one in drawn]
    return Result((torch.from_numpy(np.stack(pasted)),))
