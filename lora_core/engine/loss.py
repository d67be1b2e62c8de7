"""Training losses; per picture, so that weights by timestep can be applied."""

from __future__ import annotations

import torch

from lora_core.engine.noise import Noised
from lora_core.jobs.train import NoiseAndLoss


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each picture: [b,c,h,w] -> [b], in fp32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def min_snr_weight(alpha_bar: torch.Tensor, gamma: float, prediction: str) -> torch.Tensor:
    """Min-SNR weights [b] (Hang et al. 2023, arXiv 2303.09556): min(snr, gamma) / snr, for v / (snr + 1)."""
    snr = alpha_bar / (1 - alpha_bar)
    clipped = snr.clamp(max=gamma)
    return clipped / (snr + 1) if prediction == "v" else clipped / snr.clamp(min=1e-8)


def training_loss(output: torch.Tensor, noised: Noised, settings: NoiseAndLoss, prediction: str) -> torch.Tensor:
    """The scalar that is minimised: weighted error, mean over the batch."""
    loss = squared_error(output, noised.target)
    if settings.min_snr_gamma:
        loss = loss * min_snr_weight(noised.alpha_bar, settings.min_snr_gamma, prediction).to(loss.device)
    return loss.mean()
