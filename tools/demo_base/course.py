"""The course of a training: warm-up, then a cosine to almost zero, by steps or by the clock, whichever ends first."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch


def course(optimizer: torch.optim.Optimizer, steps: int, minutes: float, warmup: int) -> Iterator[int]:
    """The numbers of the steps; before each the optimizer's rate is set."""
    peak = optimizer.param_groups[0]["lr"]
    began = time.monotonic()
    for step in range(steps):
        part = max(step / steps, (time.monotonic() - began) / 60 / minutes)
        if part >= 1:
            return
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1, (step + 1) / warmup) * (0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2)
        yield step
