"""Draw pictures with ComfyUI's own nodes: checkpoint loader, CLIP text encoder, KSampler, VAE decoder."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import torch
from common import report, request
from narrow import narrow_parts
from safetensors.torch import save_file


def draw(loaded: Any, recipe: dict[str, Any]) -> torch.Tensor:
    """[n,h,w,3] bytes, cut as the SaveImage node does."""
    import nodes

    model, clip, vae = loaded
    for path, *strengths in recipe["loras"]:
        model, clip = nodes.LoraLoader().load_lora(model, clip, path, *strengths)
    clip = nodes.CLIPSetLastLayer().set_last_layer(clip, -recipe["clip_skip"])[0] if recipe["clip_skip"] > 1 else clip
    texts = [nodes.CLIPTextEncode().encode(clip, recipe[key])[0] for key in ("positive", "negative")]
    size = recipe["width"], recipe["height"], recipe["batch_size"]
    empty = nodes.EmptyLatentImage().generate(*size)[0]
    pictures = []
    for seed in recipe["seeds"]:
        how = seed, recipe["steps"], recipe["cfg"], recipe["sampler"], recipe["scheduler"]
        latent = nodes.KSampler().sample(model, *how, *texts, empty, 1.0)[0]
        pixels = nodes.VAEDecode().decode(vae, latent)[0]
        pictures.append(torch.from_numpy(np.clip(255.0 * pixels.numpy(), 0, 255).astype(np.uint8)))
    return torch.cat(pictures)


def main() -> None:
    asked = request()
    sys.path.insert(0, asked["host"])
    sys.argv = ["main.py", "--cpu", "--disable-all-custom-nodes"]
    os.chdir(asked["host"])
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sd
    import comfy.supported_models
    import folder_paths

    comfy.supported_models.SD15.unet_config["model_channels"] = asked["channels"]  # it knows models by their width
    folder_paths.add_model_folder_path("loras", asked["loras"])
    with torch.inference_mode():
        if asked["narrow"]:
            loaded = narrow_parts(asked["checkpoint"], asked["narrow"])
        else:
            loaded = comfy.sd.load_checkpoint_guess_config(asked["checkpoint"])[:3]
        found = {name: draw(loaded, recipe) for name, recipe in asked["recipes"].items()}
    save_file(found, asked["out"])
    report({"done": True})


main()
