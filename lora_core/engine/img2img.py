"""img2img: an Img2ImgJob becomes picture files, as a stream of events. Inpainting goes through the same steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lora_core.commands import Commands
from lora_core.engine import canvas
from lora_core.engine.generate import lora_digests, parameters, prepared_models, progress, request_of, seed_of
from lora_core.engine.lora_uses import named_loras
from lora_core.engine.picture_files import save_picture
from lora_core.engine.sampling import noise_of, sample_from
from lora_core.engine.vae import decode
from lora_core.events import Event, Finished, Preview, Saved, Stage
from lora_core.inpaint_plan import InpaintOptions, InpaintPlan, plan_without_mask
from lora_core.jobs.generate import Img2ImgJob
from lora_core.picture_read import read_picture


def img2img(job: Img2ImgJob, commands: Commands | None = None) -> Iterator[Event]:
    """Draw over a picture; `batch_count` x `batch_size` results. A raised `stop` keeps the finished ones.

    Raises ConfigError, FileError, KeyMismatch, NotFinite.
    """
    options = InpaintOptions(job.width, job.height, resize_mode=job.resize_mode, keep_size=False)
    yield from redraw(job, plan_without_mask(read_picture(job.image), options), commands)


def redraw(job: Img2ImgJob, plan: InpaintPlan, commands: Commands | None = None) -> Iterator[Event]:
    """Draw a plan's working picture anew, below its mask or all of it."""
    commands = commands or Commands()
    prompt, named = named_loras(job)
    yield Stage("Loading the base")
    models = prepared_models(job, named)
    yield Stage("Drawing")
    count = job.batch_count * job.batch_size
    seeds = tuple(seed_of(job, index) for index in range(count))
    request = replace(request_of(job, prompt, job.denoising_strength), seeds=seeds, exactly=job.all_steps)
    prepared = canvas.canvas_of(models, job, plan, request)
    saved: list[str] = []
    started = time.monotonic()
    for index in range(job.batch_count):
        batch = seeds[index * job.batch_size : (index + 1) * job.batch_size]
        noise = noise_of(models, request, batch, prepared.latents.shape[1:])
        start = canvas.start_of(prepared, job)
        latents = prepared.latents
        for step in sample_from(models, request, [prompt] * len(batch), noise, start, commands):
            yield progress(job, step, index, started)
            if commands.stop:
                yield Finished(tuple(saved), stopped=True)
                return
            latents = step.x
        latents = canvas.finished(prepared, job, latents)
        for place, drawn in enumerate(decode(models, latents, job.low_memory)):
            picture = canvas.result(prepared, job, drawn, latents, place)
            text = parameters(job, batch[place], lora_digests(named))
            path = save_picture(picture, Path(job.output_dir), job.name, text)
            saved.append(str(path))
            yield Saved(str(path), "picture", len(saved))
            yield Preview(len(saved), str(path), prompt)
    yield Finished(tuple(saved), {"pictures": len(saved), "seconds": round(time.monotonic() - started, 2)})
