"""MODEL, CLIP and VAE of checkpoints whose widths ComfyUI does not know, made by its own classes."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file

FAMILIES = {"sd15": ("SD15", ("clip_l",)), "sd2": ("SD20", ("clip_h",)), "sdxl": ("SDXL", ("clip_l", "clip_g"))}
UNET, VAE = "model.diffusion_model.", "first_stage_model."


def clip_of(path: str, kind: str, encoders: list[dict[str, Any]], embeddings: str | None = None, **more: Any) -> Any:
    """The CLIP object that a checkpoint loader hands out, with encoders of these shapes."""
    import comfy.sd
    import comfy.supported_models

    name, parts = FAMILIES[kind]
    config = getattr(comfy.supported_models, name)({})
    options = {**more, **{f"{part}_model_config": shape for part, shape in zip(parts, encoders)}}
    tensors = load_file(path)
    target = config.clip_target(tensors)
    clip = comfy.sd.CLIP(target, embedding_directory=embeddings, model_options=options)
    missing, _ = clip.load_sd(config.process_clip_state_dict(tensors), full_model=True)
    missing = [key for key in missing if "logit_scale" not in key and "text_projection" not in key]
    if missing:
        raise AssertionError(f"not filled: {missing[:5]}")
    return clip


def unet_of(path: str, kind: str, widths: dict[str, int]) -> Any:
    """MODEL; `widths`: model_channels, context_dim and whatever else differs from the family's."""
    import comfy.sd
    import comfy.supported_models as supported

    family = getattr(supported, FAMILIES[kind][0])
    supported.models.insert(0, type("Narrow", (family,), {"unet_config": family.unet_config | widths}))
    return comfy.sd.load_diffusion_model_state_dict(_part(path, UNET))


def vae_of(path: str, channels: int) -> Any:
    import comfy.sd

    shape = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": channels}
    shape |= {"ch_mult": [1, 2, 2, 2], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    return comfy.sd.VAE(sd=_part(path, VAE), config={"params": {"ddconfig": shape, "embed_dim": 4}})


def narrow_parts(path: str, narrow: dict[str, Any]) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE; `narrow`: "kind", "unet" (widths), "encoders" (shapes), "vae" (channels)."""
    model = unet_of(path, narrow["kind"], narrow["unet"])
    return model, clip_of(path, narrow["kind"], narrow["encoders"]), vae_of(path, narrow["vae"])


def _part(path: str, prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v.float() for k, v in load_file(path).items() if k.startswith(prefix)}
