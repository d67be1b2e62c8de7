"""One save at one strength: its pictures, its loss on held-out pictures, and how they compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from lora_core.commands import Commands
from lora_core.engine.conditioning import unet_arguments
from lora_core.engine.likeness import Direction, describe, direction, nearest
from lora_core.engine.loss import squared_error
from lora_core.engine.models import Models
from lora_core.engine.noise import diffuse
from lora_core.engine.prompt import encode_prompts, time_ids
from lora_core.engine.randomness import generator
from lora_core.engine.reference_pictures import References
from lora_core.engine.sampling import SampleRequest, decode, sample
from lora_core.engine.schedule import alphas_cumprod
from lora_core.engine.validation import TIMESTEPS
from lora_core.errors import Interrupted
from lora_core.jobs.choose import ChooseJob

COPY = 0.5  # a picture copies when it has come half of the way from "as near as others" to "the same"
TOKENS = 225
BASE_PICTURES = 8
OTHER = 7919  # added to a seed for another one


@dataclass(frozen=True)
class Shot:
    """One picture to draw. `kind`: "subject" and "neutral" in every cell; "subject again" and "neutral again" are the
    same prompts with other seeds, drawn by the base alone."""

    prompt: str
    seed: int
    kind: str


def shots_of(job: ChooseJob, neutral: Sequence[str]) -> tuple[Shot, ...]:
    """Every prompt with every seed."""
    subject = [Shot(prompt, seed, "subject") for prompt in job.prompts for seed in job.seeds]
    return (*subject, *(Shot(prompt, seed, "neutral") for prompt in neutral for seed in job.seeds))


def shots_again(job: ChooseJob, neutral: Sequence[str]) -> tuple[Shot, ...]:
    """Further pictures by the base alone: each neutral prompt with another seed, the subject's until there are 8."""
    seeds = list(job.seeds)
    while len(seeds) * len(job.prompts) < BASE_PICTURES - len(job.seeds) * len(job.prompts):
        seeds += [seed + OTHER * len(seeds) for seed in job.seeds]
    subject = [Shot(prompt, (seed + OTHER) % 2**63, "subject again") for seed in seeds for prompt in job.prompts]
    rest = [Shot(prompt, (seed + OTHER) % 2**63, "neutral again") for prompt in neutral for seed in job.seeds]
    return (*subject[: max(2, BASE_PICTURES - len(job.seeds) * len(job.prompts))], *rest)


@dataclass(frozen=True)
class Drawing:
    """The pictures of a cell by shot: decoded, and as scaled latents [c,h,w] on the CPU."""

    pictures: dict[Shot, Image.Image]
    latents: dict[Shot, torch.Tensor]

    def of(self, kind: str) -> torch.Tensor:
        """[n,c,h,w]; n may be 0."""
        rows = [x for shot, x in self.latents.items() if shot.kind == kind]
        return torch.stack(rows) if rows else torch.empty(0, 1, 1, 1)


def request_for(job: ChooseJob) -> SampleRequest:
    """The job's sampling settings; in ComfyUI's arithmetic each picture is a batch of its own, because neighbours in
    a batch share their noise there."""
    return SampleRequest(
        prompts=(),
        seeds=(),
        negative=job.negative_prompt,
        width=job.width,
        height=job.height,
        steps=job.steps,
        cfg=job.cfg_scale,
        sampler=job.sampler,
        scheduler=job.scheduler,
        clip_skip=job.clip_skip,
        batch_size=1 if job.arithmetic == "comfyui" else 4,
        arithmetic=job.arithmetic,
    )


def draw(models: Models, request: SampleRequest, shots: Sequence[Shot], commands: Commands) -> Iterator[Drawing]:
    """Draw the shots batch by batch; each yield holds all that is done. Ends early when `commands.stop` is up."""
    done = Drawing({}, {})
    for start in range(0, len(shots), request.batch_size):
        part = shots[start : start + request.batch_size]
        prompts, seeds = tuple(s.prompt for s in part), tuple(s.seed for s in part)
        x = torch.empty(0)
        try:
            for step in sample(models, replace(request, prompts=prompts, seeds=seeds), prompts, seeds, commands):
                x = step.x
        except Interrupted:
            return
        latents = dict(zip(part, x.float().cpu()))
        pictures = dict(zip(part, decode(models, x)))
        done = Drawing({**done.pictures, **pictures}, {**done.latents, **latents})
        yield done


