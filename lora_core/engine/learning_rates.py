"""Schedules of the learning rate, all from diffusers, transformers and torch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lora_core.engine.averages import has_modes
from lora_core.engine.optimizers import arguments, class_named, warmup_steps
from lora_core.errors import ConfigError
from lora_core.jobs.train import Optimization

FROM_TRANSFORMERS = ("inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay", "reduce_lr_on_plateau")


def build_schedule(settings: Optimization, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The schedule over `steps` optimizer steps. Schedule-free optimizers keep their rate, and warm up
    themselves; Adafactor with relative_step makes its own.

    Raises ConfigError for a class that is not there, and for arguments that it does not take.
    """
    if settings.schedule_class:
        return _by_class(settings, optimizer)
    if has_modes(optimizer):
        return LambdaLR(optimizer, lambda _: 1.0)
    if optimizer.param_groups[0]["lr"] is None:
        from transformers.optimization import AdafactorSchedule

        return AdafactorSchedule(optimizer, settings.learning_rate)
    common = {"optimizer": optimizer, "num_warmup_steps": warmup_steps(settings, steps), "num_training_steps": steps}
    try:
        if settings.schedule in FROM_TRANSFORMERS:
            return _from_transformers(settings, common)
        return _from_diffusers(settings, common)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The schedule {settings.schedule} cannot be made: {error}") from error


def _from_diffusers(settings: Optimization, common: dict[str, Any]) -> LRScheduler:
    from diffusers.optimization import get_piecewise_constant_schedule, get_scheduler

    given = arguments(settings.schedule_args)
    if settings.schedule != "piecewise_constant":
        if given:
            raise ConfigError(f"The schedule {settings.schedule} takes no arguments (schedule_args).")
        return get_scheduler(settings.schedule, num_cycles=settings.cycles, power=settings.power, **common)
    rules = given.get("step_rules")
    if not isinstance(rules, str) or set(given) != {"step_rules"}:
        raise ConfigError(
            "piecewise_constant needs its rules in schedule_args: step_rules = 1:100,0.1:200,0.01 means the whole rate "
            "up to step 100, a tenth up to step 200, then a hundredth."
        )
    return get_piecewise_constant_schedule(common["optimizer"], rules)


def _from_transformers(settings: Optimization, common: dict[str, Any]) -> LRScheduler:
    from transformers.optimization import get_scheduler

    extra: dict[str, Any] = {}
    rest = common["num_training_steps"] - common["num_warmup_steps"]
    if settings.schedule == "cosine_with_min_lr":
        extra = {"min_lr_rate": settings.min_lr_ratio}
    elif settings.schedule == "warmup_stable_decay":
        asked = settings.decay_steps
        decay = rest // 5 if not asked else round(asked * common["num_training_steps"] if asked < 1 else asked)
        decay = min(decay, rest)
        extra = {"num_decay_steps": decay, "num_stable_steps": rest - decay, "min_lr_ratio": settings.min_lr_ratio}
    extra |= arguments(settings.schedule_args)
    return get_scheduler(settings.schedule, scheduler_specific_kwargs=extra, **common)


def _by_class(settings: Optimization, optimizer: torch.optim.Optimizer) -> LRScheduler:
    path = settings.schedule_class
    full = path if "." in path else f"torch.optim.lr_scheduler.{path}"
    try:
        kind = class_named(full, LRScheduler if "ReduceLROnPlateau" not in full else object)
    except ImportError as error:
        raise ConfigError(f"There is no schedule class {path}: {error}.") from error
    given = arguments(settings.schedule_args)
    unknown = [name for name in given if name not in inspect.signature(kind.__init__).parameters]
    if unknown:
        raise ConfigError(f"{path} takes no {' or '.join(unknown)} (schedule_args).")
    try:
        return kind(optimizer, **given)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"The schedule class {path} cannot be made: {error}. See schedule_args.") from error
