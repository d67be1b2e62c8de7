"""Inpainting around the sampling: what to draw from a picture and a mask, and how to put the result back.

Follows A1111's order of operations. `plan` and `paste` are all that a host needs to inpaint with its own sampler.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lora_core.errors import ConfigError
from lora_core.geometry import Box, expanded, fitted_inside, padded
from lora_core.masks import blur, bounding_box, cut_out, doubled, fill

LANCZOS = Image.Resampling.LANCZOS


@dataclass(frozen=True)
class InpaintOptions:
    """`width` and `height`: the size to draw at. `content`: "fill", "original", "latent noise", "latent nothing".

    `area`: "whole picture", or "only masked" (the mask's surroundings, `padding` pixels wide, drawn enlarged).
    """

    width: int
    height: int
    blur: float = 4
    content: str = "original"
    area: str = "whole picture"
    padding: int = 32


@dataclass(frozen=True)
class InpaintPlan:
    """`working` (RGB) is to be drawn over where `mask` (L, same size) is white; mask None: all of it.

    `overlay_mask` (L, the source's size) is how much of the result shows; `box` is where `working` was cut from.
    """

    source: Image.Image
    working: Image.Image
    mask: Image.Image | None
    overlay_mask: Image.Image | None
    box: Box | None = None


def plan(source: Image.Image, mask: Image.Image, options: InpaintOptions) -> InpaintPlan:
    """Prepare inpainting of `source` (RGB or RGBA) where `mask` (L) is above 0; the mask is blurred here.

    "only masked" with an empty mask gives a plan without mask: the whole picture is drawn anew, as A1111 does.
    Raises ConfigError when sizes differ.
    """
    if mask.size != source.size:
        raise ConfigError(
            f"The mask has {_times(mask.size)} pixels, the picture {_times(source.size)}: make them equal."
        )
    size = (options.width, options.height)
    soft = blur(mask, options.blur)
    picture = on_white(source)
    if options.area == "whole picture":
        working, small = resized(picture, size), resized(soft, size)
        return InpaintPlan(source, _content(working, small, options), small, doubled(soft))
    found = bounding_box(soft)
    if found is None:
        return InpaintPlan(source, resized(picture, size), None, None)
    box = expanded(padded(found, options.padding, *source.size), size, *source.size)
    working, small = (resized_and_filled(p.crop(box.corners), size) for p in (picture, soft))
    return InpaintPlan(source, _content(working, small, options), small, soft, box)


def paste(plan: InpaintPlan, drawn: Image.Image) -> Image.Image:
    """The source with the drawn picture in place of its masked part, in the source's size and mode.

    Pixels whose overlay mask is 0 keep their very bits, alpha included.
    """
    if plan.overlay_mask is None:
        return resized(drawn, plan.source.size)
    canvas = Image.new("RGBA", plan.source.size)
    box = plan.box or Box(0, 0, *plan.source.size)
    canvas.paste(resized_and_cropped(drawn, (box.width, box.height)), (box.left, box.top))
    canvas.alpha_composite(cut_out(on_white(plan.source), plan.overlay_mask).convert("RGBA"))
    return _with_source_bits(plan.source, canvas.convert("RGB"), plan.overlay_mask)


def _with_source_bits(source: Image.Image, result: Image.Image, mask: Image.Image) -> Image.Image:
    shown, old = np.asarray(mask), np.array(source)
    new = np.asarray(result)
    if source.mode == "RGBA":
        opacity = old[:, :, 3].astype(np.uint32)
        alpha = (opacity * (255 - shown.astype(np.uint32)) + 255 * shown.astype(np.uint32) + 127) // 255
        new = np.dstack([new, alpha.astype(np.uint8)])
    old[shown > 0] = new[shown > 0]
    return Image.fromarray(old)


def _content(working: Image.Image, mask: Image.Image, options: InpaintOptions) -> Image.Image:
    return working if options.content == "original" else fill(working, mask)


def on_white(picture: Image.Image) -> Image.Image:
    """RGB, transparency over white."""
    if "A" not in picture.getbands():
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    white.alpha_composite(picture.convert("RGBA"))
    return white.convert("RGB")


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Lanczos, unless the size is right already."""
    return picture if picture.size == size else picture.resize(size, LANCZOS)


def resized_and_cropped(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture scaled to cover `size`, its middle."""
    width, height = size
    wide = width * picture.height > height * picture.width
    inner = (
        (width, picture.height * width // picture.width) if wide else (picture.width * height // picture.height, height)
    )
    result = Image.new(picture.mode, size)
    result.paste(resized(picture, inner), (width // 2 - inner[0] // 2, height // 2 - inner[1] // 2))
    return result


def resized_and_filled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture scaled into `size`; what is left beside it is filled with its border lines."""
    width, height = size
    inner = fitted_inside(picture.size, size)
    small = resized(picture, inner)
    result = Image.new(picture.mode, size)
    left, top = width // 2 - inner[0] // 2, height // 2 - inner[1] // 2
    result.paste(small, (left, top))
    if top > 0:
        result.paste(small.resize((width, top), box=(0, 0, width, 0)), (0, 0))
        result.paste(small.resize((width, top), box=(0, inner[1], width, inner[1])), (0, top + inner[1]))
    if left > 0:
        result.paste(small.resize((left, height), box=(0, 0, 0, height)), (0, 0))
        result.paste(small.resize((left, height), box=(inner[0], 0, inner[0], height)), (left + inner[0], 0))
    return result


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
