"""THE recipe: train a LoRA. Reads from top to bottom; every part it calls is a plain function."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from lora_core.commands import Commands
from lora_core.dialects import unread
from lora_core.engine import saving
from lora_core.engine.course import Course, finite
from lora_core.engine.crew import Crew, joined
from lora_core.engine.device import release
from lora_core.engine.folders_check import alone
from lora_core.engine.guard import Guard
from lora_core.engine.judging import Judge, best_save, subject_prompts
from lora_core.engine.optimizers import rate_of
from lora_core.engine.preview import draw_previews
from lora_core.engine.setup import Run, prepare, work_folder
from lora_core.engine.step import one_step
from lora_core.engine.validation import held_out_loss
from lora_core.engine.verdict import recommended
from lora_core.engine.watch import Watch
from lora_core.errors import Interrupted, LoomError
from lora_core.events import HELD, Event, Finished, Loss, Note, Progress, Stage, end_of
from lora_core.jobs.train import TrainJob
from lora_core.settings import replace_by_name

FAULTS = (LoomError, OSError, RuntimeError, MemoryError)


def train(job: TrainJob, commands: Commands | None = None) -> Iterator[Event]:
    """Train as `job` says and write a kohya LoRA. The last event is Finished; its first output is the LoRA.

    A stop keeps the LoRA and a state from which the same job goes on. Whatever goes wrong after the first step,
    what was trained is written before the error is raised.
    """
    with joined() as crew, contextlib.ExitStack() as stack:
        if crew.size > 1:
            job = replace_by_name(job, {"device": crew.device(job.memory.device)})
        if not crew.leads:
            return follow(job, commands or Commands(), crew)
        stack.enter_context(alone(work_folder(job)))
        yield from trained(job, commands or Commands(), crew)


def follow(job: TrainJob, commands: Commands, crew: Crew) -> None:
    """The training in a process that helps another: it computes its share of each batch and writes nothing."""
    run, course = end_of(crew.in_turn(prepare(job)))
    guard = Guard(run.network)
    while course.step < run.total_steps:
        crew.heed(commands)
        if commands.stop:
            break
        loss, norm = one_step(run, course.step, crew)
        for _ in guard.judge(run, course, loss, norm):
            pass
        course.step += 1
        course.losses.append(loss)


def trained(job: TrainJob, commands: Commands, crew: Crew) -> Iterator[Event]:
    """The training itself, once the working folder is ours; then, where saves are judged, what is recommended."""
    run, course = yield from until_stopped(crew.in_turn(prepare(job)), commands)
    judge = Judge(run)
    try:
        yield from steps(run, course, commands, crew, judge)
    except GeneratorExit:
        saving.save_state(run, course)
        raise
    except Exception as error:
        yield from keep_work(run, course, error)
        raise
    stopped = course.step < run.total_steps and not course.ended
    end = yield from finish(run, course, stopped)
    best, prompts, job, device = None, (), run.job, run.device
    if judge.wanted and not stopped:
        yield from judge.look(run, course)
        best, prompts = best_save(course), subject_prompts(run)
    del run  # so that the models make room for those that compare strengths
    release(device)
    if best is None:
        yield end
    else:
        yield from recommended(job, best, prompts, end, commands)


def until_stopped(
    preparation: Generator[Event, None, tuple[Run, Course]], commands: Commands
) -> Generator[Event, None, tuple[Run, Course]]:
    """The preparation's events and result. Raises Interrupted when it is stopped between two of its events."""
    while True:
        try:
            event = next(preparation)
        except StopIteration as end:
            return end.value
        if commands.stop:
            preparation.close()
            raise Interrupted("The training was stopped before its first step; nothing was changed.")
        yield event


def steps(run: Run, course: Course, commands: Commands, crew: Crew, judge: Judge) -> Iterator[Event]:
    """The loop over optimizer steps."""
    yield Stage("Training")
    guard, watch = Guard(run.network), Watch(run)
    if course.step == 0:
        yield from after_step(run, course, commands, loss=None)
    while course.step < run.total_steps:
        crew.heed(commands)
        if commands.stop:
            break
        loss, norm = one_step(run, course.step, crew)
        yield from guard.judge(run, course, loss, norm)
        course.step += 1
        course.losses.append(loss)
        yield from after_step(run, course, commands, loss)
        yield from watch.look(run, course)
        yield from judge.look(run, course)
        if course.ended:
            yield Note(course.ended)
            crew.dismiss()
            return
        yield from paused(run, course, commands)


