"""Masks for inpainting: reading, blurring, filling. 255 (white) is repainted, 0 is kept."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from lora_core.geometry import Box

FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


def mask_from_picture(mask: Image.Image, rounded: bool = True) -> Image.Image:
    """A mode "L" mask: the alpha of a partly transparent picture (`rounded`: cut at 128), else its brightness."""
    if mask.mode == "P" and "transparency" in mask.info:
        mask = mask.convert("RGBA")
    if mask.mode in ("RGBA", "LA"):
        alpha = mask.getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha.point([255 if value > 128 else 0 for value in range(256)]) if rounded else alpha
    return mask.convert("L")


def mask_from_alpha(picture: Image.Image) -> Image.Image | None:
    """What is transparent in a picture is to be repainted; None when it has no alpha."""
    if "A" not in picture.getbands():
        return None
    return ImageChops.invert(picture.getchannel("A"))


def blur(mask: Image.Image, sigma: float, sigma_y: float | None = None) -> Image.Image:
    """Gaussian blur with OpenCV's 8-bit arithmetic: kernel of 2 * int(2.5 sigma + 0.5) + 1, mirrored borders.

    `sigma` blurs across, `sigma_y` down (None: as `sigma`), one after the other; 0 does not blur.
    """
    down = sigma if sigma_y is None else sigma_y
    pixels = _blur_rows(np.asarray(mask.convert("L")), sigma)
    return Image.fromarray(_blur_rows(pixels.T, down).T.copy())


def _blur_rows(pixels: np.ndarray, sigma: float) -> np.ndarray:
    if sigma <= 0:
        return pixels
    kernel = gaussian_kernel(sigma)
    radius = len(kernel) // 2
    wide = np.pad(pixels.astype(np.int64), ((0, 0), (radius, radius)), mode="reflect")
    total = np.zeros(pixels.shape, np.int64)
    for i, weight in enumerate(kernel):
        total += weight * wide[:, i : i + pixels.shape[1]]
    return ((total + 128) >> 8).astype(np.uint8)


def gaussian_kernel(sigma: float) -> list[int]:
    """Kernel in 256ths that sums to 256; rounding errors are carried on from the ends to the middle, as in OpenCV."""
    radius = int(2.5 * sigma + 0.5)
    exact = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    total = sum(exact)
    half: list[int] = []
    carried = 0.0
    for value in exact[:radius]:
        wanted = value / total * 256 + carried
        half.append(round(wanted))
        carried = wanted - half[-1]
    return [*half, 256 - 2 * sum(half), *reversed(half)]


def bounding_box(mask: Image.Image) -> Box | None:
    """The smallest box around all pixels above 0; None when there are none."""
    found = mask.getbbox()
    return None if found is None else Box(*found)


def doubled(mask: Image.Image) -> Image.Image:
    """Twice the mask, at most 255."""
    return mask.point([min(2 * value, 255) for value in range(256)])


def fill(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Colours from around the masked part, blurred ever less, laid over each other (A1111's "fill")."""
    hole = cut_out(picture, mask)
    filled = Image.new("RGBA", picture.size)
    for radius, repeats in FILL_BLURS:
        blurred = hole.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            filled.alpha_composite(blurred)
    return filled.convert("RGB")


def cut_out(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the masked part transparent, in premultiplied mode "RGBa"."""
    result = Image.new("RGBa", picture.size)
    result.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageChops.invert(mask))
    return result


def latent_mask(mask: Image.Image, size: tuple[int, int], rounded: bool = True) -> np.ndarray:
    """float32 [h, w] in 0..1 at the latents' size (width, height): bicubic; `rounded` to 0 and 1."""
    small = np.asarray(mask.convert("RGB").resize(size), np.float32)[:, :, 0] / 255
    return np.around(small) if rounded else small
