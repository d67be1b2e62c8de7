"""Inpainting: an InpaintJob becomes picture files, as a stream of events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lora_core.commands import Commands
from lora_core.engine.img2img import redraw, resize_mode_of
from lora_core.errors import ConfigError
from lora_core.events import Event, Note
from lora_core.inpaint_plan import InpaintOptions, InpaintPlan, plan
from lora_core.jobs.generate import InpaintJob
from lora_core.masks import mask_from_alpha, mask_from_picture
from lora_core.picture_read import read_picture

BLANK = 'The mask is blank, so "only masked" has nothing to cut out: the whole picture is drawn anew (img2img).'
NOTHING = "The mask is blank: nothing of the picture will change."


def inpaint(job: InpaintJob, commands: Commands | None = None) -> Iterator[Event]:
    """Repaint the masked part; `batch_count` x `batch_size` results. A raised `stop` keeps the finished ones.

    Raises ConfigError, FileError, KeyMismatch, NotFinite.
    """
    made = plan_of(job)
    if made.mask is None:
        yield Note(BLANK, "warning")
    elif made.mask.getbbox() is None:
        yield Note(NOTHING, "warning")
    yield from redraw(job, made, commands)


def plan_of(job: InpaintJob) -> InpaintPlan:
    """Read picture and mask, and prepare them. Raises FileError and ConfigError."""
    picture = read_picture(job.image)
    rounded = not job.soft.soft_inpainting
    mask = mask_from_picture(read_picture(job.mask), rounded) if job.mask else mask_from_alpha(picture)
    if mask is None:
        name = Path(job.image).name
        raise ConfigError(f"{name} has no transparency to take as the mask: name a mask picture (setting mask).")
    return plan(picture, mask, replace(options_of(job), resize_mode=resize_mode_of(job, picture)))


def options_of(job: InpaintJob) -> InpaintOptions:
    """The part of a job that the plan of any picture needs."""
    return InpaintOptions(
        width=job.width,
        height=job.height,
        blur=job.mask_blur,
        invert=job.mask_invert,
        content=job.masked_content,
        area=job.inpaint_area,
        padding=job.only_masked_padding,
        resize_mode=job.resize_mode,
        keep_size=job.keep_size,
        on_white=job.arithmetic == "a1111",
    )
