"""A rough picture straight from latents, without the VAE: each pixel a linear mix of a cell's four numbers."""

from __future__ import annotations

import torch
from PIL import Image

from lora_core.engine.models import Models
from lora_core.engine.vae import to_picture

SIDE = 512  # pixels of the longer side at most

# Columns red, green, blue; rows the latents' channels, then a constant. Least-squares fits known to both hosts' users.
FACTORS = {
    "sd": ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177)),
    "sdxl": (
        (0.3651, 0.4232, 0.4341),
        (-0.2533, -0.0042, 0.1068),
        (0.1076, 0.1111, -0.0362),
        (-0.3165, -0.2492, -0.2188),
    ),
}
CONSTANT = {"sd": (0.0, 0.0, 0.0), "sdxl": (0.1084, -0.0175, -0.0011)}


def rough_picture(models: Models, denoised: torch.Tensor) -> Image.Image:
    """Scaled latents [n,4,h,w], the model's estimate of the clean ones -> RGB, the batch side by side."""
    kind = "sdxl" if models.architecture.family == "sdxl" else "sd"
    factors = torch.tensor(FACTORS[kind]).to(denoised)
    row = torch.cat(list(denoised), dim=2).float()  # [4, h, n * w]
    pixels = torch.einsum("chw,cr->rhw", row, factors.float()) + torch.tensor(CONSTANT[kind]).to(row)[:, None, None]
    small = to_picture(((pixels + 1) / 2).clamp(0, 1).cpu())
    scale = max(1, min(4, SIDE // max(small.size)))
    return small.resize((small.width * scale, small.height * scale), Image.Resampling.BILINEAR)
