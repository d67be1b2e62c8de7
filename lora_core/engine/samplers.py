"""Samplers as flat generators: each yields the state after every step, so that the caller can show it or stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

Denoise = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Step:
    """After `done` of `total` steps: the state x and the model's last estimate of the clean latents, both [n,c,h,w]."""

    done: int
    total: int
    x: torch.Tensor
    denoised: torch.Tensor


def euler(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor) -> Iterator[Step]:
    """Karras et al. 2022, algorithm 2 with S_churn 0. `denoise(x, sigma)` estimates the clean latents."""
    total = len(sigmas) - 1
    for i, (sigma, after) in enumerate(zip(sigmas.tolist(), sigmas[1:].tolist())):
        denoised = denoise(x, sigma)
        d = (x - denoised) / sigma
        x = x + d * (after - sigma)
        yield Step(i + 1, total, x, denoised)


def ddim(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor) -> Iterator[Step]:
    """Song et al. 2021 with eta 0. In sigma space this is Euler's step, which is how ComfyUI computes it."""
    return euler(denoise, x, sigmas)


SAMPLERS: dict[str, Callable[[Denoise, torch.Tensor, torch.Tensor], Iterator[Step]]] = {"ddim": ddim, "euler": euler}
