"""A1111's soft inpainting: grey mask values blend during sampling, and what changed decides what is shown in the end.

`SoftOptions` are its sliders. While sampling, `blend` mixes the picture's latents in at every step; afterwards
`change_mask` tells from the latents how much of the drawn picture is to be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter

from lora_core.resizing import resized


@dataclass(frozen=True)
class SoftOptions:
    """`bias`: schedule bias; `preservation`: preservation strength; `contrast`: transition contrast boost.

    `mask_influence`, `threshold` and `difference_contrast` make the final mask from the change of the latents.
    """

    bias: float = 1.0
    preservation: float = 0.5
    contrast: float = 4.0
    mask_influence: float = 0.0
    threshold: float = 0.5
    difference_contrast: float = 2.0


def blend(original: torch.Tensor, current: torch.Tensor, weight: torch.Tensor, contrast: float) -> torch.Tensor:
    """Latents [n,c,h,w] between `original` (weight 0) and `current` (weight 1), `weight` [n or 1,1,h,w].

    Directions are mixed linearly, lengths by a power mean with the exponent `contrast`, so that contrast survives.
    """
    mixed = original * (1 - weight) + current * weight
    length = torch.linalg.vector_norm(mixed, dim=1, keepdim=True).double() + 0.00001
    powers = [torch.linalg.vector_norm(x, dim=1, keepdim=True).double() ** contrast for x in (original, current)]
    wanted = (powers[0] * (1 - weight) + powers[1] * weight) ** (1 / contrast)
    return mixed * (wanted / length).to(mixed.dtype)


def step_weight(mask: torch.Tensor, sigma: float, options: SoftOptions) -> torch.Tensor:
    """The weight of the current latents at a noise level: mask ** (sigma ** bias * preservation).

    `sigma` is what the host's sampler calls so: the noise level, for DDIM and UniPC the timestep.
    """
    exponent = torch.tensor(sigma, dtype=torch.float32, device=mask.device) ** options.bias * options.preservation
    return mask**exponent


def change_mask(change: torch.Tensor, mask: torch.Tensor, options: SoftOptions) -> Image.Image:
    """How much of the drawn picture shows: mode "L" at latent size.

    `change` [h,w] is the length of the latents' change, `mask` [h,w] the latent mask (0..1).
    """
    kernel = gaussian_kernel(1.5, 2)
    smooth = weighted_filter(change.float().cpu().numpy(), kernel, (0.9, 1.0))
    smooth = weighted_filter(smooth, kernel, (0.25, 0.75))
    inside = 1 - mask.float().cpu().clamp(0, 1).numpy() ** (options.preservation / 2)
    inside = 0.5 * (1 - options.mask_influence) + inside * options.mask_influence
    half = options.threshold * (inside / (1.00001 - inside))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        kept = 1 / (1 + (smooth / half) ** options.difference_contrast)
    shown = 255.0 * (1 - smootherstep(np.nan_to_num(kept, nan=1.0)))
    return Image.fromarray(shown.astype(np.uint8))


def at_picture_size(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A change mask in the drawn picture's size (width, height), smoothed against steps."""
    return resized(mask, size).filter(ImageFilter.GaussianBlur(radius=4))


def smootherstep(x: np.ndarray) -> np.ndarray:
    """Perlin's 6x^5 - 15x^4 + 10x^3."""
    return x * x * x * (x * (6 * x - 15) + 10)


def gaussian_kernel(deviation: float, radius: int) -> np.ndarray:
    """float64 [2 radius + 1] squared, 1 in the middle, lowered so that it is 0 one pixel outside."""
    offsets = np.arange(-radius, radius + 1) ** 2
    zero = math.exp(-((radius + 1.0) ** 2) / deviation**2)
    kernel = (np.exp(-(offsets[:, None] + offsets[None]) / deviation**2) - zero) / (1 - zero)
    return np.maximum(kernel, 0.0)


def weighted_filter(values: np.ndarray, kernel: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Of each pixel's neighbours, sorted by value, the mean of those between two quantiles of the kernel's weight.

    float32 [h, w] -> float32 [h, w]. A window narrower than a weight of 1 is widened to it. (0.25, 0.75) is a soft
    median, (0.9, 1) a soft maximum.
    """
    around, weights = _neighbours(values, kernel)
    order = np.argsort(around, axis=-1, kind="stable")
    around, weights = (np.take_along_axis(a, order, axis=-1) for a in (around, weights))
    ends = np.cumsum(weights, axis=-1)
    starts = np.concatenate([np.zeros_like(ends[..., :1]), ends[..., :-1]], axis=-1)
    low, high = _window(ends[..., -1:], window)
    shares = np.maximum(np.minimum(high, ends) - np.maximum(low, starts), 0)
    total = np.where(shares > 0, around, 0) * shares
    return (total.cumsum(-1)[..., -1] / shares.cumsum(-1)[..., -1]).astype(values.dtype)


def _neighbours(values: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[h, w, k]: values around each pixel, and their weights; infinite and weightless outside the picture."""
    radius, (h, w) = len(kernel) // 2, values.shape
    wide = np.pad(values.astype(np.float64), radius, constant_values=np.inf)
    parts = [wide[i : i + h, j : j + w] for i in range(len(kernel)) for j in range(len(kernel))]
    around = np.stack(parts, axis=-1)
    return around, np.where(np.isinf(around), 0.0, kernel.reshape(-1))


def _window(total: np.ndarray, window: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    low, high = total * window[0], total * window[1]
    middle = (low + high) / 2
    narrow = high - low < 1
    low, high = np.where(narrow, middle - 0.5, low), np.where(narrow, middle + 0.5, high)
    over = narrow & (high > total)
    low, high = np.where(over, total - 1, low), np.where(over, total, high)
    under = narrow & (low < 0)
    return np.where(under, 0.0, low), np.where(under, 1.0, high)
