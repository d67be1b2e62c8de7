"""A1111's resize modes: how a picture of any size becomes one of the size to draw at, and the way back.

`MIDDLE` is no mode to choose: it is what ComfyUI's VAE takes of a picture whose sides are no multiples of 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from lora_core.geometry import Box, fitted_inside

LANCZOS = Image.Resampling.LANCZOS
JUST, CROP, FILL, LATENT = "just resize", "crop and resize", "resize and fill", "just resize (latent upscale)"
MIDDLE = "middle"
CELL = 8  # pixels


@dataclass(frozen=True)
class Placement:
    """Where a picture of size `source` lies on the drawn one: scaled to `inner`, its corner at (left, top)."""

    source: tuple[int, int]
    target: tuple[int, int]
    inner: tuple[int, int]
    left: int = 0
    top: int = 0

    @property
    def visible(self) -> Box:
        """The part of the source that the drawn picture shows, in whole pixels of it; can be empty."""
        across = _span(self.source[0], self.inner[0], self.left, self.target[0])
        down = _span(self.source[1], self.inner[1], self.top, self.target[1])
        return Box(across[0], down[0], across[1], down[1])


def _span(source: int, inner: int, offset: int, target: int) -> tuple[int, int]:
    scale = inner / source
    low, high = math.ceil(-offset / scale - 1e-9), math.floor((target - offset) / scale + 1e-9)
    return max(0, low), max(0, low, min(source, high))


def comfyui_mode(mode: str, source: tuple[int, int], target: tuple[int, int]) -> str:
    """The mode by which ComfyUI's nodes bring a picture to the size drawn at, (width, height): they cut up to 7 pixels.

    Any other size is nothing that those nodes give, so it is resized.
    """
    cut = tuple(side // CELL * CELL for side in source)
    return MIDDLE if mode == JUST and cut == target != source else mode


def placement(mode: str, source: tuple[int, int], target: tuple[int, int]) -> Placement:
    """Sizes are (width, height). "latent upscale" places like "just resize"."""
    if mode not in (CROP, FILL, MIDDLE):
        return Placement(source, target, target)
    inner = source if mode == MIDDLE else _covering(source, target) if mode == CROP else fitted_inside(source, target)
    return Placement(source, target, inner, target[0] // 2 - inner[0] // 2, target[1] // 2 - inner[1] // 2)


def _covering(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    (w, h), (tw, th) = source, target
    return (tw, h * tw // w) if tw * h > w * th else (w * th // h, th)


def resize_picture(mode: str, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture (L or RGB) in `size` (width, height)."""
    if mode == CROP:
        return resized_and_cropped(picture, size)
    if mode == MIDDLE:
        return picture.crop(placement(mode, picture.size, size).visible.corners)
    return resized_and_filled(picture, size) if mode == FILL else resized(picture, size)


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Lanczos, unless the size is right already."""
    return picture if picture.size == size else picture.resize(size, LANCZOS)


def resized_and_cropped(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture scaled to cover `size`, its middle."""
    at = placement(CROP, picture.size, size)
    result = Image.new(picture.mode, size)
    result.paste(resized(picture, at.inner), (at.left, at.top))
    return result


def resized_and_filled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture scaled into `size`; what is left beside it is filled with its border lines."""
    at = placement(FILL, picture.size, size)
    (width, height), inner, left, top = size, at.inner, at.left, at.top
    small = resized(picture, inner)
    result = Image.new(picture.mode, size)
    result.paste(small, (left, top))
    if top > 0:
        result.paste(small.resize((width, top), box=(0, 0, width, 0)), (0, 0))
        result.paste(small.resize((width, top), box=(0, inner[1], width, inner[1])), (0, top + inner[1]))
    if left > 0:
        result.paste(small.resize((left, height), box=(0, 0, 0, height)), (0, 0))
        result.paste(small.resize((left, height), box=(inner[0], 0, inner[0], height)), (left + inner[0], 0))
    return result


def taken_back(drawn: Image.Image, at: Placement) -> Image.Image:
    """The part of a drawn picture that shows the source, scaled to the source's pixels: of `at.visible`'s size."""
    seen = at.visible
    if (seen.width, seen.height) == drawn.size and at.inner == at.source:
        return drawn
    x, y = at.inner[0] / at.source[0], at.inner[1] / at.source[1]
    box = (seen.left * x + at.left, seen.top * y + at.top, seen.right * x + at.left, seen.bottom * y + at.top)
    inside = (max(box[0], 0), max(box[1], 0), min(box[2], drawn.width), min(box[3], drawn.height))
    return drawn.resize((seen.width, seen.height), LANCZOS, box=inside)
