"""Our GenerateJob, as a warm worker runs it."""

from __future__ import annotations

import sys
from itertools import count

from clock import asked, measure


def main() -> None:
    want, seeds = asked(), count()
    sys.path.insert(0, want["root"])
    from lora_core.jobs.generate import GenerateJob, InpaintJob
    from lora_core.run import run

    plain = {
        "base": want["checkpoint"], "prompt": "a red cat", "negative_prompt": "blurry", "output_dir": want["data"],
        "width": want["size"], "height": want["size"], "sampler": "euler", "device": "cpu", "dtype": want["dtype"],
        "arithmetic": want["arithmetic"],
    }  # fmt: skip
    masked = {"image": want["image"], "mask": want["mask"], "denoising_strength": 1.0}

    def txt2img(steps: int) -> None:
        list(run(GenerateJob(**plain, steps=steps, seed=next(seeds))))

    def inpaint(steps: int) -> None:
        list(run(InpaintJob(**plain, **masked, steps=steps, seed=next(seeds))))

    draws = {"txt2img": txt2img, "inpaint": inpaint}
    measure({kind: draws[kind] for kind in want["kinds"]}, want["steps"])


main()
