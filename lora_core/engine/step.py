"""One optimizer step: the gradients of its batches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from lora_core.engine.conditioning import unet_arguments
from lora_core.engine.crew import ALONE, Crew
from lora_core.engine.device import autocast
from lora_core.engine.dropping import base_alone
from lora_core.engine.epochs import Batch, Item
from lora_core.engine.loss import training_loss
from lora_core.engine.noise import Noised, diffuse, draw_noise, draw_timesteps, perturbed
from lora_core.engine.randomness import mix
from lora_core.jobs.train import TrainJob

if TYPE_CHECKING:
    from lora_core.engine.setup import Run

WHOLE = slice(None)


def one_step(run: Run, step: int, crew: Crew = ALONE) -> tuple[float, float]:
    """Gradients of optimizer step `step` (0-based): mean loss over its batches, norm of the clipped gradient.

    The parameters are not moved here; `Guard.judge` does that when both numbers are finite.
    """
    epoch, batches = batches_of(run, step)
    n = run.job.network
    if n.dropout or n.rank_dropout or n.module_dropout:
        torch.manual_seed(mix(run.job.seed, "dropout", step))
    run.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for micro, batch in enumerate(batches):
        rows = crew.share(len(batch))
        if not range(len(batch))[rows]:
            continue
        loss = batch_loss(run, batch, epoch, step, micro, rows) / len(batches)
        (run.scaler.scale(loss) if run.scaler else loss).backward()
        total += loss.item()
    total = crew.summed(run.parameters, total)
    if run.scaler:
        run.scaler.unscale_(run.optimizer)
    limit = run.job.optimization.max_grad_norm or math.inf
    norm = torch.nn.utils.clip_grad_norm_(run.parameters, limit)
    return total, float(norm)


def batches_of(run: Run, step: int) -> tuple[int, list[Batch]]:
    """The epoch of an optimizer step and the batches that it accumulates."""
    epoch, position = divmod(step, run.steps_per_epoch)
    batches = run.dataset.epoch(epoch)
    size = run.job.optimization.accumulation
    return epoch, batches[position * size : (position + 1) * size]


def batch_loss(run: Run, batch: Batch, epoch: int, step: int, micro: int, rows: slice = WHOLE) -> torch.Tensor:
    """Noise the latents, predict, compare. Random numbers depend on (seed, step, micro) alone.

    With `rows`, the part of the batch's loss that those rows make.
    """
    settings, seed = run.job.noise, run.job.seed
    latents = run.cache.latents(batch)
    noise = draw_noise(settings, latents, seed, step, micro)
    seen = perturbed(settings, noise, seed, step, micro)
    timesteps = draw_timesteps(settings, len(latents), seed, step, micro)
    noised = diffuse(latents, noise, timesteps, run.alphas_bar, run.prediction, seen).rows(rows)
    part = replace(batch, items=batch.items[rows])
    warm = tag_warmth(run.job, step, run.total_steps)
    captions = [run.dataset.caption(item, epoch, warm) for item in part.items]
    with autocast(run.device, run.dtype):
        text = run.encode(captions)
        arguments = unet_arguments(text, run.time_ids(part), run.device)
        inputs = run.to_input(noised.latents), noised.timesteps.to(run.device)
        output = run.unet(*inputs, return_dict=False, **arguments)[0]
        if any(taught_by_base(run, item) for item in part.items):
            noised = prior_target(run, part, noised, captions, inputs)
    weights = run.dataset.weights(part)
    loss = training_loss(
        output,
        noised.to(run.device),
        settings,
        run.prediction,
        run.cache.masks(part),
        None if weights is None else torch.tensor(weights),
    )
    return loss * (len(part) / len(batch))


def tag_warmth(job: TrainJob, step: int, total: int) -> float:
    """The share of the tag warm-up that is done."""
    length = job.captions.tag_warmup
    steps = length if length >= 1 else math.floor(length * total)
    return min(1.0, step / steps) if steps else 1.0


def taught_by_base(run: Run, item: Item) -> bool:
    """Whether the target of a picture is what the base makes of it."""
    picture = run.dataset.picture_of(item)
    return picture.subset.keeps_base or (picture.is_class and run.job.dataset.class_target == "base")


def prior_target(
    run: Run, batch: Batch, noised: Noised, captions: list[str], inputs: tuple[torch.Tensor, torch.Tensor]
) -> Noised:
    """The target of some pictures becomes what the base alone predicts for them."""
    with torch.no_grad(), base_alone((run.unet, *run.encoders)):
        arguments = unet_arguments(run.encode(captions), run.time_ids(batch), run.device)
        base = run.unet(*inputs, return_dict=False, **arguments)[0].float().to(noised.target.device)
    rows = torch.tensor([taught_by_base(run, item) for item in batch.items])
    return replace(noised, target=torch.where(rows[:, None, None, None], base, noised.target))
