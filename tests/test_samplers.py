"""Samplers against closed forms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from lora_core.engine.denoiser import to_clean
from lora_core.engine.sampler_rules import COMFYUI
from lora_core.engine.samplers import Renoise
from lora_core.engine.schedule import discretization, sampling_sigmas

SPREAD = 0.8


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The exact denoiser of data distributed as N(0, SPREAD^2)."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def last(name: str, steps: int, start: float = 14.6) -> float:
    sigmas = sampling_sigmas(discretization(), "karras", steps).double()
    x = torch.full((1,), start, dtype=torch.float64)
    return float(list(COMFYUI[name].function(gaussian, x, sigmas, Renoise(lambda *_: torch.zeros(1), eta=0.0)))[-1].x)


@pytest.mark.parametrize("name", [name for name in COMFYUI if name != "lcm"])
def test_converges_to_the_exact_flow(name: str) -> None:
    """The probability flow of Gaussian data scales x by sqrt((s^2 + sigma^2) / (s^2 + sigma_max^2)); the last step to
    sigma 0 takes the estimate instead, which loses as much as the estimate shrinks."""
    least = {"unipc": 0.001, "lms": 0.0}.get(name, 0.029167)
    flow = 14.6 * ((SPREAD**2 + least**2) / (SPREAD**2 + 14.6146**2)) ** 0.5
    exact = flow * SPREAD**2 / (SPREAD**2 + least**2)
    errors = [abs(last(name, steps) - exact) / exact for steps in (25, 100, 400)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_ddim_is_the_papers_update() -> None:
    """Song et al. 2021, equation 12 with eta 0, in alphas and numpy."""
    sigmas = sampling_sigmas(discretization(), "ddim_uniform", 10).double()
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 4)) / 4
    x = rng.normal(size=4) * float(sigmas[0])

    def denoise(z: torch.Tensor, sigma: float) -> torch.Tensor:
        scaled = z / (sigma**2 + 1) ** 0.5
        return z - sigma * torch.tanh(torch.from_numpy(weight) @ scaled)

    got = list(COMFYUI["ddim"].function(denoise, torch.from_numpy(x), sigmas, Renoise()))[-1].x.numpy()
    bars = 1 / (sigmas.double().numpy() ** 2 + 1)
    z = x * bars[0] ** 0.5
    for bar, after in pairwise(bars):
        eps = np.tanh(weight @ z)
        clean = (z - (1 - bar) ** 0.5 * eps) / bar**0.5
        z = after**0.5 * clean + (1 - after) ** 0.5 * eps
    assert np.allclose(got, z, rtol=1e-9)


def test_steps_are_counted_and_show_the_estimate() -> None:
    sigmas = sampling_sigmas(discretization(), "normal", 5)
    steps = list(COMFYUI["euler"].function(gaussian, torch.ones(1), sigmas, Renoise()))
    assert [(s.done, s.total) for s in steps] == [(i, 5) for i in range(1, 6)]
    assert torch.equal(steps[-1].x, steps[-1].denoised)


def test_both_predictions_give_the_clean_latents() -> None:
    clean, eps, sigma = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64), 3.7
    x = clean + sigma * eps
    alpha, spread = (1 / (1 + sigma**2)) ** 0.5, (sigma**2 / (1 + sigma**2)) ** 0.5
    assert torch.allclose(to_clean(x, eps, sigma, v=False), clean)
    assert torch.allclose(to_clean(x, alpha * eps - spread * clean, sigma, v=True), clean)
