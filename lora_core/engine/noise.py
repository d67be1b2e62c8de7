"""Diffusion forward process of Stable Diffusion, discrete timesteps (Ho et al. 2020, Salimans & Ho 2022)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from lora_core.engine.randomness import generator
from lora_core.jobs.train import NoiseAndLoss


@dataclass(frozen=True)
class Noised:
    """x_t [b,c,h,w], its timesteps t [b], the regression target [b,c,h,w] and alpha_bar(t) [b]."""

    latents: torch.Tensor
    timesteps: torch.Tensor
    target: torch.Tensor
    alpha_bar: torch.Tensor

    def to(self, device: torch.device) -> Noised:
        """The same values on another device."""
        return Noised(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


def draw_timesteps(settings: NoiseAndLoss, count: int, seed: int, *position: int | str) -> torch.Tensor:
    """t [count] uniform over [min_timestep, max_timestep)."""
    g = generator(seed, "timesteps", *position)
    return torch.randint(settings.min_timestep, settings.max_timestep, (count,), generator=g)


def draw_noise(settings: NoiseAndLoss, shape: torch.Size, seed: int, *position: int | str) -> torch.Tensor:
    """eps [b,c,h,w] ~ N(0, 1), plus `noise_offset` times one normal number per channel (Guttenberg 2023)."""
    g = generator(seed, "noise", *position)
    noise = torch.randn(shape, generator=g)
    if settings.noise_offset:
        noise = noise + settings.noise_offset * torch.randn((*shape[:2], 1, 1), generator=g)
    return noise


def diffuse(
    latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, alphas_bar: torch.Tensor, prediction: str
) -> Noised:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) eps; target eps, or v = sqrt(a) eps - sqrt(1 - a) x_0. All fp32."""
    a = alphas_bar[timesteps]
    signal, sigma = a.sqrt()[:, None, None, None], (1 - a).sqrt()[:, None, None, None]
    target = noise if prediction == "epsilon" else signal * noise - sigma * latents
    return Noised(signal * latents + sigma * noise, timesteps, target, a)
