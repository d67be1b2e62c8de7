"""Weights of a model as ComfyUI names them, in our canonical names."""

from __future__ import annotations

import functools

from lora_core.families import reference
from lora_core.keys_unet import unet_modules
from lora_core.shapes import UNET

MODEL_PREFIX = "diffusion_model."
TEXT_PREFIXES = {
    "clip_l.transformer.": "text_encoder.",
    "clip_h.transformer.": "text_encoder.",
    "clip_g.transformer.": "text_encoder_2.",
}


@functools.cache
def _unet_names(family: str) -> dict[str, str]:
    """LDM's names of the UNet's layers -> ours. Widths do not matter for names."""
    return {module.ldm: module.name for module in unet_modules(reference(family).unet)}


def canonical_of(weight: str, family: str) -> str:
    """The module of "diffusion_model.input_blocks.1.1.proj_in.weight" and its like; others have names of their own."""
    module = weight.rpartition(".")[0]
    if module.startswith(MODEL_PREFIX):
        ldm = module.removeprefix(MODEL_PREFIX)
        return f"{UNET}.{_unet_names(family).get(ldm, ldm)}"
    for theirs, ours in TEXT_PREFIXES.items():
        if module.startswith(theirs):
            return ours + module.removeprefix(theirs)
    return f"text_encoder.{module}"
