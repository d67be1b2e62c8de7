"""`train --goal character`: the settings of a goal as the command line's start, with flags on top, explained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lora_core.errors import ConfigError
from lora_core.goals import EFFORTS, FAMILIES, GOALS, Wish, explained, on_top, settings_for
from lora_core.jobs.train import TrainJob
from lora_core.settings import leaf_values, replace_by_name


def add_goal(parser: argparse.ArgumentParser) -> None:
    """The flags of a goal."""
    group = parser.add_argument_group("just train it")
    group.add_argument("--goal", choices=GOALS, help="settings for what is learned; other flags override them")
    group.add_argument("--effort", choices=EFFORTS, help="quick: half the steps, thorough: twice as many")
    group.add_argument("--low-memory", action="store_true", help="settings of the goal for a small card: slower")


def with_flags(job: Any, options: argparse.Namespace, given: dict[str, Any]) -> tuple[Any, list[str]]:
    """The job with the settings of --goal, if there is one, and those `given` as flags on top; sentences on them.

    Raises ConfigError, and FileError or KeyMismatch for a base that is not known.
    """
    if not isinstance(job, TrainJob):
        return replace_by_name(job, given), []
    if options.goal:
        return by_goal(job, options, given)
    if options.effort or options.low_memory:
        raise ConfigError("--effort and --low-memory say how a goal is reached: name one with --goal.")
    if not options.like:
        return replace_by_name(job, given), []
    values, kept = on_top(leaf_values(job), given)
    found = replace_by_name(job, values if kept else given)
    return found, [*filter(None, [kept]), *unlike(replace_by_name(TrainJob(), given), found, Path(options.like).name)]


def by_goal(job: TrainJob, options: argparse.Namespace, given: dict[str, Any]) -> tuple[TrainJob, list[str]]:
    """The job with the settings of the goal, then those `given`; what they are and why."""
    placed = replace_by_name(job, given)
    wish = Wish(options.goal, options.effort or "normal", family_of(placed), pictures_of(placed), options.low_memory)
    values, kept = on_top(settings_for(wish), given)
    job = replace_by_name(job, values)
    return job, [*filter(None, [kept]), *explained(leaf_values(job))]


def unlike(yours: TrainJob, found: TrainJob, name: str) -> list[str]:
    """What is not as your flags alone would make it, a line each."""
    from lora_core.train_like import differences

    rows = differences(yours, found)
    return [
        f"{len(rows)} settings are as in {name}:",
        *(f"  {d.label} ({d.name}): {d.second!r}, else {d.first!r}" for d in rows),
    ]


def family_of(job: TrainJob) -> str:
    from lora_core.architecture import architecture_of

    return architecture_of(job.base).family if job.base else FAMILIES[0]


def pictures_of(job: TrainJob) -> int:
    """How many pictures lie in the job's folders; those that are not there are told later."""
    from lora_core.caption_edit import caption_rows

    folders = [job.dataset.folder, *(s.folder for s in job.dataset.subsets if not s.class_pictures)]
    return sum(len(caption_rows(folder)) for folder in folders if folder and Path(folder).is_dir())
