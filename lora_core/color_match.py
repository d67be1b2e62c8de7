"""A1111's colour correction: the drawn picture takes the hues of another, and keeps its own lightness."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lora_core.lab import lab_to_rgb, rgb_to_lab

LUMA = (0.299, 0.587, 0.114)


def match_colors(drawn: Image.Image, target: Image.Image) -> Image.Image:
    """`drawn` (RGB) with the histogram of `target` (RGB, any size) in each channel of L*a*b*, then its own luminosity.

    The steps are those of A1111 1.10: OpenCV's 8-bit L*a*b*, histogram matching cut to bytes, blend mode "luminosity".
    """
    own, wanted = rgb_to_lab(np.asarray(drawn)), rgb_to_lab(np.asarray(target))
    matched = np.stack([match_histogram(own[..., i], wanted[..., i]) for i in range(3)], axis=-1)
    return Image.fromarray(with_luminosity(lab_to_rgb(matched), np.asarray(drawn)))


def match_histogram(channel: np.ndarray, target: np.ndarray) -> np.ndarray:
    """uint8 values changed so that they are distributed as those of `target` (uint8, any shape)."""
    counts, wanted = (np.bincount(values.reshape(-1), minlength=256) for values in (channel, target))
    levels = np.flatnonzero(wanted)
    quantiles = np.cumsum(counts) / channel.size
    table = np.interp(quantiles, np.cumsum(wanted[levels]) / target.size, levels)
    return table.astype(np.uint8)[channel]


def with_luminosity(colors: np.ndarray, lightness: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3]: the colours of the first, the luminosity of the second (W3C Compositing 1, "luminosity").

    Colours that leave the range are drawn towards their grey.
    """
    rgb, wanted = colors / 255, _luminosity(lightness / 255)
    rgb = rgb + (wanted - _luminosity(rgb))[..., None]
    grey, low, high = _luminosity(rgb)[..., None], rgb.min(axis=-1, keepdims=True), rgb.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        rgb = np.where(low < 0, grey + (rgb - grey) * grey / (grey - low), rgb)
        rgb = np.where(high > 1, grey + (rgb - grey) * (1 - grey) / (high - grey), rgb)
    return (rgb.clip(0, 1) * 255).astype(np.uint8)


def _luminosity(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., 0] * LUMA[0] + rgb[..., 1] * LUMA[1] + rgb[..., 2] * LUMA[2]
