"""The pictures of one job as they come: progress, rough previews, files, and what was kept when it was stopped."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

import torch
from PIL import Image

from lora_core import host_names
from lora_core.commands import Commands
from lora_core.engine.device import release
from lora_core.engine.latent_preview import rough_picture
from lora_core.engine.models import Models
from lora_core.engine.picture_files import encoded, save_picture, write_whole
from lora_core.engine.sampler_rules import A1111_VP
from lora_core.engine.samplers import Step
from lora_core.engine.vae import decode
from lora_core.errors import Interrupted
from lora_core.events import HELD, Event, Finished, Note, Preview, Progress, Saved, Stage
from lora_core.infotext_fields import Drawn, parameters
from lora_core.jobs.generate import GenerateJob, InpaintJob
from lora_core.prompt_brackets import bracket_faults, open_tags
from lora_core.shapes import UNET
from lora_core.whole_files import write_text


def job_notes(job: GenerateJob) -> Iterator[Event]:
    """A warning for each kind of bracket without its other half, where brackets mean something; and for a schedule
    where the sampler takes none."""
    like_a1111 = job.arithmetic == "a1111"
    if like_a1111 and job.sampler in A1111_VP and job.scheduler != "automatic":
        name = host_names.SAMPLER[job.sampler].a1111
        yield Note(
            f"A1111's {name} has steps of its own: the schedule type {job.scheduler} changes nothing.", "warning"
        )
    if isinstance(job, InpaintJob) and job.picture_format == "jpeg":
        yield Note("JPEG changes pixels outside the mask a little, and keeps no alpha: PNG and WebP do.", "warning")
    weighed = not (like_a1111 and job.emphasis == "none")
    for text, what in ((job.prompt, "prompt"), (job.negative_prompt, "negative prompt")):
        faults = bracket_faults(text, job.arithmetic, what) if weighed else []
        for sentence in [*open_tags(text, what), *faults]:
            yield Note(sentence, "warning")


class Series:
    """Follows a job's batches. `passes`: samplings per batch (2 with hires fix)."""

    def __init__(self, job: GenerateJob, models: Models, prompt: str, passes: int = 1) -> None:
        self.job, self.models, self.prompt = job, models, prompt
        self.saved: list[str] = []
        self.samplings, self.samplings_in_all = 0, job.batch_count * passes
        self.started = time.monotonic()
        self.rough = Path(job.output_dir) / f".{job.name}-preview.jpg"

    def follow(self, steps: Iterator[Step], commands: Commands) -> Generator[Event, None, torch.Tensor | None]:
        """Yields progress and previews; returns the last x, or None when stopped."""
        x = None
        try:
            for step in steps:
                yield self._progress(step)
                yield from self._preview(step, commands.take("sample"))
                if commands.pause and not commands.stop:
                    release(self.models.device)
                    yield HELD
                    commands.wait_while_paused()
                    yield Stage("Drawing")
                if commands.stop:
                    return None
                x = step.x
        except Interrupted:
            return None
        self.samplings += 1
        return x

    def _progress(self, step: Step) -> Progress:
        """Steps of all samplings together, with an estimate of the time left."""
        total = max(step.total, 1) * self.samplings_in_all
        done = max(step.total, 1) * self.samplings + max(step.done, 1)
        left = (time.monotonic() - self.started) / done * (total - done)
        return Progress(done, total, round(left, 1))

    def _preview(self, step: Step, asked: bool) -> Iterator[Event]:
        """A rough picture every few steps; when someone asked for a sample, a true one."""
        every = self.job.preview_every_steps
        due = every and step.done % every == 0 and step.done < step.total
        if not asked and not due:
            return
        picture = self._true_picture(step) if asked else rough_picture(self.models, step.denoised)
        write_whole(self.rough, encoded(picture, kind="jpeg"))
        yield Preview(step.done, str(self.rough), self.prompt)

    def _true_picture(self, step: Step) -> Image.Image:
        picture = decode(self.models, step.denoised[:1], self.job.low_memory)[0]
        self.models.work(UNET)
        return picture

    def keep(self, picture: Image.Image, drawn: Drawn) -> Iterator[Event]:
        """Save one picture with its infotext."""
        folder, text = Path(self.job.output_dir), parameters(self.job, drawn)
        lossless = isinstance(self.job, InpaintJob)
        path = save_picture(picture, folder, self.job.name, text, self.job.picture_format, lossless)
        if self.job.save_text:
            write_text(path.with_suffix(".txt"), f"{text}\n")
        self.saved.append(str(path))
        yield Saved(str(path), "picture", len(self.saved))
        yield Preview(len(self.saved), str(path), self.prompt)

    def notes(self) -> Iterator[Event]:
        """What the models have to say, once."""
        while self.models.notes:
            yield Note(self.models.notes.pop(0), "warning")

    def finished(self, stopped: bool = False) -> Finished:
        self.rough.unlink(missing_ok=True)
        seconds = round(time.monotonic() - self.started, 2)
        return Finished(tuple(self.saved), {"pictures": len(self.saved), "seconds": seconds}, stopped)
