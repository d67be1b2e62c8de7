"""The presets' bake-off on the demo world: our goals beside the settings that guides and other trainers advise.

python -m benchmarks.presets                       # both goals; what is in results.json already is not run again
python -m benchmarks.presets --goals style --only ours "ours, Lion"
python -m benchmarks.presets --docs docs/presets.md    # put the tables into the page
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.preset_rows import COSTS, RATE_FACTOR, Row, rows
from benchmarks.preset_tables import tables, written
from benchmarks.style_world import TRIGGER, background_ink, has_style, write_style
from lora_core.demo.features import PALETTE, background_colour, has_character
from lora_core.demo.measure import Pictures, change
from lora_core.demo.plan import ASSETS, NAME, SIZE, character_prompts, ordinary_prompts
from lora_core.demo.shots import Shot, draw
from lora_core.engine.models import Models, load_models
from lora_core.events import Change, Event, Finished, Note, end_of
from lora_core.jobs.optimization import SELF_TUNING
from lora_core.jobs.train import TrainJob
from lora_core.lora import Lora
from lora_core.lora_file import read_lora
from lora_core.run import run
from lora_core.settings import replace_by_name
from lora_core.train_like import differences

GAINED = 0.9  # converged: so much of the best gain on held-out pictures is there
POINTS = 10
SEED = 20_000
NO_LORA = Lora({}, {}, "sd1")


@dataclass(frozen=True)
class World:
    """The pictures of a goal, and the prompts that it is measured with."""

    goal: str
    pictures: Path
    held_out: Path
    trigger: str
    with_trigger: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(list(self.pictures.glob("*.png")))

    def hit(self, picture: np.ndarray) -> bool:
        """Whether the picture shows what was to be learned."""
        return all((has_character if self.goal == "character" else has_style)(picture).values())

    def obeyed(self, picture: np.ndarray, prompt: str) -> bool:
        """Whether the background is the one that the prompt names."""
        name = next(c for c in PALETTE["background"] if f"{c} background" in prompt)
        return background_colour(picture) == name if self.goal == "character" else background_ink(picture, name)


def world(goal: str, samples: int, folder: Path) -> World:
    """The shipped character, or the style, which is made here."""
    plain = tuple(ordinary_prompts(samples, SEED))
    if goal == "character":
        return World(goal, ASSETS / NAME, ASSETS / "held_out", NAME, tuple(character_prompts(samples, SEED)), plain)
    pictures, held_out = write_style(ASSETS / "ordinary", folder / "style")
    styled = tuple(f"{TRIGGER}, {prompt}" for prompt in ordinary_prompts(samples, SEED + 1))
    return World(goal, pictures, held_out, TRIGGER, styled, plain)


def job_for(row: Row, where: World, views: int, folder: Path) -> TrainJob:
    """The row's training on the demo base: `views` pictures are seen in any case; rates times RATE_FACTOR."""
    values = {**row.values, **COSTS, "width": SIZE, "height": SIZE, "buckets": False, "trigger": where.trigger}
    steps = max(POINTS, round(views / values["batch_size"] / values.get("accumulation", 1)))
    values |= {"steps": steps, "validate_every_steps": max(1, steps // POINTS), "state_every_steps": 0}
    if values["optimizer"] not in SELF_TUNING:
        for name in ("learning_rate", "text_encoder_lr"):
            if values.get(name):
                values[name] *= RATE_FACTOR
    values |= {"folder": str(where.pictures), "held_out": str(where.held_out), "dtype": "fp32", "threads": 0}
    if row.others:
        values["class_pictures"] = str(ASSETS / "ordinary")
    name = f"{where.goal}-{hashlib.sha256(row.name.encode()).hexdigest()[:8]}"
    job = TrainJob(
        base=str(ASSETS / "demo_base.safetensors"), name=name, output_dir=str(folder / "loras"), resume=False
    )
    return replace_by_name(job, {**values, "cache_dir": str(folder / "cache")})


def mark_of(job: TrainJob, samples: int) -> str:
    """A hash of what decides a result, so that an old one is known: all settings that are not as by default."""
    changed = [(d.name, repr(d.first)) for d in differences(job, TrainJob())]
    told = json.dumps([changed, bool(job.dataset.class_pictures), samples], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def trained(job: TrainJob) -> dict[str, Any]:
    """Train; the figures of the training. A fault of the optimizer's package is a LoomError."""
    for path in Path(job.output_dir).glob(f"{job.name}*.safetensors"):
        path.unlink()
    began, worked = time.monotonic(), time.process_time()
    events: list[Event] = list(run(job))
    end = next(e for e in events if isinstance(e, Finished))
    changes = [e.mean for e in events if isinstance(e, Change)]
    held_out = [(step, value) for step, value in end.report["held_out"] if value is not None]
    return {
        "steps": end.report["steps"],
        "batch": job.dataset.batch_size * job.optimization.accumulation,
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - worked,
        "held_out": held_out,
        "converged": converged(held_out),
        "change_of_weights": changes[-1] if changes else None,
        "warnings": [e.text for e in events if isinstance(e, Note) and e.level == "warning"],
        "size": Path(end.outputs[0]).stat().st_size,
        "lora": end.outputs[0],
    }


def converged(held_out: Sequence[tuple[int, float]]) -> int | None:
    """The first measured step with 90 % of the best gain on held-out pictures; None where nothing was gained."""
    if not held_out:
        return None
    first, best = held_out[0][1], min(value for _, value in held_out)
    wanted = first - GAINED * (first - best)
    return next((step for step, value in held_out if value <= wanted), None) if best < first else None


def shots_of(where: World, strength: float) -> tuple[list[Shot], list[Shot]]:
    """Pictures with the trigger and without it, seeds the same at every strength."""
    with_trigger, without = (
        [Shot(prompt, SEED + i, strength) for i, prompt in enumerate(prompts)]
        for prompts in (where.with_trigger, where.without)
    )
    return with_trigger, without


def measured(models: Models, where: World, base: Pictures, lora: str) -> dict[str, Any]:
    """Draw with the LoRA and count."""
    subject, plain = shots_of(where, 1.0)
    _, plain_base = shots_of(where, 0.0)
    pictures = {**base, **end_of(draw(models, read_lora(lora), [*subject, *plain]))}
    seen = {shot: np.asarray(pictures[shot]) for shot in (*subject, *plain)}
    return {
        "samples": len(subject),
        "hits": sum(where.hit(seen[s]) for s in subject),
        "leaks": sum(where.hit(seen[s]) for s in plain),
        "obeyed": sum(where.obeyed(seen[s], s.prompt) for s in subject),
        "change": change(plain_base, plain, pictures),
    }


def compared(where: World, chosen: Sequence[Row], options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Run what is missing; a line for each row that is done."""
    models, base = None, {}
    for row in chosen:
        job = job_for(row, where, options.views, folder)
        mark, known = mark_of(job, options.samples), results(folder)
        key = f"{where.goal}: {row.name}"
        if known.get(key, {}).get("mark") == mark:
            continue
        if models is None:
            models = load_models(job.base, torch.float32, "cpu")
            _, plain = shots_of(where, 0.0)
            base = end_of(draw(models, NO_LORA, plain))
        figures = trained(job)
        figures |= measured(models, where, base, figures.pop("lora"))
        keep(folder, {**results(folder), key: {**figures, "mark": mark}})
        yield f"{key}: {figures['hits']} hits, {figures['leaks']} leaks, held out {figures['held_out'][-1][1]:.4f}"


def results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def keep(folder: Path, found: dict[str, Any]) -> None:
    temporary = folder / "results.tmp"
    temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
    temporary.replace(folder / "results.json")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goals", nargs="+", default=["character", "style"], choices=["character", "style"])
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="these rows only")
    parser.add_argument("--views", type=int, default=480, help="pictures seen by each training")
    parser.add_argument("--samples", type=int, default=12, help="pictures with the trigger, and as many without")
    parser.add_argument("--out", type=Path, default=Path("out/presets"))
    parser.add_argument("--docs", type=Path, help="replace the tables of this page")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    worlds = [world(goal, options.samples, options.out) for goal in options.goals]
    everything = {where.goal: rows(where.goal, where.count) for where in worlds}
    for where in worlds:
        chosen = [row for row in everything[where.goal] if not options.only or row.name in options.only]
        for line in compared(where, chosen, options, options.out):
            print(line, flush=True)
    found = tables(everything, results(options.out))
    print("\n\n".join(found.values()))
    if options.docs:
        written(options.docs, found)


if __name__ == "__main__":
    main()
