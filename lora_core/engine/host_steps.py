"""How each host sets a sampler going: its schedule, its first x, its mask, its noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from lora_core.engine import sampler_rules
from lora_core.engine.denoiser import Predict, clean_denoiser, epsilon_predictor, lcm_denoiser
from lora_core.engine.random_noise import Noise
from lora_core.engine.request import SampleRequest, Start
from lora_core.engine.samplers import Denoise, Renoise, Step
from lora_core.engine.samplers_vp import Epsilon, ddim_a1111, ddim_timesteps, unipc_a1111, unipc_times
from lora_core.engine.schedule import (
    Discretization,
    all_sigmas,
    discretization,
    lcm_discretization,
    partial_steps,
    sampling_sigmas,
    starting_noise,
)
from lora_core.errors import ConfigError


def host_steps(predict: Predict, request: SampleRequest, noise: Noise, start: Start) -> Iterator[Step]:
    """The steps that a request's host would make with a UNet that answers `predict(x, t, sigma)`."""
    v = request.prediction == "v"
    d = discretization(bool(request.zero_terminal_snr), request.arithmetic)
    first = noise.first() * start.noise_multiplier
    if request.arithmetic != "a1111":
        return _comfyui(clean_denoiser(predict, d, v), d, request, (first, noise), start)
    if request.sampler in sampler_rules.A1111_VP:
        return _a1111_vp(epsilon_predictor(predict, d, v), d, request, first, start)
    if request.sampler == "lcm":
        d = lcm_discretization(d)
        return _a1111(lcm_denoiser(predict, d), d, request, (first, noise), start)
    return _a1111(clean_denoiser(predict, d, v), d, request, (first, noise), start)


def _a1111_vp(
    epsilon: Epsilon, d: Discretization, request: SampleRequest, noise: torch.Tensor, start: Start
) -> Iterator[Step]:
    """A1111's DDIM and UniPC. Below denoise 1 noise is added to one timestep past the first that is denoised."""
    if start.mask is not None or start.blend is not None:
        epsilon = _mixed(epsilon, start, before=True)
    count = request.hires_steps or request.steps
    exactly = request.exactly or request.hires_steps is not None
    if start.fresh:
        timesteps, x, begin = ddim_timesteps(count), noise, 1.0
    else:
        length, back = partial_steps(count, request.denoise, exactly)
        if not length:
            return iter(())
        timesteps = ddim_timesteps(length)
        bar = d.alphas_bar[timesteps[back]]
        x = start.latents * math.sqrt(bar) + noise * math.sqrt(1 - bar)
        timesteps = timesteps[:back]
        if not len(timesteps):
            return iter((Step(0, 0, x, x),))
        begin = float(timesteps[-1] / 1000 + 1 / 1000)
    if request.sampler == "ddim":
        return _or_start(ddim_a1111(epsilon, x, timesteps, d.alphas_bar), x)
    return unipc_a1111(epsilon, x, unipc_times(len(timesteps), begin), d.alphas_bar)


def _or_start(steps: Iterator[Step], x: torch.Tensor) -> Iterator[Step]:
    """The steps; the noised start itself when there are none."""
    step = None
    for step in steps:
        yield step
    if step is None:
        yield Step(0, 0, x, x)


def _a1111(
    denoise: Denoise, d: Discretization, request: SampleRequest, noises: tuple[torch.Tensor, Noise], start: Start
) -> Iterator[Step]:
    """A1111's k-diffusion samplers."""
    rule, (first, noise) = sampler_rules.A1111[request.sampler], noises
    scheduler = rule.automatic if request.scheduler == "automatic" else request.scheduler
    count = request.hires_steps or request.steps
    exactly = request.exactly or request.hires_steps is not None
    length, back = (count, count - 1) if start.fresh else partial_steps(count, request.denoise, exactly)
    if not length:
        return iter(())
    everything = all_sigmas(d, scheduler, length, rule.discard)
    sigmas = everything if start.fresh else everything[length - back - 1 :]
    if not len(sigmas):
        raise ConfigError(
            f"The schedule {scheduler} has no {length} steps to begin so late in: take another schedule, "
            f"more denoising, or fewer steps."
        )
    x = start.latents + first * sigmas[0]
    draw = noise.brownian(everything) if rule.brownian else noise.next
    if start.mask is not None or start.blend is not None:
        denoise = _mixed(denoise, start, before=False)
    return rule.function(denoise, x, sigmas, Renoise(draw, request.eta))


def _comfyui(
    denoise: Denoise, d: Discretization, request: SampleRequest, noises: tuple[torch.Tensor, Noise], start: Start
) -> Iterator[Step]:
    """ComfyUI's KSampler. Outside a mask the model sees the original at the step's noise level."""
    rule, (first, noise) = sampler_rules.COMFYUI[request.sampler], noises
    scheduler = rule.automatic if request.scheduler == "automatic" else request.scheduler
    strength = 1.0 if start.fresh else request.denoise
    sigmas = sampling_sigmas(d, scheduler, request.hires_steps or request.steps, strength, rule.discard)
    if len(sigmas) < 2:
        return iter(())
    if start.mask is not None:
        outside = noise.second() if request.sampler == "ddim" else first
        denoise = _seen(_mixed(denoise, start, before=False), start, outside)
    x = starting_noise(d, float(sigmas[0]), first, start.latents)
    draw = noise.brownian(sigmas) if rule.brownian else noise.next
    return rule.function(denoise, x, sigmas, Renoise(draw, request.eta))


def _mixed(function: Denoise, start: Start, before: bool) -> Denoise:
    """The start's latents outside the mask, in what the function gets or in what it gives."""
    calls = -1

    def blend(current: torch.Tensor, level: float) -> torch.Tensor:
        if start.blend is not None:
            return start.blend(current, level, calls)
        assert start.mask is not None
        return current * start.mask + start.latents * (1 - start.mask)

    def mixed(x: torch.Tensor, level: float) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return function(blend(x, level), level) if before else blend(function(x, level), level)

    return mixed


def _seen(denoise: Denoise, start: Start, noise: torch.Tensor) -> Denoise:
    mask = start.mask
    assert mask is not None

    def seen(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return denoise(x * mask + (start.latents + sigma * noise) * (1 - mask), sigma)

    return seen