@torch.no_grad()
def held_out_loss(models: Models, held_out: References, clip_skip: int) -> float:
    """Mean squared error at the four timesteps of a training's held-out loss, with noise fixed by place and step."""
    place = next(models.unet.parameters())
    arch = models.architecture
    bars = alphas_cumprod(arch.zero_terminal_snr)
    factor = 2 ** (len(models.vae.config.block_out_channels) - 1)
    errors: list[torch.Tensor] = []
    for index, caption in enumerate(held_out.captions):
        latents = held_out.latents[index : index + 1].expand(len(TIMESTEPS), -1, -1, -1)
        draws = [torch.randn(latents.shape[1:], generator=generator(0, "choose", index, t)) for t in TIMESTEPS]
        steps = torch.tensor(TIMESTEPS)
        noised = diffuse(latents, torch.stack(draws), steps, bars, arch.prediction)
        text = encode_prompts(models.text_encoders, arch, [caption] * len(TIMESTEPS), clip_skip, TOKENS)
        sizes = time_ids(latents.shape[2] * factor, latents.shape[3] * factor).expand(len(TIMESTEPS), -1)
        arguments = unet_arguments(text, sizes, place.device)
        output = models.unet(noised.latents.to(place), steps.to(place.device), return_dict=False, **arguments)[0]
        errors.append(squared_error(output.cpu(), noised.target))
    return float(torch.cat(errors).mean())


@dataclass(frozen=True)
class Yardsticks:
    """What every cell is measured against: the base's own pictures, the subject's, and how much another seed does."""

    base: Drawing
    way: Direction | None
    training: References | None
    usual_nearness: float
    change_of_seed: float

    def likeness(self, models: Models, drawing: Drawing) -> float | None:
        """Mean over the subject's prompts; any LoRA must be taken out before."""
        rows = drawing.of("subject")
        return float(self.way.of(describe(models, rows)).mean()) if self.way is not None and len(rows) else None

    def copying(self, drawing: Drawing) -> tuple[float | None, float | None]:
        """(mean nearness to a training picture, share of pictures that repeat one)."""
        if self.training is None:
            return None, None
        near = nearest(drawing.of("subject"), self.training.latents)[1]
        limit = self.usual_nearness + COPY * (1 - self.usual_nearness)
        return float(near.mean()), float((near > limit).float().mean())

    def leak(self, drawing: Drawing) -> float | None:
        """Change of the neutral pictures by the LoRA, as a share of what another seed changes."""
        rows = drawing.of("neutral")
        if not len(rows) or not self.change_of_seed:
            return None
        return mean_distance(rows, self.base.of("neutral")) / self.change_of_seed


def yardsticks(models: Models, base: Drawing, held_out: References | None, training: References | None) -> Yardsticks:
    """Measure the base alone. Likeness is towards the held-out pictures, or where there are none the training's."""
    subject = held_out if held_out is not None else training
    way = None
    if subject is not None:
        ordinary = describe(models, torch.cat([base.of("subject"), base.of("subject again")]))
        way = direction(ordinary, describe(models, subject.latents))
    neutral = base.of("neutral")
    change = mean_distance(neutral, base.of("neutral again")) if len(neutral) else 0.0
    return Yardsticks(base, way, training, usual(held_out, training), change)


def usual(held_out: References | None, training: References | None) -> float:
    """How near a picture that was not trained on comes to the training pictures: the nearest of the held-out ones, or
    the nearest pair among the training pictures."""
    if training is None:
        return 0.0
    if held_out is not None:
        return float(nearest(held_out.latents, training.latents)[1].max())
    if len(training) < 3:
        return 0.5
    rest = [torch.cat([training.latents[:i], training.latents[i + 1 :]]) for i in range(len(training))]
    found = [float(nearest(training.latents[i : i + 1], others)[1]) for i, others in enumerate(rest)]
    return max(found)


def mean_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean absolute difference of latents."""
    return float((a - b).abs().mean())
