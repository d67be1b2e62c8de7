"""The DPM-Solver++ family (Lu et al. 2022b) with k-diffusion's signatures; lambda = -log sigma."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from lora_core.engine.samplers import DETERMINISTIC, Denoise, Renoise, Step, ancestral


def dpmpp_2s_ancestral(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise) -> Iterator[Step]:
    """Second order, single step, to below the next noise level, then noise up to it."""
    total = len(sigmas) - 1
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        down, up = ancestral(sigmas[i], sigmas[i + 1], renoise.eta)
        if down == 0:
            x = denoised
        else:
            t, after = -sigmas[i].log(), -down.log()
            h = after - t
            middle = (-(t + h / 2)).exp()
            trial = (middle / (-t).exp()) * x - (-h / 2).expm1() * denoised
            x = ((-after).exp() / (-t).exp()) * x - (-h).expm1() * denoise(trial, float(middle))
        if sigmas[i + 1] > 0:
            x = x + renoise.draw(sigmas[i], sigmas[i + 1]) * up
        yield Step(i + 1, total, x, denoised)


def dpmpp_2m(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise = DETERMINISTIC
) -> Iterator[Step]:
    """Second order, multistep."""
    total, earlier = len(sigmas) - 1, None
    lambdas = -sigmas.log()
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        h, towards = lambdas[i + 1] - lambdas[i], denoised
        if earlier is not None and sigmas[i + 1] > 0:
            r = (lambdas[i] - lambdas[i - 1]) / h
            towards = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * earlier
        x = sigmas[i + 1] / sigmas[i] * x - (-h).expm1() * towards
        earlier = denoised
        yield Step(i + 1, total, x, denoised)


def dpmpp_sde(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    renoise: Renoise,
    place: Callable[[torch.Tensor], torch.Tensor] = lambda sigma: sigma,
) -> Iterator[Step]:
    """Stochastic, second order with the middle of each step (r = 1/2).

    `place` says under which sigma an end of a step reads its noise: A1111 sends it through a logarithm and back.
    """
    total = len(sigmas) - 1
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        if sigmas[i + 1] == 0:
            x = denoised
        else:
            start, end = place(sigmas[i]), place(sigmas[i + 1])
            t, after = -sigmas[i].log(), -sigmas[i + 1].log()
            middle = (-(t + (after - t) * 0.5)).exp()
            trial = _to_below(x, denoised, start, middle, renoise)
            x = _to_below(x, denoise(trial, float(middle)), start, end, renoise)
        yield Step(i + 1, total, x, denoised)


def _to_below(
    x: torch.Tensor, towards: torch.Tensor, sigma: torch.Tensor, after: torch.Tensor, renoise: Renoise
) -> torch.Tensor:
    down, up = ancestral(sigma, after, renoise.eta)
    h = sigma.log() - down.log()
    x = (-h).exp() * x - (-h).expm1() * towards
    return x + renoise.draw(sigma, after) * up if renoise.eta > 0 else x


def through_the_logarithm(sigma: torch.Tensor) -> torch.Tensor:
    """exp(log sigma) in float32, which is not always sigma."""
    return sigma.log().exp()


def dpmpp_2m_sde(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, renoise: Renoise) -> Iterator[Step]:
    """Stochastic, second order, multistep, midpoint."""
    total, earlier, h_before = len(sigmas) - 1, None, torch.zeros(())
    for i in range(total):
        denoised = denoise(x, float(sigmas[i]))
        if sigmas[i + 1] == 0:
            x = denoised
        else:
            h = sigmas[i].log() - sigmas[i + 1].log()
            noisy = renoise.eta * h
            gain = -(-h - noisy).expm1()
            x = sigmas[i + 1] / sigmas[i] * (-noisy).exp() * x + gain * denoised
            if earlier is not None:
                x = x + 0.5 * gain * (h / h_before) * (denoised - earlier)
            if renoise.eta > 0:
                spread = sigmas[i + 1] * (-(-2 * noisy).expm1()).sqrt()
                x = x + renoise.draw(sigmas[i], sigmas[i + 1]) * spread
            h_before = h
        earlier = denoised
        yield Step(i + 1, total, x, denoised)
