"""Loss on pictures that are never trained on, with fixed noise and timesteps: it compares across steps and resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lora_core.engine.averages import as_saved
from lora_core.engine.conditioning import unet_arguments
from lora_core.engine.device import autocast
from lora_core.engine.epochs import Batch
from lora_core.engine.loss import squared_error
from lora_core.engine.network import without_dropout
from lora_core.engine.noise import diffuse, draw_noise
from lora_core.jobs.noise import NoiseAndLoss

if TYPE_CHECKING:
    from lora_core.engine.setup import Run

TIMESTEPS = (200, 400, 600, 800)


@torch.no_grad()
def held_out_loss(run: Run) -> float:
    """Unweighted mean squared error over all held-out pictures at four timesteps."""
    with as_saved(run), without_dropout((run.unet, *run.encoders)):
        errors = [timestep_errors(run, batch, t) for batch in run.held_out for t in TIMESTEPS]
    return float(torch.cat(errors).mean())


def timestep_errors(run: Run, batch: Batch, timestep: int) -> torch.Tensor:
    """[b] errors of one batch at one timestep; the noise depends on the pictures' places and the timestep alone."""
    latents = run.cache.latents(batch)
    noise = torch.cat(
        [draw_noise(NoiseAndLoss(), latents[:1], 0, "held out", item.picture, timestep) for item in batch.items]
    )
    t = torch.full((len(latents),), timestep)
    noised = diffuse(latents, noise, t, run.alphas_bar, run.prediction)
    with autocast(run.device, run.dtype):
        text = run.encode([run.dataset.caption(item, 0) for item in batch.items])
        arguments = unet_arguments(text, run.time_ids(batch), run.device)
        output = run.unet(run.to_input(noised.latents), t.to(run.device), return_dict=False, **arguments)[0]
    return squared_error(output, noised.target.to(run.device)).cpu()
