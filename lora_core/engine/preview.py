"""Pictures of a training in progress: fixed prompts, fixed seeds, with the LoRA as it is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from lora_core.engine import base_loras, models
from lora_core.engine.averages import as_saved
from lora_core.engine.device import release
from lora_core.engine.network import without_dropout
from lora_core.engine.new_words import spelled
from lora_core.engine.sampling import SampleRequest, sample_pictures
from lora_core.errors import LoomError
from lora_core.events import Event, Note, Preview, Stage
from lora_core.preview_prompt import PreviewPrompt, read_preview

if TYPE_CHECKING:
    from lora_core.engine.setup import Run


def draw_previews(run: Run, step: int) -> Iterator[Event]:
    """One picture for each preview prompt (the trigger word when there is none); a failure is said, never fatal."""
    yield Stage("Drawing previews")
    try:
        yield from pictures(run, step)
    except (LoomError, RuntimeError, OSError) as error:
        release(run.device)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        yield Note(f"The previews after step {step} could not be drawn: {reason}", "warning")
    yield Stage("Training")


@torch.no_grad()
def pictures(run: Run, step: int) -> Iterator[Event]:
    job = run.job
    lines = job.saves.preview_prompts or (job.captions.trigger or job.name,)
    loaded = models_of(run)
    folder = run.folder / "previews"
    folder.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(lines):
        prompt = read_preview(line)
        with (
            as_saved(run),
            without_dropout((run.unet, *run.encoders)),
        ):  # and without autocast, under which the VAE would not be fp32
            (picture,) = sample_pictures(loaded, request_of(run, prompt, number))
        path = folder / f"{job.name}-{step:06d}-{number:02d}.png"
        picture.save(path)
        yield Preview(step, str(path), prompt.text)


def models_of(run: Run) -> models.Models:
    """The models in training as a drawing takes them; what the training does not hold is loaded."""
    job = run.job
    load_encoders = partial(base_loras.load_text_encoders, job, run.architecture, run.dtype, run.device)
    encoders = run.encoders or load_encoders()
    vae = models.load_vae(job.base, torch.float32, run.device, job.vae)
    return models.Models(run.architecture, run.unet, encoders, vae)


def request_of(run: Run, prompt: PreviewPrompt, number: int) -> SampleRequest:
    """How preview `number` is drawn: as its line says, else as the job says."""
    job, s = run.job, run.job.saves
    word, vectors = job.captions.trigger.strip(), job.network.token_vectors
    width, height = job.dataset.width // 64 * 64 or 64, job.dataset.height // 64 * 64 or 64
    return SampleRequest(
        (spelled(prompt.text, word, vectors),),
        (job.seed + number if prompt.seed is None else prompt.seed,),
        negative=spelled(s.preview_negative if prompt.negative is None else prompt.negative, word, vectors),
        width=prompt.width or width,
        height=prompt.height or height,
        steps=prompt.steps or s.preview_steps,
        cfg=s.preview_cfg if prompt.cfg is None else prompt.cfg,
        sampler=prompt.sampler or s.preview_sampler,
        clip_skip=job.captions.clip_skip,
        batch_size=1,
        prediction=run.prediction,
        zero_terminal_snr=bool(run.alphas_bar[-1] == 0),
    )
