"""Diffusion forward process of Stable Diffusion, discrete timesteps (Ho et al. 2020, Salimans & Ho 2022)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lora_core.engine.randomness import generator
from lora_core.jobs.noise import NoiseAndLoss


@dataclass(frozen=True)
class Noised:
    """x_t [b,c,h,w], its timesteps t [b], the regression target [b,c,h,w] and alpha_bar(t) [b]."""

    latents: torch.Tensor
    timesteps: torch.Tensor
    target: torch.Tensor
    alpha_bar: torch.Tensor

    def rows(self, rows: slice) -> Noised:
        """Some pictures of the batch."""
        return Noised(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def to(self, device: torch.device) -> Noised:
        """The same values on another device."""
        return Noised(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


def draw_timesteps(settings: NoiseAndLoss, count: int, seed: int, *position: int | str) -> torch.Tensor:
    """t [count] in [min_timestep, max_timestep), with the density of `settings`."""
    g = generator(seed, "timesteps", *position)
    first, end = settings.min_timestep, settings.max_timestep
    if settings.timestep_density == "uniform":
        return torch.randint(first, end, (count,), generator=g)
    if settings.timestep_density == "logit_normal":
        z = torch.randn(count, generator=g)
        u = torch.sigmoid(settings.density_mean + settings.density_std * z)
    else:
        u = torch.rand(count, generator=g)
        u = mode_density(u, settings.density_std) if settings.timestep_density == "mode" else cosmap_density(u)
    return (first + (u * (end - first)).floor()).clamp(first, end - 1).long()


def mode_density(u: torch.Tensor, s: float) -> torch.Tensor:
    """Uniform u in [0, 1] to a density with its mode in the middle (Esser et al. 2024, equation 20)."""
    return 1 - u - s * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)


def cosmap_density(u: torch.Tensor) -> torch.Tensor:
    """Uniform u in [0, 1] to the density whose log SNR is that of the cosine schedule (ibid., equation 21)."""
    return 1 - 1 / (torch.tan(math.pi / 2 * u) + 1)


def draw_noise(settings: NoiseAndLoss, latents: torch.Tensor, seed: int, *position: int | str) -> torch.Tensor:
    """eps [b,c,h,w] ~ N(0, 1) for latents of that shape, with offset and coarser layers as `settings` say."""
    g = generator(seed, "noise", *position)
    noise = torch.randn(latents.shape, generator=g)
    if settings.noise_offset:
        strength = settings.noise_offset
        if settings.noise_offset_random:
            strength *= float(torch.rand(1, generator=generator(seed, "noise offset", *position)))
        noise = noise + channel_offset(latents, strength, settings.adaptive_noise_scale) * torch.randn(
            (*latents.shape[:2], 1, 1), generator=g
        )
    if settings.multires_iterations:
        noise = pyramid(noise, settings.multires_iterations, settings.multires_discount, g)
    return noise


def channel_offset(latents: torch.Tensor, offset: float, adaptive: float) -> torch.Tensor | float:
    """The strength of the offset noise (Guttenberg 2023): a number, or [b,c,1,1] where it follows |mean(x)|."""
    if not adaptive:
        return offset
    return (offset + adaptive * latents.mean((2, 3), keepdim=True).abs()).clamp(min=0)


def pyramid(noise: torch.Tensor, layers: int, discount: float, g: torch.Generator) -> torch.Tensor:
    """Noise with coarser noise on top, scaled to unit deviation (Whitaker 2023, multi-resolution noise)."""
    b, c, h, w = noise.shape
    for i in range(layers):
        r = 2 + 2 * float(torch.rand(1, generator=g))
        size = max(1, int(h / r**i)), max(1, int(w / r**i))
        coarse = torch.randn((b, c, *size), generator=g)
        noise = noise + F.interpolate(coarse, size=(h, w), mode="bilinear") * discount**i
        if 1 in size:
            break
    return noise / noise.std()


def perturbed(settings: NoiseAndLoss, noise: torch.Tensor, seed: int, *position: int | str) -> torch.Tensor:
    """The noise that the input gets, where it differs from the target's (Ning et al. 2023, input perturbation)."""
    if not settings.ip_noise_gamma:
        return noise
    g = generator(seed, "perturbation", *position)
    strength = settings.ip_noise_gamma
    if settings.ip_noise_gamma_random:
        strength *= float(torch.rand(1, generator=g))
    return noise + strength * torch.randn(noise.shape, generator=g)


def diffuse(
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_bar: torch.Tensor,
    prediction: str,
    seen: torch.Tensor | None = None,
) -> Noised:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) eps; target eps, or v = sqrt(a) eps - sqrt(1 - a) x_0. All fp32.

    `seen`: the noise in x_t where it is not eps.
    """
    a = alphas_bar[timesteps]
    signal, sigma = a.sqrt()[:, None, None, None], (1 - a).sqrt()[:, None, None, None]
    target = noise if prediction == "epsilon" else signal * noise - sigma * latents
    return Noised(signal * latents + sigma * (noise if seen is None else seen), timesteps, target, a)
