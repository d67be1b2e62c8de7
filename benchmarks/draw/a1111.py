"""A1111's own processing, with the model that its server would have loaded."""

from __future__ import annotations

import os
import sys
from itertools import count

from clock import asked, measure


def main() -> None:
    want, seeds = asked(), count()
    flags = "--skip-torch-cuda-test --use-cpu all --no-half --ui-debug-mode --no-hashing --disable-nan-check"
    sys.argv = ["launch.py", *flags.split(), "--data-dir", want["data"], "--ckpt", want["checkpoint"]]
    sys.path.insert(0, want["host"])
    os.chdir(want["host"])
    from modules import initialize

    initialize.imports()
    initialize.initialize()
    from modules import processing, sd_models, shared
    from PIL import Image

    shared.opts.live_previews_enable = False
    sd_models.list_models()
    sd_models.load_model()

    plain = {
        "prompt": "a red cat", "negative_prompt": "blurry", "width": want["size"], "height": want["size"],
        "sampler_name": "Euler", "cfg_scale": 7.0, "do_not_save_samples": True, "do_not_save_grid": True,
    }  # fmt: skip

    def txt2img(steps: int) -> None:
        job = processing.StableDiffusionProcessingTxt2Img(**plain, steps=steps, seed=next(seeds))
        processing.process_images(job)

    def inpaint(steps: int) -> None:
        image, mask = Image.open(want["image"]), Image.open(want["mask"])
        job = processing.StableDiffusionProcessingImg2Img(
            init_images=[image], mask=mask, inpainting_fill=1, denoising_strength=1.0, resize_mode=0,
            inpaint_full_res=False, **plain, steps=steps, seed=next(seeds),
        )  # fmt: skip
        processing.process_images(job)

    draws = {"txt2img": txt2img, "inpaint": inpaint}
    measure({kind: draws[kind] for kind in want["kinds"]}, want["steps"])


main()
