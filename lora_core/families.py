"""The families as released: one row each. Tools and readers use them where no base model is at hand."""

from __future__ import annotations

import functools

from lora_core.shapes import Architecture, TextEncoderShape, UNetShape, VaeShape

CLIP_L = TextEncoderShape(768, 12, 12, 3072, 49408, 77, "quick_gelu")
CLIP_H = TextEncoderShape(1024, 23, 16, 4096, 49408, 77, "gelu")
CLIP_G = TextEncoderShape(1280, 32, 20, 5120, 49408, 77, "gelu", 1280)

_WIDTHS = (320, 640, 1280, 1280)
UNETS = {
    "sd1": UNetShape(4, 4, _WIDTHS, 2, (1, 1, 1, 0), 1, 768, (8, 8, 8, 8), False),
    "sd2": UNetShape(4, 4, _WIDTHS, 2, (1, 1, 1, 0), 1, 1024, (5, 10, 20, 20), True),
    "sdxl": UNetShape(4, 4, _WIDTHS[:3], 2, (0, 2, 10), 10, 2048, (5, 10, 20), True, 2816),
}
ENCODERS = {"sd1": (CLIP_L,), "sd2": (CLIP_H,), "sdxl": (CLIP_L, CLIP_G)}
TEXT_PREFIXES = {
    "sd1": (("text_encoder", "cond_stage_model.transformer.text_model."),),
    "sd2": (("text_encoder", "cond_stage_model.model."),),
    "sdxl": (
        ("text_encoder", "conditioner.embedders.0.transformer.text_model."),
        ("text_encoder_2", "conditioner.embedders.1.model."),
    ),
}
TITLES = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL", "sdxl_refiner": "SDXL refiner"}


@functools.cache
def reference(family: str) -> Architecture:
    """The released architecture of "sd1", "sd2" or "sdxl", in LDM/SGM layout, epsilon prediction."""
    prefixes = (("unet", "model.diffusion_model."), *TEXT_PREFIXES[family], ("vae", "first_stage_model."))
    vae = VaeShape((128, 256, 512, 512), 4, 2, 32, 0.13025 if family == "sdxl" else 0.18215)
    return Architecture(family, "ldm", "epsilon", False, False, UNETS[family], ENCODERS[family], vae, prefixes)
