"""A UNet of one formula, for running samplers of ours and of the hosts on the same numbers. Needs torch alone."""

from __future__ import annotations

import torch


def toy(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Noise (or v) that a UNet of x [n,c,h,w] at timesteps t [n or none] might answer: bent, mixed, timed."""
    when = torch.as_tensor(t).float().reshape(-1, 1, 1, 1)
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, -1) + 0.002 * when)


def picture(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Latents [count, *shape] to start from in img2img."""
    numbers = torch.arange(count * shape[0] * shape[1] * shape[2], dtype=torch.float64)
    return torch.sin(numbers * 0.37).float().reshape(count, *shape)


def mask(shape: tuple[int, int, int]) -> torch.Tensor:
    """[1,1,h,w], 1 = repaint: a soft ramp between both sides."""
    return torch.linspace(-0.5, 1.5, shape[2]).clamp(0, 1).expand(1, 1, *shape[1:]).clone()
