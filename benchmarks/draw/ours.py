"""Our GenerateJob, as a warm worker runs it."""

from __future__ import annotations

import sys
from itertools import count

from clock import asked, measure


def main() -> None:
    want, seeds = asked(), count()
    sys.path.insert(0, want["root"])
    from lora_core.jobs.generate import GenerateJob
    from lora_core.run import run

    def draw(steps: int) -> None:
        job = GenerateJob(
            base=want["checkpoint"], prompt="a red cat", negative_prompt="blurry", output_dir=want["data"],
            width=want["size"], height=want["size"], steps=steps, sampler="euler", seed=next(seeds),
            device="cpu", dtype=want["dtype"], arithmetic=want["arithmetic"],
        )  # fmt: skip
        for _ in run(job):
            pass

    measure(draw, want["steps"])


main()