def after_step(run: Run, course: Course, commands: Commands, loss: float | None) -> Iterator[Event]:
    """Report, measure, draw and save what is due after `course.step` steps."""
    job, step = run.job, course.step
    last = step == run.total_steps
    held_out = None
    epoch = run.steps_per_epoch
    measured = due(step, job.saves.validate_every_steps) or due(step, job.saves.validate_every_epochs * epoch)
    if run.held_out and (measured or step == 0 or last):
        held_out = held_out_loss(run)
        course.held_out.append((step, held_out))
    if loss is not None or held_out is not None:
        rate = rate_of(run.optimizer)
        yield Loss(step, finite(loss), finite(course.average), rate, finite(held_out))
    per_step = course.seconds_per_step()
    yield Progress(step, run.total_steps, None if per_step is None else per_step * (run.total_steps - step))
    drawn = due(step, job.saves.preview_every_steps) or due(step, job.saves.preview_every_epochs * epoch)
    if commands.take("sample") or (drawn and step > 0) or (step == 0 and job.saves.preview_first):
        yield from draw_previews(run, step)
    yield from saves(run, course, commands.take("save"))


def saves(run: Run, course: Course, asked: bool) -> Iterator[Event]:
    """Save what is due or asked for after `course.step` steps; nothing while the factors are not finite."""
    job, step = run.job.saves, course.step
    between = 0 < step < run.total_steps
    every = due(step, job.save_every_steps) or due(step, job.save_every_epochs * run.steps_per_epoch)
    every = every or due(step, part_of(run))
    lora = (asked and step > 0) or (between and every)
    state = (asked and step > 0) or (between and due(step, job.state_every_steps))
    if (lora or state) and not saving.is_finite(run):
        yield Note(f"Nothing was saved after step {step}: the weights are not finite.", "warning")
        return
    if lora:
        yield saving.save_lora(run, course, saving.step_name(run, step))
        course.saves.append(step)
        yield from drop_old(run, course)
    if state:
        yield saving.save_state(run, course)


def part_of(run: Run) -> int:
    """Steps between the saves that save_parts asks for: whole epochs, so many that there are that many at least."""
    parts, epochs = run.job.saves.save_parts, -(-run.total_steps // run.steps_per_epoch)
    return max(1, epochs // parts) * run.steps_per_epoch if parts else 0


def drop_old(run: Run, course: Course) -> Iterator[Event]:
    """Delete the saves of this run that are older than the last ones to keep."""
    names = saving.drop_old(run, course)
    if names:
        yield Note(f"Older saves are deleted, as keep_last asks: {', '.join(names)}.")


def paused(run: Run, course: Course, commands: Commands) -> Iterator[Event]:
    """Wait while `pause` is up, with no more memory than the weights take; what is asked for meanwhile is drawn and
    saved. The time does not count as training."""
    if not commands.pause or commands.stop:
        return
    began = time.monotonic()
    release(run.device)
    yield HELD
    while commands.pause and not commands.stop:
        commands.wait_while_paused(0.25)
        if commands.take("sample"):
            yield from draw_previews(run, course.step)
        if commands.take("save"):
            yield from saves(run, course, asked=True)
    course.began += time.monotonic() - began
    yield Stage("Training")


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def finish(run: Run, course: Course, stopped: bool) -> Generator[Event, None, Finished]:
    """Write the LoRA, check it, and say so. What the job ends with."""
    yield Stage("Saving")
    if course.step == 0:
        raise LoomError("The training was stopped before its first step; there is nothing to keep.")
    if stopped:
        yield saving.save_state(run, course)
        name = saving.step_name(run, course.step)
    else:
        name = run.job.name
    try:
        saved = saving.save_lora(run, course, name)
    except Exception as error:
        if not stopped:
            yield from keep_work(run, course, error)
        raise
    yield saved
    if not stopped:
        saving.drop_state(run)
        saving.require_learned(run)
    if saved.kind == "lora" and (said := unread(saved.path, run.architecture)):
        yield Note(said, "warning")
    report = saving.report(run, course)
    yield from saving.write_report(run, report)
    release(run.device)
    return Finished((saved.path,), report, stopped)


def keep_work(run: Run, course: Course, error: Exception) -> Iterator[Event]:
    """Save what was trained before `error` ends the job; a failure to do so is said, and never hides the error."""
    release(run.device)
    run.optimizer.zero_grad(set_to_none=True)
    if course.step == 0:
        return
    try:
        saved = saving.save_lora(run, course, saving.step_name(run, course.step))
        yield saved
        yield Note(f"What was trained in {course.step} steps is kept in {Path(saved.path).name}.", "warning")
    except FAULTS as second:
        last = f" The last save is of step {course.saves[-1]}." if course.saves else ""
        yield Note(f"What was trained could not be saved either: {second}{last}", "warning")
    try:
        yield saving.save_state(run, course)
    except FAULTS as second:
        yield Note(f"The state to resume from could not be written: {second}", "warning")
