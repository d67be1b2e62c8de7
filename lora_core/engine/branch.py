"""PEFT's LoRA layers with a forward that adds the branch to the base's output in place, in one pass.

Same arithmetic as PEFT's own forward (y = W x + alpha / rank * up(down(dropout(x)))), with fewer passes over memory:
the scaled product is accumulated by the matrix multiplication itself. The factors stay fp32 and are rounded to the
base's format where they are used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Conv2d, Linear
from torch import nn

ADAPTER = "default"


class LinearBranch(Linear):
    """A linear layer with its LoRA: x [..., in] -> [..., out]."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        y = self.base_layer(x)
        down, up, scale = factors(self, y.dtype)
        low = F.linear(self.lora_dropout[ADAPTER](x).to(y.dtype), down)
        y.view(-1, y.shape[-1]).addmm_(low.reshape(-1, low.shape[-1]), up.t(), alpha=scale)
        return y


class ConvBranch(Conv2d):
    """A convolution with its LoRA: x [b, in, h, w] -> [b, out, h', w']."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        base: Any = self.base_layer
        y = base(x)
        down, up, scale = factors(self, y.dtype)
        low = F.conv2d(self.lora_dropout[ADAPTER](x).to(y.dtype), down, None, base.stride, base.padding, base.dilation)
        return y.add_(F.conv2d(low, up), alpha=scale)


def factors(layer: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, float]:
    """down and up in `dtype`, and alpha / rank."""
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return down.to(dtype), up.to(dtype), layer.scaling[ADAPTER]


def branch_layer(base: nn.Module, rank: int, alpha: float, dropout: float) -> LinearBranch | ConvBranch:
    """A LoRA layer around `base`; its factors are uninitialised."""
    kind = LinearBranch if isinstance(base, nn.Linear) else ConvBranch
    with torch.random.fork_rng(devices=[]):  # PEFT draws start values that are replaced anyway
        return kind(base, ADAPTER, r=rank, lora_alpha=alpha, lora_dropout=dropout, init_lora_weights=False)  # pyright: ignore[reportArgumentType]
