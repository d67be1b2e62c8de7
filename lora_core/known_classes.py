"""Which optimizers and schedules pages and requests may name: a class is imported before it can be looked at."""

from __future__ import annotations

import re
from typing import Any

from lora_core.jobs.train import TrainJob

OPTIMIZERS = (
    *("torch.optim", "transformers.optimization", "bitsandbytes.optim", "lion_pytorch", "prodigyopt", "schedulefree"),
    *("dadaptation", "pytorch_optimizer"),
)
SCHEDULES = ("torch.optim.lr_scheduler", "pytorch_optimizer")
PLAIN = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")


def class_faults(job: Any) -> list[str]:
    """A sentence for each class of a training that is of no known package; the command line may name any."""
    if not isinstance(job, TrainJob):
        return []
    named = (
        ("optimizer_class", job.optimization.optimizer_class, OPTIMIZERS),
        ("schedule_class", job.optimization.schedule_class, SCHEDULES),
    )
    return [
        f"{field}: {path[:200]!r} is of no package that pages and requests may name ({', '.join(packages)}). "
        "The command line takes any class."
        for field, path, packages in named
        if path and not is_known(path, packages)
    ]


def is_known(path: str, packages: tuple[str, ...]) -> bool:
    """Whether a class is named alone, which stands for torch's own, or lies in one of the packages."""
    inside = "." not in path or path.startswith(tuple(f"{package}." for package in packages))
    return inside and PLAIN.fullmatch(path) is not None
