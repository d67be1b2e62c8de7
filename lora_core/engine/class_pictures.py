"""Class pictures for prior preservation that the base draws itself, where the user has too few (Ruiz et al. 2022,
DreamBooth, arXiv:2208.12242)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from lora_core.engine.base_loras import base_loras
from lora_core.engine.generate import generate
from lora_core.engine.warm import drop_caches
from lora_core.errors import FileError
from lora_core.events import Event, Finished, Note, Stage
from lora_core.jobs.generate import GenerateJob, LoraUse
from lora_core.jobs.train import Subset, TrainJob
from lora_core.pictures import SUFFIXES

NAME = "class"


def with_class_pictures(job: TrainJob, folder: Path) -> Generator[Event, None, TrainJob]:
    """The job with as many class pictures as it asks for; those that are drawn are a subset of their own in `folder`.

    What is there counts and is not drawn again, also after a stop. Raises what drawing raises.
    """
    d = job.dataset
    if not d.class_prompt:
        return job
    drawn = pictures_in(folder)
    missing = d.class_count - drawn - (pictures_in(Path(d.class_pictures)) if d.class_pictures else 0)
    if missing > 0:
        yield Stage("Drawing class pictures")
        yield Note(f"The base draws {missing} class pictures of {d.class_prompt!r} into {folder}.")
        for event in generate(drawing(job, folder, missing, drawn)):
            if not isinstance(event, (Stage, Finished)):
                yield event
        drop_caches()
    if not drawn and missing <= 0:
        return job
    subset = Subset(str(folder), class_pictures=True, class_words=d.class_prompt, metadata_file="")
    return replace(job, dataset=replace(d, subsets=(*d.subsets, subset)))


def pictures_in(folder: Path) -> int:
    """How many pictures lie in a folder and below it; 0 where there is none. Raises FileError."""
    try:
        return sum(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")) if folder.exists() else 0
    except OSError as error:
        raise FileError(f"The folder for class pictures {folder} cannot be read: {error.strerror or error}.") from error


def drawing(job: TrainJob, folder: Path, missing: int, drawn: int) -> GenerateJob:
    """The missing class pictures at the training's size, drawn as previews are, each with a seed of its own."""
    s, m = job.saves, job.memory
    loras = tuple(LoraUse(str(lora.path), lora.strength) for lora in base_loras(job.network.base_loras))
    return GenerateJob(
        base=job.base,
        prompt=job.dataset.class_prompt,
        negative_prompt=s.preview_negative,
        output_dir=str(folder),
        name=NAME,
        loras=loras,
        width=job.dataset.width,
        height=job.dataset.height,
        steps=s.preview_steps,
        cfg_scale=s.preview_cfg,
        sampler=s.preview_sampler,
        seed=job.seed + drawn,
        batch_count=missing,
        clip_skip=job.captions.clip_skip,
        prediction=job.noise.prediction,
        zero_terminal_snr=job.noise.zero_terminal_snr,
        vae=job.vae,
        device=m.device,
        dtype=m.dtype,
    )
