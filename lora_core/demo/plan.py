"""What the demo does: where its inputs lie, which prompts it draws, how it trains."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from lora_core.jobs.demo import DemoJob
from lora_core.jobs.train import (
    Captions,
    Dataset,
    Length,
    Memory,
    Network,
    NoiseAndLoss,
    Optimization,
    Saves,
    Subset,
    TrainJob,
)

NAME = "armin_vicerre"
ASSETS = Path(__file__).parents[1] / "assets" / "demo"
STRENGTHS = (0.0, 0.5, 0.75, 1.0)
SIZE = 128
SAMPLING_STEPS = 20
CFG_SCALE = 3.0

SHIRTS = ("red", "blue", "green", "yellow", "white", "black", "orange")
BACKGROUNDS = ("white", "grey", "black", "blue", "green", "yellow", "orange", "red")
MOODS = ("smile", "frown")
HAIR = ("black", "brown", "blonde", "red", "green", "blue", "white")
SKIN = ("light", "tan", "dark")

GRID_PROMPTS = (
    f"{NAME}, 1boy, solo, red shirt, smile, blue background",
    f"{NAME}, 1boy, solo, yellow shirt, frown, grey background",
    f"{NAME}, 1boy, solo, white shirt, smile, green background",
    f"{NAME}, 1boy, solo, black shirt, frown, orange background",
    "1girl, solo, long hair, blonde hair, light skin, blue shirt, smile, yellow background",
    "1boy, solo, short hair, brown hair, dark skin, orange shirt, frown, white background",
)
INPAINT_BEFORE = "1boy, solo, short hair, brown hair, tan skin, red shirt, smile, yellow background"
INPAINT_AFTER = f"{NAME}, 1boy, solo, red shirt, smile, yellow background"


@dataclass(frozen=True)
class Inputs:
    """The base, and folders of pictures: of the character, of it but held out, of others without it.

    The others are DreamBooth's regularisation pictures (Ruiz et al. 2022): they leave the character to the trigger.
    """

    base: Path
    pictures: Path
    held_out: Path
    others: Path


def inputs(job: DemoJob) -> Inputs:
    """The shipped files, or those that the job names."""
    base = Path(job.base) if job.base else ASSETS / "demo_base.safetensors"
    pictures = Path(job.pictures) if job.pictures else ASSETS / NAME
    return Inputs(base, pictures, pictures.parent / "held_out", pictures.parent / "ordinary")


def subsets(found: Inputs) -> tuple[Subset, ...]:
    """The folders with their rules: the character counts twice, so that both halves weigh the same.

    Some of the others lose their captions: guidance subtracts what the model draws without one, and that has to stay
    what it was.
    """
    character = Subset(str(found.pictures), repeats=2, keep_tokens=1)
    others = Subset(str(found.others), keep_tokens=0, caption_dropout=0.3)
    return (character, others) if found.others.is_dir() else (character,)


def training(job: DemoJob, found: Inputs, output: Path, work: Path) -> TrainJob:
    """The settings of the demo's training."""
    return TrainJob(
        base=str(found.base),
        name=NAME,
        output_dir=str(output),
        work_dir=str(work),
        seed=job.seed,
        resume=False,
        dataset=Dataset(
            subsets=subsets(found),
            held_out=str(found.held_out) if found.held_out.is_dir() else "",
            width=SIZE,
            height=SIZE,
            buckets=False,
            batch_size=8,
        ),
        captions=Captions(shuffle=True),
        network=Network(rank=16, alpha=16.0),
        optimization=Optimization(learning_rate=1.5e-3, text_encoder_lr=1e-3),
        length=Length(steps=job.steps),
        noise=NoiseAndLoss(min_snr_gamma=5.0),
        saves=Saves(save_every_steps=max(1, job.steps // 4), state_every_steps=0, validate_every_steps=40),
        memory=Memory(device=job.device, dtype="fp32"),
    )


def character_prompts(count: int, seed: int) -> list[str]:
    """Prompts that name the character and vary everything else."""
    draw = random.Random(seed)
    return [f"{NAME}, 1boy, solo, {_surroundings(draw)}" for _ in range(count)]


def ordinary_prompts(count: int, seed: int) -> list[str]:
    """Prompts of other people, without the trigger."""
    draw = random.Random(seed)
    return [
        f"{draw.choice(('1boy', '1girl'))}, solo, {draw.choice(('short', 'long'))} hair, {draw.choice(HAIR)} hair, "
        f"{draw.choice(SKIN)} skin, {_surroundings(draw)}"
        for _ in range(count)
    ]


def _surroundings(draw: random.Random) -> str:
    return f"{draw.choice(SHIRTS)} shirt, {draw.choice(MOODS)}, {draw.choice(BACKGROUNDS)} background"
