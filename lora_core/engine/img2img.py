"""img2img: an Img2ImgJob becomes picture files, as a stream of events. Inpainting goes through the same steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from PIL import Image

from lora_core.commands import Commands
from lora_core.engine import canvas
from lora_core.engine.generate import batch_of, prepared_models, request_of
from lora_core.engine.lora_uses import named_loras
from lora_core.engine.origin import origin_of
from lora_core.engine.sampling import noise_of, sample_from
from lora_core.engine.series import Series, job_notes
from lora_core.engine.vae import decode
from lora_core.events import Event, Stage
from lora_core.inpaint_plan import InpaintOptions, InpaintPlan, plan_without_mask
from lora_core.jobs.generate import Img2ImgJob
from lora_core.picture_read import read_picture
from lora_core.resizing import comfyui_mode


def img2img(job: Img2ImgJob, commands: Commands | None = None) -> Iterator[Event]:
    """Draw over a picture; `batch_count` x `batch_size` results. A raised `stop` keeps the finished ones.

    Raises ConfigError, FileError, KeyMismatch, NotFinite.
    """
    picture, white = read_picture(job.image), job.arithmetic == "a1111"
    mode = resize_mode_of(job, picture)
    options = InpaintOptions(job.width, job.height, resize_mode=mode, keep_size=False, on_white=white)
    yield from redraw(job, plan_without_mask(picture, options), commands)


def resize_mode_of(job: Img2ImgJob, picture: Image.Image) -> str:
    """The job's resize mode; in ComfyUI's arithmetic the picture can be cut where A1111 would resize it."""
    if job.arithmetic == "a1111":
        return job.resize_mode
    return comfyui_mode(job.resize_mode, picture.size, (job.width, job.height))


def redraw(job: Img2ImgJob, plan: InpaintPlan, commands: Commands | None = None) -> Iterator[Event]:
    """Draw a plan's working picture anew, below its mask or all of it."""
    commands = commands or Commands()
    prompt, named = named_loras(job)
    yield from job_notes(job)
    yield Stage("Loading the base")
    models = prepared_models(job, named)
    yield Stage("Drawing")
    origin = origin_of(job, models, named)
    request = replace(request_of(job, prompt, job.denoising_strength), exactly=job.all_steps)
    request = replace(request, embeddings=origin.embeddings)
    batches = [batch_of(job, request, index) for index in range(job.batch_count)]
    request = replace(request, seeds=tuple(seed for batch in batches for seed in batch.seeds))
    prepared = canvas.canvas_of(models, job, plan, request)
    series = Series(job, models, prompt)
    for batch in batches:
        noise = noise_of(models, batch, batch.seeds, prepared.latents.shape[1:])
        steps = sample_from(models, batch, batch.prompts, noise, canvas.start_of(prepared, job), commands)
        latents = yield from series.follow(steps, commands)
        if latents is None:
            yield series.finished(stopped=True)
            return
        latents = canvas.finished(prepared, job, latents)
        for place, drawn in enumerate(decode(models, latents, job.low_memory)):
            picture = canvas.result(prepared, job, drawn, latents, place)
            yield from series.keep(picture, origin.drawn(batch, place))
        yield from series.notes()
    yield series.finished()
