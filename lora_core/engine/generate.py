"""txt2img: a GenerateJob becomes picture files, as a stream of events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from lora_core.commands import Commands
from lora_core.engine.device import pick_device, pick_dtype
from lora_core.engine.hires import second_pass
from lora_core.engine.lora_uses import NamedLora, merge_loras, named_loras
from lora_core.engine.models import Models, load_models
from lora_core.engine.origin import origin_of
from lora_core.engine.prompt_encoding import EncodedTexts
from lora_core.engine.sampling import SampleRequest, decode, sample
from lora_core.engine.series import Series, job_notes
from lora_core.engine.warm import state, warm_models
from lora_core.errors import ConfigError
from lora_core.events import Event, Stage
from lora_core.infotext_fields import has_hires
from lora_core.jobs.generate import GenerateJob


def generate(job: GenerateJob, commands: Commands | None = None) -> Iterator[Event]:
    """Draw `batch_count` x `batch_size` pictures; a raised `stop` ends before the next evaluation of the UNet and keeps
    the finished pictures. Raises ConfigError, FileError, KeyMismatch, NotFinite.
    """
    commands = commands or Commands()
    prompt, named = named_loras(job)
    yield from job_notes(job)
    yield Stage("Loading the base")
    models = prepared_models(job, named)
    yield Stage("Drawing")
    origin = origin_of(job, models, named)
    request = replace(request_of(job, prompt), embeddings=origin.embeddings)
    hires = job.hires if has_hires(job) else None
    series = Series(job, models, prompt, 1 if hires is None else 2)
    for index in range(job.batch_count):
        batch = batch_of(job, request, index)
        latents = yield from series.follow(sample(models, batch, batch.prompts, batch.seeds, commands), commands)
        if latents is not None and hires is not None:
            latents = yield from series.follow(second_pass(models, batch, hires, latents, commands), commands)
        if latents is None:
            yield series.finished(stopped=True)
            return
        for place, picture in enumerate(decode(models, latents, job.low_memory)):
            yield from series.keep(picture, origin.drawn(batch, place))
        yield from series.notes()
    yield series.finished()


def prepared_models(job: GenerateJob, named: tuple[NamedLora, ...]) -> Models:
    """The base with the job's LoRAs merged in; those of the job before, where nothing has changed."""
    device = pick_device(job.device)
    dtype = pick_dtype(job.dtype, device)
    if dtype == torch.float16 and device.type == "cpu":
        raise ConfigError("fp16 does not compute on the CPU: set dtype to fp32 or bf16.")

    def load() -> Models:
        waiting = job.low_memory and device.type != "cpu"
        models = load_models(job.base, dtype, torch.device("cpu") if waiting else device, job.vae)
        models.one_at_a_time = device if waiting else None
        if not models.text_encoders:
            raise ConfigError(f"{Path(job.base).name} holds no text encoder: choose a complete checkpoint.")
        merge_loras(models, named, job.arithmetic)
        models.texts = tuple(EncodedTexts() for _ in models.text_encoders)
        return models

    loras = tuple((lora, state(lora.path)) for lora in named)
    return warm_models((state(job.base), state(job.vae), dtype, device, job.arithmetic, job.low_memory, loras), load)


def request_of(job: GenerateJob, prompt: str, denoise: float = 1.0) -> SampleRequest:
    r = job.randomness
    return SampleRequest(
        prompts=(prompt,),
        seeds=(job.seed,),
        negative=job.negative_prompt,
        width=job.width,
        height=job.height,
        steps=job.steps,
        cfg=job.cfg_scale,
        sampler=job.sampler,
        scheduler=job.scheduler,
        denoise=denoise,
        clip_skip=job.clip_skip,
        prediction=None if job.prediction == "auto" else job.prediction,
        zero_terminal_snr=None if job.zero_terminal_snr == "auto" else job.zero_terminal_snr == "on",
        arithmetic=job.arithmetic,
        emphasis=job.emphasis,
        padding=job.pad_prompts,
        subseed_strength=r.subseed_strength,
        noise_source=r.noise_source,
        seed_delta=r.eta_noise_seed_delta,
        eta=r.eta,
        cfg_rescale=job.cfg_rescale,
        low_memory=job.low_memory,
    )


def batch_of(job: GenerateJob, request: SampleRequest, index: int) -> SampleRequest:
    """The request for batch number `index`: its prompts, seeds and subseeds, as the job's host counts them.

    A1111: each picture one seed up, or with a variation each picture one subseed up. ComfyUI: each batch one seed up,
    all of its pictures drawn from that seed together. Seeds start again at 0 after the last one.
    """
    places = range(index * job.batch_size, (index + 1) * job.batch_size)
    varied = job.randomness.subseed_strength > 0
    if job.arithmetic == "comfyui":
        seeds = [job.seed + index] * job.batch_size
    else:
        seeds = [job.seed + (0 if varied else place) for place in places]
    subseeds = [job.randomness.subseed + place for place in places]
    wrapped = tuple(tuple(seed % 2**64 for seed in counted) for counted in (seeds, subseeds))
    return replace(request, prompts=request.prompts[:1] * job.batch_size, seeds=wrapped[0], subseeds=wrapped[1])
