"""Which pictures the demo draws, and drawing them with one progress bar."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby

from PIL import Image

from lora_core.commands import Commands
from lora_core.demo.plan import (
    CFG_SCALE,
    GRID_PROMPTS,
    INPAINT_BEFORE,
    SAMPLING_STEPS,
    SIZE,
    STRENGTHS,
    character_prompts,
    ordinary_prompts,
)
from lora_core.engine.apply import apply_lora
from lora_core.engine.models import Models
from lora_core.engine.sampling import SampleRequest, decode, sample
from lora_core.errors import Interrupted
from lora_core.events import Event, Progress
from lora_core.jobs.demo import DemoJob
from lora_core.lora import Lora

BATCH = 16


@dataclass(frozen=True)
class Shot:
    """One picture to draw; strength 0 is the base alone."""

    prompt: str
    seed: int
    strength: float


@dataclass(frozen=True)
class ShotList:
    """The pictures of the grid (row after row), of the inpainting, and of the measurements (in pairs by place)."""

    portrait: tuple[Shot, ...]
    grid: tuple[Shot, ...]
    character: tuple[Shot, ...]
    character_base: tuple[Shot, ...]
    ordinary: tuple[Shot, ...]
    ordinary_base: tuple[Shot, ...]
    other_seed: tuple[Shot, ...]

    def all(self) -> list[Shot]:
        """Every shot once, weakest LoRA first."""
        shots = {shot: None for group in vars(self).values() for shot in group}
        return sorted(shots, key=lambda shot: shot.strength)


def shot_list(job: DemoJob) -> ShotList:
    """All pictures of a demo: prompts of the measurements vary, seeds are the same with and without the LoRA."""
    first = job.seed * 10_000
    grid = [Shot(prompt, first + row, s) for row, prompt in enumerate(GRID_PROMPTS) for s in STRENGTHS]
    measured = list(enumerate(character_prompts(job.samples, first), first + 100))
    ordinary = list(enumerate(ordinary_prompts(job.samples, first), first + 100))
    return ShotList(
        portrait=(Shot(INPAINT_BEFORE, first + 99, 0.0),),
        grid=tuple(grid),
        character=tuple(Shot(prompt, seed, 1.0) for seed, prompt in measured),
        character_base=tuple(Shot(prompt, seed, 0.0) for seed, prompt in measured),
        ordinary=tuple(Shot(prompt, seed, 1.0) for seed, prompt in ordinary),
        ordinary_base=tuple(Shot(prompt, seed, 0.0) for seed, prompt in ordinary),
        other_seed=tuple(Shot(prompt, seed + 5_000, 0.0) for seed, prompt in ordinary),
    )


def draw(
    models: Models, lora: Lora, shots: Sequence[Shot], commands: Commands | None = None
) -> Generator[Event, None, dict[Shot, Image.Image]]:
    """Draw the shots in batches, each at its strength. Raises Interrupted when `commands.stop` is raised meanwhile."""
    pictures: dict[Shot, Image.Image] = {}
    started = time.monotonic()
    for strength, members in groupby(shots, key=lambda shot: shot.strength):
        group = list(members)
        with apply_lora(models, lora, strength) if strength else nullcontext():
            for batch in _batches(group):
                done = len(pictures)
                for part in _sample(models, batch):
                    if commands is not None and commands.stop:
                        raise Interrupted("The demo was stopped while it drew; the LoRA is kept.")
                    if isinstance(part, list):
                        pictures |= zip(batch, part)
                    else:
                        yield _progress(done + part * len(batch), len(shots), started)
    return pictures


def _batches(shots: Sequence[Shot]) -> Iterator[Sequence[Shot]]:
    for start in range(0, len(shots), BATCH):
        yield shots[start : start + BATCH]


def _sample(models: Models, batch: Sequence[Shot]) -> Iterator[float | list[Image.Image]]:
    """The share that is done after each step, then the pictures."""
    prompts, seeds = tuple(shot.prompt for shot in batch), tuple(shot.seed for shot in batch)
    request = SampleRequest(prompts, seeds, width=SIZE, height=SIZE, steps=SAMPLING_STEPS, cfg=CFG_SCALE)
    step = None
    for step in sample(models, request, prompts, seeds):
        yield step.done / step.total
    yield decode(models, step.x) if step is not None else []


def _progress(done: float, total: int, started: float) -> Progress:
    left = (time.monotonic() - started) / done * (total - done) if done else None
    return Progress(int(done), total, left, "picture")
