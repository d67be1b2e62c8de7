"""txt2img: a GenerateJob becomes PNG files, as a stream of events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from lora_core import __version__
from lora_core.commands import Commands
from lora_core.engine.apply import apply_loras
from lora_core.engine.device import pick_device, pick_dtype
from lora_core.engine.lora_uses import NamedLora, named_loras, read_uses
from lora_core.engine.models import Models, load_models
from lora_core.engine.picture_files import save_picture
from lora_core.engine.samplers import Step
from lora_core.engine.sampling import SampleRequest, decode, sample
from lora_core.errors import ConfigError
from lora_core.events import Event, Finished, Preview, Progress, Saved, Stage
from lora_core.infotext import infotext, lora_hashes
from lora_core.jobs.generate import GenerateJob
from lora_core.tensors import data_hash, read_header

SAMPLER_NAMES = {"ddim": "DDIM", "euler": "Euler"}
SCHEDULE_NAMES = {"automatic": "Automatic", "normal": "Normal", "karras": "Karras", "ddim_uniform": "DDIM Uniform"}


def generate(job: GenerateJob, commands: Commands | None = None) -> Iterator[Event]:
    """Draw `batch_count` pictures; a raised `stop` ends after the current step and keeps the finished pictures.

    Raises ConfigError, FileError, KeyMismatch, NotFinite.
    """
    commands = commands or Commands()
    prompt, named = named_loras(job)
    yield Stage("Loading the base")
    models = prepared_models(job, named)
    yield Stage("Drawing")
    request = request_of(job, prompt)
    saved: list[str] = []
    started = time.monotonic()
    for index in range(job.batch_count):
        step = None
        for step in sample(models, request, [prompt], [seed_of(job, index)]):
            yield progress(job, step, index, started)
            if commands.stop:
                yield Finished(tuple(saved), stopped=True)
                return
        if step is not None:
            text = parameters(job, seed_of(job, index), lora_digests(named))
            path = save_picture(decode(models, step.x)[0], Path(job.output_dir), job.name, text)
            saved.append(str(path))
            yield Saved(str(path), "picture", index + 1)
            yield Preview(index + 1, str(path), prompt)
    yield Finished(tuple(saved), {"pictures": len(saved), "seconds": round(time.monotonic() - started, 2)})


def prepared_models(job: GenerateJob, named: tuple[NamedLora, ...]) -> Models:
    """The base with the job's LoRAs merged in."""
    device = pick_device(job.device)
    dtype = pick_dtype(job.dtype, device)
    if dtype == torch.float16 and device.type == "cpu":
        raise ConfigError("fp16 does not compute on the CPU: set dtype to fp32 or bf16.")
    models = load_models(job.base, dtype, device, job.vae)
    if not models.text_encoders:
        raise ConfigError(f"{Path(job.base).name} holds no text encoder: choose a complete checkpoint.")
    apply_loras(models, read_uses(named, models.architecture), keep=False)
    return models


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
        subseed_strength=r.subseed_strength,
        noise_source=r.noise_source,
        seed_delta=r.eta_noise_seed_delta,
        eta=r.eta,
        cfg_rescale=job.cfg_rescale,
        low_memory=job.low_memory,
    )


def seed_of(job: GenerateJob, index: int) -> int:
    """Seeds count up from the job's, and start again at 0 after the last one."""
    return (job.seed + index) % 2**64


def progress(job: GenerateJob, step: Step, index: int, started: float) -> Progress:
    """Steps of all pictures together, with an estimate of the time left."""
    total = max(step.total, 1) * job.batch_count
    done = max(step.total, 1) * index + max(step.done, 1)
    left = (time.monotonic() - started) / done * (total - done)
    return Progress(done, total, round(left, 1))


def lora_digests(named: tuple[NamedLora, ...]) -> list[tuple[str, str]]:
    """A1111's hash of each LoRA: the one in its metadata, else of its bytes behind the header."""
    return [(n.name, read_header(n.path).metadata.get("sshs_model_hash") or data_hash(n.path)) for n in named]


def parameters(
    job: GenerateJob, seed: int, digests: list[tuple[str, str]], more: dict[str, object] | None = None
) -> str:
    """The picture's infotext. LoRAs that were given by file appear as tags, so that A1111 finds them again."""
    tags = "".join(f"<lora:{Path(use.path).stem}:{use.strength:g}>" for use in job.loras)
    values: dict[str, object] = {
        "Steps": job.steps,
        "Sampler": SAMPLER_NAMES[job.sampler],
        "Schedule type": SCHEDULE_NAMES[job.scheduler],
        "CFG scale": float(job.cfg_scale),
        "Seed": seed,
        "Size": f"{job.width}x{job.height}",
        "Model": Path(job.base).stem,
        "Clip skip": job.clip_skip if job.clip_skip > 1 else None,
        "Lora hashes": lora_hashes(digests),
        **(more or {}),
        "Version": f"LoRA Loom {__version__}",
    }
    return infotext(f"{job.prompt}{tags}", job.negative_prompt, values)
