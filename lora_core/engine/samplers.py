"""First-order and Heun-like samplers as flat generators, k-diffusion style (Karras et al. 2022).

Each takes `denoise(x, sigma)`, which estimates the clean latents, the first x, the descending sigmas (float32, on the
CPU) and the noise to add back; it yields the state after every step, so that the caller can show it or stop. Sigmas
stay tensors: their last bit decides where on a Brownian path the noise is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

Denoise = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Step:
    """After `done` of `total` steps: the state x and the model's last estimate of the clean latents, both [n,c,h,w]."""

    done: int
    total: int
    x: torch.Tensor
    denoised: torch.Tensor


def no_noise(sigma: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    raise ValueError(f"This sampler adds noise between {float(sigma)} and {float(after)}, and none was given.")


@dataclass(frozen=True)
class Renoise:
    """What stochastic samplers add back: `draw(sigma, after)` is N(0, 1) of x's shape; `eta` scales it."""

    draw: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = no_noise
    eta: float = 1.0


DETERMINISTIC = Renoise()
Sampler = Callable[[Denoise, torch.Tensor, torch.Tensor, Renoise], Iterator[Step]]


def ancestral(sigma: torch.Tensor, after: torch.Tensor, eta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """How far to step down and how much noise to add, so that the noise level afterwards is `after`."""
    up = torch.minimum(after, eta * (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5)
    return (after if eta == 0 else (after**2 - up**2) ** 0.5), up


def euler(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise = DETERMINISTIC) -> Iterator[Step]:
    """Algorithm 2 with S_churn 0 and without the correction."""
    total = len(sigmas) - 1
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        yield Step(i + 1, total, x, denoised)


def ddim(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise = DETERMINISTIC) -> Iterator[Step]:
    """Song et al. 2021 with eta 0. In sigma space this is Euler's step, which is how ComfyUI computes it."""
    return euler(denoise, x, sigmas)


def euler_ancestral(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise) -> Iterator[Step]:
    """Euler's step to below the next noise level, then noise up to it."""
    total = len(sigmas) - 1
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        down, up = ancestral(sigmas[i], sigmas[i + 1], renoise.eta)
        x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
        if sigmas[i + 1] > 0:
            x = x + renoise.draw(sigmas[i], sigmas[i + 1]) * up
        yield Step(i + 1, total, x, denoised)


def heun(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise = DETERMINISTIC) -> Iterator[Step]:
    """Algorithm 2 with S_churn 0: the mean slope of both ends of a step."""
    total = len(sigmas) - 1
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        d, dt = (x - denoised) / sigmas[i], sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] > 0:
            trial = x + d * dt
            d = (d + (trial - denoise(trial, float(sigmas[i + 1]))) / sigmas[i + 1]) / 2
        x = x + d * dt
        yield Step(i + 1, total, x, denoised)


def dpm2(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise = DETERMINISTIC) -> Iterator[Step]:
    """DPM-Solver-2 (Lu et al. 2022): the slope of the geometric middle of a step."""
    total = len(sigmas) - 1
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        x = _through_the_middle(denoise, x, denoised, sigmas[i], sigmas[i + 1])
        yield Step(i + 1, total, x, denoised)


def dpm2_ancestral(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise) -> Iterator[Step]:
    """DPM-Solver-2 to below the next noise level, then noise up to it."""
    total = len(sigmas) - 1
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        down, up = ancestral(sigmas[i], sigmas[i + 1], renoise.eta)
        x = _through_the_middle(denoise, x, denoised, sigmas[i], down)
        if down > 0:
            x = x + renoise.draw(sigmas[i], sigmas[i + 1]) * up
        yield Step(i + 1, total, x, denoised)


def _through_the_middle(
    denoise: Denoise, x: torch.Tensor, denoised: torch.Tensor, sigma: torch.Tensor, after: torch.Tensor
) -> torch.Tensor:
    d = (x - denoised) / sigma
    if after == 0:
        return x + d * (after - sigma)
    middle = sigma.log().lerp(after.log(), 0.5).exp()
    trial = x + d * (middle - sigma)
    return x + (trial - denoise(trial, float(middle))) / middle * (after - sigma)


def lms(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise = DETERMINISTIC) -> Iterator[Step]:
    """Linear multistep (Adams-Bashforth) of order 4 over uneven steps."""
    total = len(sigmas) - 1
    times, slopes = sigmas.double().numpy(), []
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        slopes = [(x - denoised) / sigmas[i], *slopes[:3]]
        for j, slope in enumerate(slopes):
            x = x + _lagrange_integral(times, i, j, len(slopes)) * slope
        yield Step(i + 1, total, x, denoised)


def _lagrange_integral(times: np.ndarray, i: int, j: int, order: int) -> float:
    """The integral over [times[i], times[i + 1]] of the basis polynomial of node i - j among i .. i - order + 1."""
    others = [times[i - k] for k in range(order) if k != j]
    basis = np.poly1d(others, r=True) / np.prod([times[i - j] - other for other in others])
    whole = np.polyint(basis)
    return float(whole(times[i + 1]) - whole(times[i]))


def lcm(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise) -> Iterator[Step]:
    """Multistep consistency sampling (Song et al. 2023): jump to the estimate, add fresh noise."""
    total = len(sigmas) - 1
    for i in range(total):
        x = denoised = denoise(x, float(sigmas[i]))
        if sigmas[i + 1] > 0:
            x = denoised + sigmas[i + 1] * renoise.draw(sigmas[i], sigmas[i + 1])
        yield Step(i + 1, total, x, denoised)
