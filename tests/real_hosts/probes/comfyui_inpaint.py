"""Run ComfyUI's own nodes on narrow models: VAE encode, masks, KSampler, VAE decode; pictures go into an .npz."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import torch
from common import report, request
from narrow import narrow_parts, unet_of, vae_of
from safetensors.torch import load_file


def load_whole(path: str, channels: int) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a checkpoint of SD1.5's widths, but for the UNet's."""
    import comfy.sd
    import comfy.supported_models

    comfy.supported_models.SD15.unet_config["model_channels"] = channels
    return comfy.sd.load_checkpoint_guess_config(path)[:3]


def prepared(model: dict[str, Any], widths: dict[str, int]) -> tuple[tuple[Any, Any], list[Any]]:
    """(MODEL, VAE) and (positive, negative) CONDITIONING, which is read from a file unless texts are given."""
    path = model["checkpoint"]
    if "texts" not in model:
        conds = load_file(model["conds"])
        unet = unet_of(path, "sd15", {"context_dim": widths["context"], "model_channels": widths["unet"]})
        return (unet, vae_of(path, widths["vae"])), [[[conds[key], {}]] for key in ("positive", "negative")]
    import nodes

    narrow = model.get("narrow")
    unet, clip, vae = narrow_parts(path, narrow) if narrow else load_whole(path, model["channels"])
    return (unet, vae), [nodes.CLIPTextEncode().encode(clip, text)[0] for text in model["texts"]]


def loaded(path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """IMAGE and MASK of LoadImage; of a mask picture the red channel, as LoadImageMask reads it."""
    from PIL import Image

    picture = Image.open(path)
    image = torch.from_numpy(np.array(picture.convert("RGB")).astype(np.float32) / 255.0)[None]
    if "A" in picture.getbands():
        return image, 1.0 - torch.from_numpy(np.array(picture.getchannel("A")).astype(np.float32) / 255.0)[None]
    return image, torch.zeros(1, 64, 64)


def enlarged(latent: dict[str, Any], case: dict[str, Any], vae: Any) -> dict[str, Any]:
    import nodes

    scale, name = case["hires"]["hires_scale"], case["hires"].get("hires_upscaler", "latent")
    if name.startswith("latent"):
        return nodes.LatentUpscaleBy().upscale(latent, case["method"], scale)[0]
    pictures = nodes.VAEDecode().decode(vae, latent)[0]
    return nodes.VAEEncode().encode(vae, nodes.ImageScaleBy().upscale(pictures, case["method"], scale)[0])[0]


def two_passes(case: dict[str, Any], model: Any, vae: Any, conds: list[Any]) -> np.ndarray:
    import nodes

    latent, denoise, steps = nodes.EmptyLatentImage().generate(case["width"], case["height"])[0], 1.0, case["steps"]
    for last in (False, True):
        if last:
            latent, denoise = enlarged(latent, case, vae), case["hires"]["hires_denoising"]
            steps = case["hires"].get("hires_steps", steps)
        settings = (case["seed"], steps, case["cfg"], case["sampler"], case["scheduler"])
        latent = nodes.KSampler().sample(model, *settings, *conds, latent, denoise)[0]
    return np.clip(255.0 * nodes.VAEDecode().decode(vae, latent)[0].numpy(), 0, 255).astype(np.uint8)


def draw(case: dict[str, Any], model: Any, vae: Any, conds: list[Any]) -> np.ndarray:
    import nodes

    if case["nodes"] == "hires":
        return two_passes(case, model, vae, conds)
    image, mask = loaded(case["image"])
    if case["mask"]:
        mask = loaded(case["mask"])[0][..., 0]
    positive, negative = conds
    if case["nodes"] == "for inpaint":
        latent = nodes.VAEEncodeForInpaint().encode(vae, image, mask, case["grow"])[0]
    elif case["nodes"] == "inpaint model":
        positive, negative, latent = nodes.InpaintModelConditioning().encode(*conds, image, vae, mask)
    else:
        latent = nodes.VAEEncode().encode(vae, image)[0]
    if case["nodes"] == "set mask":
        latent = nodes.SetLatentNoiseMask().set_mask(latent, mask)[0]
    latent = nodes.RepeatLatentBatch().repeat(latent, case["batch"])[0]
    settings = (case["seed"], case["steps"], case["cfg"], case["sampler"], case["scheduler"])
    sampled = nodes.KSampler().sample(model, *settings, positive, negative, latent, case["denoise"])[0]
    drawn = nodes.VAEDecode().decode(vae, sampled)[0]
    return np.clip(255.0 * drawn.numpy(), 0, 255).astype(np.uint8)


def main() -> None:
    asked = request()
    sys.path.insert(0, asked["host"])
    sys.argv = ["main.py", "--cpu", "--force-fp32", "--fp32-vae"]
    os.chdir(asked["host"])
    import comfy.options

    comfy.options.enable_args_parsing()
    found = {}
    for name, model in asked["models"].items():
        with torch.inference_mode():
            parts, pair = prepared(model, asked["widths"])
            for case in asked["cases"]:
                if case["model"] == name:
                    found[case["name"]] = draw(case, *parts, pair)
    np.savez_compressed(asked["out"], **found)
    report({"done": len(found)})


main()
