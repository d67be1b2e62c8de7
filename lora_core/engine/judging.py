"""Each save is judged while the training goes on, which ends when its saves no longer get better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lora_core.engine.averages import as_saved
from lora_core.engine.course import Course
from lora_core.engine.device import release
from lora_core.engine.dropping import base_alone
from lora_core.engine.epochs import Batch
from lora_core.engine.likeness import Direction, describe, direction
from lora_core.engine.models import Models
from lora_core.engine.network import without_dropout
from lora_core.engine.new_words import WordBranch, spelled
from lora_core.engine.preview import models_of, request_of
from lora_core.engine.request import SampleRequest
from lora_core.engine.sampling import sample
from lora_core.engine.validation import held_out_loss
from lora_core.errors import LoomError
from lora_core.events import Event, Note, Stage
from lora_core.preview_prompt import PreviewPrompt, text_of
from lora_core.recommend import CellScore, Field, recommend

if TYPE_CHECKING:
    from lora_core.engine.setup import Run
    from lora_core.jobs.train import TrainJob

PROMPTS = 4
REFERENCES = 16
STEPS = 12
LEARNED = 0.3  # likeness below which a training is not over, whatever its course
OTHER = 7919  # added to a seed for another one


@dataclass(frozen=True)
class Sight:
    """What every save is seen by: the same prompts and noise, and the way from the base's pictures to the subject's."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    way: Direction


class Judge:
    """Looks at each save of a run, if the job asks for that."""

    def __init__(self, run: Run) -> None:
        only_words = all(isinstance(branch, WordBranch) for branch in run.network.branches.values())
        self.wanted = judged(run.job) and not only_words
        self.sight: Sight | None = None

    def look(self, run: Run, course: Course) -> Iterator[Event]:
        """Measure the save of this step, if one was made; a failure to draw is said, never fatal."""
        saves = [paths[0] for step, paths in course.files if step == course.step]
        if not self.wanted or not saves or (course.looks and course.looks[-1].step == course.step):
            return
        yield Stage("Judging the save")
        likeness = None
        try:
            likeness = self.likeness(run)
        except (LoomError, RuntimeError, OSError) as error:
            release(run.device)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            yield Note(f"The likeness after step {course.step} could not be measured: {reason}", "warning")
        known = dict(course.held_out)
        loss = known.get(course.step, held_out_loss(run) if run.held_out else None)
        course.looks.append(CellScore(saves[-1], course.step, 1.0, loss, likeness))
        yield Note(f"{Path(saves[-1]).name}: {spoken(course.looks[-1])}.")
        course.ended = verdict(run, course)
        yield Stage("Training")

    @torch.no_grad()
    def likeness(self, run: Run) -> float:
        """How far pictures with the LoRA have come from the base's (0) to the subject's (1)."""
        models = models_of(run)
        if self.sight is None:
            self.sight = sight_of(run, models)
        with as_saved(run), without_dropout((run.unet, *run.encoders)):
            drawn = latents(models, request_for(run), trained_words(run, self.sight.prompts), self.sight.seeds)
        with base_alone((run.unet, *run.encoders)):
            return float(self.sight.way.of(describe(models, drawn)).mean())


def judged(job: TrainJob) -> bool:
    return job.saves.judge_saves or job.saves.early_stop > 0


@torch.no_grad()
def sight_of(run: Run, models: Models) -> Sight:
    """Prompts and seeds, and the direction from what the base alone makes of them to the reference pictures."""
    prompts = subject_prompts(run)
    seeds = tuple(run.job.seed + place for place in range(len(prompts)))
    again = tuple((seed + OTHER) % 2**63 for seed in seeds)
    with base_alone((run.unet, *run.encoders)), without_dropout((run.unet, *run.encoders)):
        drawn = [latents(models, request_for(run), prompts, each) for each in (seeds, again)]
        subject = [describe(models, rows) for rows in reference_latents(run)]
        return Sight(prompts, seeds, direction(describe(models, torch.cat(drawn)), torch.cat(subject)))


def subject_prompts(run: Run) -> tuple[str, ...]:
    """Four at most: preview prompts that name the trigger, then captions of the reference pictures."""
    job, trigger = run.job, run.job.captions.trigger.strip()
    found = [text for line in job.saves.preview_prompts if trigger in (text := text_of(line))]
    found += [run.dataset.caption(item, 0) for batch in references(run) for item in batch.items]
    named = [text for text in dict.fromkeys(found) if text] or [trigger or job.name]
    return tuple(named[:PROMPTS])


def trained_words(run: Run, prompts: tuple[str, ...]) -> tuple[str, ...]:
    """The prompts as the text encoder in training reads a trigger that is trained as new tokens."""
    job = run.job
    return tuple(spelled(text, job.captions.trigger.strip(), job.network.token_vectors) for text in prompts)


def references(run: Run) -> list[Batch]:
    """The held-out pictures, or where there are none the ones that are learned; sixteen or a few more."""
    found: list[Batch] = []
    for batch in run.held_out or run.dataset.epoch(0):
        items = tuple(i for i in batch.items if i.held_out or not run.dataset.picture_of(i).is_class)
        if items and sum(map(len, found)) < REFERENCES:
            found.append(replace(batch, items=items))
    return found


def reference_latents(run: Run) -> Iterator[torch.Tensor]:
    """Latents [b,c,h,w] of one size after the other."""
    for batch in references(run):
        yield run.cache.latents(batch)


def request_for(run: Run) -> SampleRequest:
    request = request_of(run, PreviewPrompt(""), 0)
    return replace(request, steps=min(request.steps, STEPS), batch_size=PROMPTS)


def latents(models: Models, request: SampleRequest, prompts: tuple[str, ...], seeds: tuple[int, ...]) -> torch.Tensor:
    """Drawn pictures as scaled latents [n,c,h,w] on the CPU."""
    x = torch.empty(0)
    for step in sample(models, request, prompts, seeds):
        x = step.x
    return x.float().cpu()


def field_of(course: Course) -> Field:
    """The saves that are still there, and the base's loss on held-out pictures."""
    start = dict(course.held_out).get(0)
    return Field(tuple(look for look in course.looks if Path(look.file).exists()), start)


def best_save(course: Course) -> CellScore | None:
    """The one that `recommend` prefers, of equals the earliest; while little is learned, simply the one ahead."""
    field = field_of(course)
    if not field.cells:
        return None
    found = recommend(field).file
    best = next(cell for cell in field.cells if cell.file == found)
    return best if learned(best) else max(field.cells, key=lambda cell: (field.total(cell), cell.step))


def learned(look: CellScore) -> bool:
    return look.likeness is None or look.likeness >= LEARNED


def verdict(run: Run, course: Course) -> str:
    """Why the training ends now, "" when it goes on."""
    patience, best = run.job.saves.early_stop, best_save(course)
    if not patience or best is None or not learned(best):
        return ""
    later = [look for look in course.looks if look.step > best.step]
    if len(later) < patience or course.step >= run.total_steps:
        return ""
    saves = "the last save was" if patience == 1 else f"the last {patience} saves were"
    return (
        f"The training ends after {course.step} of {run.total_steps} steps: {saves} no better than that of step "
        f"{best.step} ({spoken(best)})."
    )


def spoken(look: CellScore) -> str:
    parts = [] if look.likeness is None else [f"likeness {look.likeness:.0%}"]
    parts += [] if look.held_out is None else [f"loss on held-out pictures {look.held_out:.4f}"]
    return ", ".join(parts) or "not measured"
