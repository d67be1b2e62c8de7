"""The folders and the preview prompts of a job as sd-scripts' files name them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lora_core.jobs.train import Subset, TrainJob
from lora_core.kohya_previews import CFG, STEPS
from lora_core.preview_prompt import flags_of


def sources(job: TrainJob) -> list[Subset]:
    """Every folder of a job as a subset of its own, each at each of its sizes."""
    d = job.dataset
    found = [Subset(d.folder, repeats=d.repeats)] if d.folder else []
    found += d.subsets
    if d.metadata_file:
        named = [s.metadata_file is None and not s.class_pictures for s in found]
        found = [replace(s, metadata_file=d.metadata_file) if own else s for s, own in zip(found, named)]
    try:
        further = d.sides()
    except ValueError:
        further = ()
    found += [Subset(d.class_pictures, class_pictures=True)] if d.class_pictures else []
    return [
        one
        for subset in found
        for one in (subset, *(replace(subset, width=n, height=n) for n in further if subset.width is None))
    ]


def prompt_text(job: TrainJob) -> str:
    """The preview prompts as sd-scripts' prompt file: one a line, settings behind it as flags."""
    return "".join(f"{line}\n" for line in prompt_lines(job))


def prompt_lines(job: TrainJob) -> Iterator[str]:
    """Each prompt with the flags that sd-scripts would not take by itself."""
    s = job.saves
    common = {"n": s.preview_negative} if s.preview_negative else {}
    common |= {"s": f"{s.preview_steps}"} if s.preview_steps != STEPS else {}
    common |= {"l": f"{s.preview_cfg:g}"} if s.preview_cfg != CFG else {}
    for prompt in s.preview_prompts:
        own = flags_of(prompt)
        yield "".join([prompt, *(f" --{name} {value}" for name, value in common.items() if name not in own)])
