"""As many steps as fit into a time budget: the speed is measured once, before the first step."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from lora_core.engine.judging import PROMPTS, STEPS, judged
from lora_core.engine.learning_rates import build_schedule
from lora_core.engine.optimizers import build_optimizer
from lora_core.engine.rates import parameter_groups
from lora_core.engine.step import one_step
from lora_core.engine.validation import TIMESTEPS
from lora_core.errors import ConfigError
from lora_core.events import Event, Note, Stage
from lora_core.forecast import spoken
from lora_core.settings import replace_by_name
from lora_core.whole_files import write_text

if TYPE_CHECKING:
    from lora_core.engine.setup import Run

PACE = "pace.json"
MEASURED = 3
SPARE = 0.95  # of the time that is left
SHORT = 0.5
COMPARED = 10  # pictures that are drawn for each prompt to find a strength
PASSES_DRAWN = 2.5  # of a preview, for each of its steps: with and without the prompt, and the VAE
MOST_BESIDE = 0.3  # of the time, for what is drawn and measured beside the steps
WITHOUT_PREVIEWS = {"preview_every_steps": 0, "preview_every_epochs": 0, "preview_first": False}


def within_budget(run: Run, began: float) -> Generator[Event, None, Run]:
    """The run with the steps that fit; `began` is when the preparation did (time.monotonic()).

    What was decided is kept beside the state: a run that goes on has the same steps, and so have other processes.
    """
    budget = run.job.length.time_budget
    if not budget:
        return run
    path = run.folder / PACE
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if kept.get("mark") == run.mark:
        return shortened(run, int(kept["steps"]))
    yield Stage("Measuring the speed")
    seconds = seconds_per_step(run)
    left = SPARE * (60 * budget - (time.monotonic() - began))
    if beside(run, seconds) > left * MOST_BESIDE:
        yield Note("The previews are left out: they would take most of the time budget.")
        run = replace(run, job=replace_by_name(run.job, WITHOUT_PREVIEWS))
    steps = min(run.total_steps, int((left - beside(run, seconds)) / seconds))
    if steps < 1:
        raise ConfigError(
            f"The time budget of {budget:g} minutes is over before the first step: one takes {seconds:.1f} seconds. "
            "Give more time, or choose a smaller size or batch."
        )
    yield told(run, steps, seconds)
    write_text(path, json.dumps({"mark": run.mark, "steps": steps, "seconds_per_step": seconds}))
    return shortened(run, steps)


def seconds_per_step(run: Run) -> float:
    """The median of a few steps' gradients, after one for warming up. The parameters stay as they are."""
    found: list[float] = []
    for step in range(MEASURED + 1):
        began = time.perf_counter()
        one_step(run, min(step, run.total_steps - 1))
        if run.scaler:
            run.scaler.update()
        found.append(time.perf_counter() - began)
    run.optimizer.zero_grad(set_to_none=True)
    return sorted(found[1:])[MEASURED // 2]


def beside(run: Run, seconds: float) -> float:
    """About how long previews and measurements of the whole run take: a step is three passes over each picture."""
    s = run.job.saves
    a_pass = seconds / (3 * run.job.dataset.batch_size * run.job.optimization.accumulation)
    previews = often(run, s.preview_every_steps, s.preview_every_epochs) + s.preview_first
    drawn = previews * max(1, len(s.preview_prompts)) * s.preview_steps * PASSES_DRAWN
    measured = (often(run, s.validate_every_steps, s.validate_every_epochs) + 2) * len(TIMESTEPS)
    return a_pass * (drawn + measured * sum(len(batch) for batch in run.held_out) + judged_passes(run))


def judged_passes(run: Run) -> float:
    """Passes for what is drawn to judge saves, and at the end to find a strength."""
    if not judged(run.job):
        return 0.0
    looks = often(run, run.job.saves.save_every_steps, run.job.saves.save_every_epochs) + 1
    return (PROMPTS * (looks + 2) + COMPARED * PROMPTS) * STEPS * PASSES_DRAWN


def often(run: Run, steps: int, epochs: int) -> int:
    """How many times something is due that comes every so many steps or epochs."""
    every = [n for n in (steps, epochs * run.steps_per_epoch) if n]
    return max((run.total_steps // n for n in every), default=0)


def told(run: Run, steps: int, seconds: float) -> Note:
    budget, wanted = spoken(60 * run.job.length.time_budget), run.total_steps
    pace = f"A step takes {seconds:.2f} seconds"
    if steps == wanted:
        return Note(f"{pace}: all {wanted} steps fit into {budget}.")
    sentence = f"{pace}: {steps} of the {wanted} steps fit into {budget}, and so many are done."
    if steps < SHORT * wanted:
        return Note(f"{sentence} That is {steps / wanted:.0%} of what was asked for: expect less likeness.", "warning")
    return Note(sentence)


def shortened(run: Run, steps: int) -> Run:
    """The run with another length: its schedule is made for it, and saves, previews and measurements come as often."""
    if steps == run.total_steps:
        return run
    share, saves = steps / run.total_steps, run.job.saves
    every = {name: getattr(saves, name) for name in ("save_every_steps", "preview_every_steps", "validate_every_steps")}
    job = replace_by_name(run.job, {name: max(1, round(n * share)) for name, n in every.items() if n})
    optimizer, _ = build_optimizer(job.optimization, parameter_groups(job, run.architecture, run.network), steps)
    schedule = build_schedule(job.optimization, optimizer, steps)
    return replace(run, job=job, total_steps=steps, optimizer=optimizer, schedule=schedule)
