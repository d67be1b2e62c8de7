"""Three kinds of dropout inside a branch. All are nn.Dropout, so that whatever switches dropout off finds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class RankDropout(nn.Dropout):
    """Drops whole ranks per picture: low [b, ..., r], or [b, r, h, w] after a convolution; kept ones grow by 1/(1-p).

    As kohya's rank_dropout.
    """

    def __init__(self, p: float, axis: int) -> None:
        super().__init__(p)
        self.axis = axis

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return input
        shape = [1] * input.dim()
        shape[0], shape[self.axis] = input.shape[0], input.shape[self.axis]
        kept = torch.rand(shape, device=input.device) > self.p
        return input * (kept.to(input.dtype) / (1 - self.p))


class ModuleDropout(nn.Dropout):
    """Leaves a whole branch out of a forward pass: with chance p, or always while it is `off`."""

    off = False

    def falls(self) -> bool:
        return self.off or (self.training and self.p > 0 and float(torch.rand(())) < self.p)


@contextmanager
def base_alone(components: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the base computes without its branches."""
    switches = [m for component in components for m in component.modules() if isinstance(m, ModuleDropout)]
    for switch in switches:
        switch.off = True
    try:
        yield
    finally:
        for switch in switches:
            switch.off = False


def thinning(dropout: float, rank_dropout: float, axis: int) -> nn.Module:
    """What stands between down and up."""
    parts = [nn.Dropout(dropout)] * (dropout > 0) + [RankDropout(rank_dropout, axis)] * (rank_dropout > 0)
    return nn.Sequential(*parts) if parts else nn.Identity()
