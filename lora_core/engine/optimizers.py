"""Optimizers and schedules, all from well-kept packages; an optional one that fails a real step is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from lora_core.errors import ConfigError
from lora_core.jobs.train import Optimization

Groups = list[dict[str, Any]]


def _bitsandbytes_adamw(groups: Groups, **options: Any) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]

    return AdamW8bit(groups, **options)


def _lion(groups: Groups, **options: Any) -> torch.optim.Optimizer:
    from lion_pytorch import Lion  # pyright: ignore[reportMissingImports]

    return Lion(groups, **options)


def _prodigy(groups: Groups, **options: Any) -> torch.optim.Optimizer:
    from prodigyopt import Prodigy  # pyright: ignore[reportMissingImports]

    return Prodigy(groups, use_bias_correction=True, safeguard_warmup=True, **options)


def _adafactor(groups: Groups, **options: Any) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    options.pop("betas")
    options["lr"] = groups[0]["lr"]  # the polynomial schedule reads the common one
    return Adafactor(groups, scale_parameter=False, relative_step=False, warmup_init=False, **options)


def _sgd(groups: Groups, **options: Any) -> torch.optim.Optimizer:
    momentum = options.pop("betas")[0]
    return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, **options)


BUILDERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": _sgd,
    "adafactor": _adafactor,
    "adamw8bit": _bitsandbytes_adamw,
    "lion": _lion,
    "prodigy": _prodigy,
}


def build_optimizer(settings: Optimization, groups: Groups) -> tuple[torch.optim.Optimizer, str]:
    """The optimizer over `groups` (each with its own "lr"), and a sentence ("" when the wish was met).

    One that is not installed, or that fails a real step on these devices, is replaced by AdamW; not so Prodigy, whose
    learning rates of about 1 would destroy the LoRA there: it raises ConfigError.
    """
    options = {"betas": (settings.beta1, settings.beta2), "weight_decay": settings.weight_decay}
    build = BUILDERS[settings.optimizer]
    try:
        if build not in (torch.optim.AdamW, torch.optim.Adam, _sgd):
            _probe(build, options, groups[0]["params"][0].device)
        return build(groups, **options), ""
    except (ImportError, RuntimeError, AttributeError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if settings.optimizer == "prodigy":
            raise ConfigError(
                f"The optimizer prodigy cannot be used here ({reason}). Install prodigyopt, or choose adamw with a "
                "learning rate of about 0.0001."
            ) from error
        sentence = f"The optimizer {settings.optimizer} cannot be used here ({reason}); AdamW is used instead."
        return torch.optim.AdamW(groups, **options), sentence


def _probe(build: Callable[..., torch.optim.Optimizer], options: dict[str, Any], device: torch.device) -> None:
    p = torch.nn.Parameter(torch.ones(64, 64, device=device))
    p.grad = torch.ones_like(p)
    build([{"params": [p], "lr": 1e-3}], **options).step()
    if not torch.isfinite(p).all():
        raise RuntimeError("its step gave NaN")


def build_schedule(
    settings: Optimization, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule over `steps` optimizer steps, from diffusers where it has it, else from transformers."""
    warmup = round(settings.warmup * steps) if settings.warmup < 1 else round(settings.warmup)
    common: dict[str, Any] = {"optimizer": optimizer, "num_warmup_steps": warmup, "num_training_steps": steps}
    name = settings.schedule
    if name in ("inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay"):
        return _transformers_schedule(settings, common)
    from diffusers.optimization import get_scheduler

    return get_scheduler(name, num_cycles=settings.cycles, power=settings.power, **common)


def _transformers_schedule(settings: Optimization, common: dict[str, Any]) -> torch.optim.lr_scheduler.LRScheduler:
    from transformers.optimization import get_scheduler

    extra: dict[str, Any] = {}
    if settings.schedule == "cosine_with_min_lr":
        extra = {"min_lr_rate": settings.min_lr_ratio}
    elif settings.schedule == "warmup_stable_decay":
        rest = common["num_training_steps"] - common["num_warmup_steps"]
        extra = {
            "num_decay_steps": rest // 5,
            "num_stable_steps": rest - rest // 5,
            "min_lr_ratio": settings.min_lr_ratio,
        }
    return get_scheduler(settings.schedule, scheduler_specific_kwargs=extra, **common)


def parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]
