"""ComfyUI's own nodes, loaded once as its server keeps them."""

from __future__ import annotations

import os
import sys
from itertools import count

from clock import asked, measure


def main() -> None:
    want, seeds = asked(), count()
    sys.path.insert(0, want["host"])
    sys.argv = ["main.py", "--cpu", "--disable-all-custom-nodes"]
    os.chdir(want["host"])
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sd
    import comfy.supported_models
    import nodes
    import torch

    comfy.supported_models.SD15.unet_config["model_channels"] = want["channels"]  # it knows models by their width
    with torch.inference_mode():
        model, clip, vae = comfy.sd.load_checkpoint_guess_config(want["checkpoint"])[:3]

        def draw(steps: int) -> None:
            texts = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a red cat", "blurry")]
            empty = nodes.EmptyLatentImage().generate(want["size"], want["size"])[0]
            latent = nodes.KSampler().sample(model, next(seeds), steps, 7.0, "euler", "normal", *texts, empty)[0]
            nodes.VAEDecode().decode(vae, latent)

        measure(draw, want["steps"])


main()
