"""Training losses; per picture, so that weights by timestep can be applied."""

from __future__ import annotations

import math

import torch

from lora_core.engine.noise import Noised
from lora_core.jobs.noise import NoiseAndLoss

TIMESTEPS = 1000
SNR_LIMIT = 1000.0  # the ratio is infinite at the first steps of some schedules


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each picture: [b,c,h,w] -> [b], in fp32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def errors(output: torch.Tensor, noised: Noised, settings: NoiseAndLoss) -> torch.Tensor:
    """The error of every latent value [b,c,h,w], fp32. Huber as Khrapov et al. 2024 schedule it."""
    difference = output.float() - noised.target.float()
    if settings.loss == "l2":
        return difference.square()
    if settings.loss == "l1":
        return difference.abs()
    c = huber_threshold(noised, settings).to(difference)[:, None, None, None]
    root = torch.sqrt(difference.square() + c * c) - c
    return 2 * c * root if settings.loss == "huber" else 2 * root


def huber_threshold(noised: Noised, settings: NoiseAndLoss) -> torch.Tensor:
    """c [b], where the loss turns from square to linear."""
    c, scale = settings.huber_c, settings.huber_scale
    if settings.huber_schedule == "constant":
        return torch.full_like(noised.alpha_bar, c * scale)
    if settings.huber_schedule == "exponential":
        return torch.exp(math.log(c) / TIMESTEPS * noised.timesteps.float()) * scale
    sigma = ((1 - noised.alpha_bar) / noised.alpha_bar).sqrt()
    return (1 - c) / (1 + sigma) ** 2 + c


def min_snr_weight(alpha_bar: torch.Tensor, gamma: float, prediction: str) -> torch.Tensor:
    """Min-SNR weights [b] (Hang et al. 2023, arXiv 2303.09556): min(snr, gamma) / snr, for v / (snr + 1)."""
    snr = alpha_bar / (1 - alpha_bar)
    clipped = snr.clamp(max=gamma)
    return clipped / (snr + 1) if prediction == "v" else clipped / snr.clamp(min=1e-8)


def debiased_weight(alpha_bar: torch.Tensor, prediction: str) -> torch.Tensor:
    """Debiased estimation [b] (Yu et al. 2023, arXiv 2310.08442): 1 / sqrt(snr), for v 1 / (snr + 1)."""
    snr = limited_snr(alpha_bar)
    return 1 / (snr + 1) if prediction == "v" else snr.clamp(min=1e-8).rsqrt()


def limited_snr(alpha_bar: torch.Tensor) -> torch.Tensor:
    return (alpha_bar / (1 - alpha_bar)).clamp(max=SNR_LIMIT)


def timestep_weight(alpha_bar: torch.Tensor, settings: NoiseAndLoss, prediction: str) -> torch.Tensor:
    """The product of all weights [b] that depend on the timestep."""
    weight = torch.ones_like(alpha_bar)
    if settings.min_snr_gamma and not settings.debiased_estimation:
        weight = weight * min_snr_weight(alpha_bar, settings.min_snr_gamma, prediction)
    snr = limited_snr(alpha_bar)
    if settings.scale_v_like_epsilon and prediction == "v":
        weight = weight * snr / (snr + 1)
    if settings.v_like_loss and prediction == "epsilon":
        weight = weight * (1 + settings.v_like_loss * (snr + 1) / snr.clamp(min=1e-8))
    if settings.debiased_estimation:
        weight = weight * debiased_weight(alpha_bar, prediction)
    return weight


def training_loss(
    output: torch.Tensor,
    noised: Noised,
    settings: NoiseAndLoss,
    prediction: str,
    masks: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The scalar that is minimised: weighted error, mean over the batch.

    `masks` [b,1,h,w] in 0..1 weigh the latents' places, without making up for what they hide; `weights` [b] the
    pictures.
    """
    error = errors(output, noised, settings)
    if masks is not None:
        error = error * masks.to(error)
    loss = error.flatten(1).mean(1)
    weight = timestep_weight(noised.alpha_bar, settings, prediction)
    if weights is not None:
        weight = weight * weights.to(weight)
    return (loss * weight.to(loss.device)).mean()
