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

    shared.opts.live_previews_enable = False
    sd_models.list_models()
    sd_models.load_model()

    def draw(steps: int) -> None:
        job = processing.StableDiffusionProcessingTxt2Img(
            prompt="a red cat", negative_prompt="blurry", width=want["size"], height=want["size"], steps=steps,
            sampler_name="Euler", seed=next(seeds), cfg_scale=7.0, do_not_save_samples=True, do_not_save_grid=True,
        )  # fmt: skip
        processing.process_images(job)

    measure(draw, want["steps"])


main()
