"""PEFT's LoRA layers with a forward that adds the branch to the base's output in place, in one pass.

Same arithmetic as PEFT's own forward (y = W x + alpha / rank * up(down(x))), with fewer passes over memory: the scaled
product is accumulated by the matrix multiplication itself. The factors stay fp32 and are rounded to the base's format
where they are used.

DoRA (Liu et al. 2024, arXiv:2402.09353): y = W' x with W' = m * (W + BA) / |W + BA|, m one number per input as in the
paper and in the hosts, so that W' x = (W + BA)(x * m / |W + BA|); no gradient through the norm (section 4.3).
PiSSA (Meng et al. 2024, arXiv:2404.02948): the branch starts at the base's largest singular directions; they are
subtracted here instead of from the base, so that the saved difference fits the ordinary base.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Conv2d, Linear
from torch import nn

from lora_core.engine.dropping import ModuleDropout, thinning
from lora_core.jobs.network import Network as NetworkSettings
from lora_core.svd import random_svd

ADAPTER = "default"
PISSA_POWER = 4


@dataclass(frozen=True)
class Size:
    """Rank and alpha of one module; its delta is scaled by alpha / rank."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class LoraBranch:
    """What our LoRA layers have in common; mixed into PEFT's. Factors: down [r, in(, kh, kw)], up [out, r(, 1, 1)]."""

    size: Size
    base_layer: Any
    lora_A: Any
    lora_B: Any
    thinned: nn.Module
    skips: ModuleDropout
    pissa: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def down(self) -> nn.Parameter:
        return self.lora_A[ADAPTER].weight

    @property
    def up(self) -> nn.Parameter:
        return self.lora_B[ADAPTER].weight

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.skips.falls():
            return self.base_layer(x)
        return self.branched(x)

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def factors(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, float]:
        """down and up in `dtype` (with PiSSA's start subtracted), and alpha / rank."""
        down, up = self.down.to(dtype), self.up.to(dtype)
        if self.pissa is None:
            return down, up, self.size.scale
        return torch.cat((down, self.pissa[0].to(dtype))), torch.cat((up, -self.pissa[1].to(dtype)), 1), self.size.scale

    def trained(self) -> dict[str, nn.Parameter]:
        """Part -> parameter."""
        return {"down": self.down, "up": self.up}

    def constants(self) -> dict[str, torch.Tensor]:
        """Part -> tensor that belongs to the branch and stays as it is."""
        return {} if self.pissa is None else dict(zip(("start_down", "start_up"), self.pissa))

    def saved(self) -> dict[str, torch.Tensor]:
        """Part -> tensor as in the file. With PiSSA the difference from the start: twice the rank."""
        down, up, _ = self.factors(torch.float32)
        alpha = self.size.alpha * (1 if self.pissa is None else 2)
        return {"alpha": torch.tensor(alpha), "down": down, "up": up}

    def fast(self) -> tuple[str, ...]:
        """The parts that learn faster with LoRA+ (Hayou et al. 2024, arXiv:2402.12354)."""
        return ("up",)

    def begin(self, draw: torch.Generator) -> None:
        """Start values: down Kaiming-uniform, up zero (Hu et al. 2021)."""
        device = self.base_layer.weight.device
        bound = 1 / math.sqrt(self.down[0].numel())
        start = (torch.rand(self.down.shape, generator=draw) * 2 - 1) * bound
        self.lora_A[ADAPTER].weight = nn.Parameter(start.to(device))
        self.lora_B[ADAPTER].weight = nn.Parameter(torch.zeros(self.up.shape, device=device))

    def begin_pissa(self, draw: torch.Generator) -> None:
        """down and up = roots of the `rank` largest singular directions of W / scale."""
        weight: torch.Tensor = self.base_layer.weight.detach()
        matrix = weight.float().flatten(1).cpu()
        found = random_svd(matrix, min(self.size.rank, *matrix.shape), power=PISSA_POWER, generator=draw)
        root = (found.s / self.size.scale).sqrt()
        down, up = torch.zeros(self.down.shape).flatten(1), torch.zeros(self.up.shape).flatten(1)
        down[: len(root)], up[:, : len(root)] = found.vh * root[:, None], found.u * root
        starts = down.reshape(self.down.shape).to(weight.device), up.reshape(self.up.shape).to(weight.device)
        self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight = (nn.Parameter(t.clone()) for t in starts)
        self.pissa = starts

    def changes(self) -> bool:
        """Whether the branch does anything."""
        return bool(self.up.detach().any()) if self.pissa is None else not torch.equal(self.up, self.pissa[1])

    def limit(self, longest: float) -> None:
        """Shrink both factors evenly when |up down alpha / rank| is above `longest` (kohya's scale_weight_norms)."""
        down, up = self.down.data.flatten(1), self.up.data.flatten(1)
        length = float(((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt()) * self.size.scale
        if length > longest:
            root = math.sqrt(longest / length)
            self.down.data.mul_(root)
            self.up.data.mul_(root)


class LinearBranch(LoraBranch, Linear):
    """A linear layer with its LoRA: x [..., in] -> [..., out]."""

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base_layer(x)
        down, up, scale = self.factors(y.dtype)
        low = self.thinned(F.linear(x.to(y.dtype), down))
        y.view(-1, y.shape[-1]).addmm_(low.reshape(-1, low.shape[-1]), up.t(), alpha=scale)
        return y


class ConvBranch(LoraBranch, Conv2d):
    """A convolution with its LoRA: x [b, in, h, w] -> [b, out, h', w']."""

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        base: Any = self.base_layer
        y = base(x)
        down, up, scale = self.factors(y.dtype)
        low = self.thinned(F.conv2d(x.to(y.dtype), down, None, base.stride, base.padding, base.dilation))
        return y.add_(F.conv2d(low, up), alpha=scale)


class DoraBranch(LoraBranch):
    """A LoRA layer whose inputs are scaled by m / |W + BA|, m [in]. Mixed in before LinearBranch or ConvBranch."""

    dora_scale: nn.Parameter
    squares: torch.Tensor

    def branched(self, x: torch.Tensor) -> torch.Tensor:
        gain = (self.dora_scale / self.norms()).reshape(self.per_input(x))
        return super().branched((x.float() * gain).to(x.dtype))  # pyright: ignore[reportAbstractUsage]

    def per_input(self, x: torch.Tensor) -> tuple[int, ...]:
        return (1, -1, 1, 1) if isinstance(self, Conv2d) else (-1,)

    @torch.no_grad()
    def norms(self) -> torch.Tensor:
        """|W + BA| per input [in], without forming the sum: |w|^2 + 2 w.(BA) + |BA|^2 column by column."""
        weight: torch.Tensor = self.base_layer.weight
        down, up = self.down.flatten(1) * self.size.scale, self.up.flatten(1)
        cross = (up.t().to(weight.dtype) @ weight.flatten(1)).float() * down
        both = ((up.t() @ up) @ down) * down
        change = (2 * cross + both).sum(0).reshape(weight.shape[1], -1).sum(1)
        return (self.squares + change).clamp(min=1e-12).sqrt()

    def trained(self) -> dict[str, nn.Parameter]:
        return super().trained() | {"dora_scale": self.dora_scale}

    def saved(self) -> dict[str, torch.Tensor]:
        weight: torch.Tensor = self.base_layer.weight
        shape = (1, weight.shape[1], *(1,) * (weight.dim() - 2))
        return super().saved() | {"dora_scale": self.dora_scale.detach().reshape(shape)}

    def begin(self, draw: torch.Generator) -> None:
        super().begin(draw)
        weight: torch.Tensor = self.base_layer.weight.detach()
        columns = weight.float().transpose(0, 1).flatten(1)
        self.squares = columns.square().sum(1)
        self.dora_scale = nn.Parameter(self.norms())


class LinearDora(DoraBranch, LinearBranch):
    """A linear layer with DoRA."""


class ConvDora(DoraBranch, ConvBranch):
    """A convolution with DoRA."""


def lora_layer(base: nn.Module, size: Size, settings: NetworkSettings) -> LinearBranch | ConvBranch:
    """A LoRA or DoRA layer around `base`; its factors are uninitialised."""
    linear = isinstance(base, nn.Linear)
    if settings.algorithm == "dora":
        kind: Any = LinearDora if linear else ConvDora
    else:
        kind = LinearBranch if linear else ConvBranch
    with torch.random.fork_rng(devices=[]):  # PEFT draws start values that are replaced anyway
        layer = kind(base, ADAPTER, r=size.rank, lora_alpha=size.alpha, lora_dropout=0.0, init_lora_weights=False)
    layer.size = size
    layer.thinned = thinning(settings.dropout, settings.rank_dropout, -1 if linear else 1)
    layer.skips = ModuleDropout(settings.module_dropout)
    return layer
