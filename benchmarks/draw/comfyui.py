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
    import numpy as np
    import torch
    from PIL import Image

    comfy.supported_models.SD15.unet_config["model_channels"] = want["channels"]  # it knows models by their width
    with torch.inference_mode():
        model, clip, vae = comfy.sd.load_checkpoint_guess_config(want["checkpoint"])[:3]

        def sampled(steps: int, start: dict) -> torch.Tensor:
            texts = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a red cat", "blurry")]
            latent = nodes.KSampler().sample(model, next(seeds), steps, 7.0, "euler", "normal", *texts, start)[0]
            return nodes.VAEDecode().decode(vae, latent)[0]

        def txt2img(steps: int) -> None:
            sampled(steps, nodes.EmptyLatentImage().generate(want["size"], want["size"])[0])

        def inpaint(steps: int) -> None:
            image, mask = (torch.from_numpy(np.array(Image.open(want[key]))) / 255 for key in ("image", "mask"))
            start = nodes.SetLatentNoiseMask().set_mask(nodes.VAEEncode().encode(vae, image[None])[0], mask[None])[0]
            sampled(steps, start)

        draws = {"txt2img": txt2img, "inpaint": inpaint}
        measure({kind: draws[kind] for kind in want["kinds"]}, want["steps"])


main()
