"""The folders and the preview prompts of a job as sd-scripts' files name them."""

from __future__ import annotations

from collections.abc import Iterator

from lora_core.jobs.train import Subset, TrainJob


def sources(job: TrainJob) -> list[Subset]:
    """Every folder of a job as a subset of its own, each at each of its sizes."""
    d = job.dataset
    found = [Subset(d.folder, repeats=d.repeats)] if d.folder else []
    found += d.subsets
    found += [Subset(d.class_pictures, class_pictures=True)] if d.class_pictures else []
    return found


def prompt_text(job: TrainJob) -> str:
    """The preview prompts as sd-scripts' prompt file: one a line, settings behind it as flags."""
    return "".join(f"{line}\n" for line in prompt_lines(job))


def prompt_lines(job: TrainJob) -> Iterator[str]:
    s = job.saves
    for prompt in s.preview_prompts:
        flags = [f"--s {s.preview_steps}", f"--l {s.preview_cfg:g}"]
        yield " ".join([prompt, *(flag for flag in flags if f" {flag.split()[0]} " not in f" {prompt} ")])
