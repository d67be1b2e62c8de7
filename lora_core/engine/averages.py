"""What happens to the weights after an optimizer step, and which weights count: live ones, or an average of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from lora_core.engine.setup import Run


class Ema:
    """Moving average of the parameters: a <- d a + (1 - d) p, d rising to `decay` as (1 + n) / (10 + n)."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.parameters = parameters
        self.tensors = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self.parameters.items():
            self.tensors[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters are the average."""
        live = {name: p.data for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            p.data = self.tensors[name]
        try:
            yield
        finally:
            for name, p in self.parameters.items():
                p.data = live[name]


def after_update(run: Run) -> None:
    """Largest norm, then the moving average."""
    longest = run.job.network.max_norm
    if longest:
        with torch.no_grad():
            for branch in run.network.branches.values():
                branch.limit(longest)
    if run.ema is not None:
        run.ema.update()


@contextmanager
def as_saved(run: Run) -> Iterator[None]:
    """Inside, the parameters are what a file of this moment holds; afterwards every bit is as before."""
    if run.ema is not None:
        with run.ema.swapped():
            yield
    elif has_modes(run.optimizer):
        with averaged(run.optimizer):
            yield
    else:
        yield


def has_modes(optimizer: Any) -> bool:
    """Whether the optimizer keeps an average of its own (schedule-free, Defazio et al. 2024, arXiv:2405.15682)."""
    return callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))


@contextmanager
def averaged(optimizer: Any) -> Iterator[None]:
    """Inside, a schedule-free optimizer's parameters are its average. Its own way back would lose bits."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    live = [p.detach().clone() for p in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for p, before in zip(parameters, live):
                p.copy_(before)
