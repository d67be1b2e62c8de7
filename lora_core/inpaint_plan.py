"""Inpainting around the sampling: what to draw from a picture and a mask, and how to put the result back.

Follows A1111's order of operations. `plan` and `paste` are all that a host needs to inpaint with its own sampler:

    made = plan(source, mask, InpaintOptions(512, 512, area="only masked"))
    # encode made.working, sample where masks.latent_mask(made.mask, (64, 64)) is 1, decode to `drawn` (512 x 512)
    result = paste(made, drawn)

`picture_of`, `mask_of` and `paste_array` do the same for float arrays. Options are plain values and travel through
`settings.to_json` and `settings.from_json`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from lora_core.errors import ConfigError
from lora_core.geometry import Box, expanded, padded
from lora_core.masks import blur, bounding_box, cut_out, doubled, fill
from lora_core.resizing import (
    JUST,
    LATENT,
    MIDDLE,
    Placement,
    placement,
    resize_picture,
    resized,
    resized_and_cropped,
    resized_and_filled,
    taken_back,
)

ALIKE = 16  # levels of a channel by which a drawn picture may differ and still be like its source
RIM = 16  # the mask's rim is up to so much of 255


@dataclass(frozen=True)
class InpaintOptions:
    """`width` and `height`: the size to draw at. `blur`: sigma of the mask's blur in pixels; `blur_y`: that downwards.

    `content`: what lies below the mask at first: "fill" (colours from around), "original", or "latent noise", "latent
    nothing" (set in the latents; the working picture is filled), "grey" (set when encoding).
    `area`: "whole picture", or "only masked" (the mask's surroundings, `padding` pixels wide, drawn enlarged).
    `resize_mode`: how the whole picture comes to width x height. `keep_size`: the result has the source's size and
    alpha; else it is width x height and RGB, as A1111 gives it for the whole picture. `on_white`: what is transparent
    shows white, as in A1111; else the colours that lie hidden there, as in ComfyUI.
    """

    width: int
    height: int
    blur: float = 4
    blur_y: float | None = None
    invert: bool = False
    content: str = "original"
    area: str = "whole picture"
    padding: int = 32
    resize_mode: str = JUST
    keep_size: bool = True
    on_white: bool = True


@dataclass(frozen=True)
class InpaintPlan:
    """`working` (RGB) is to be drawn over where `mask` (L, width x height) is above 0; mask None: all of it.

    `working` is width x height, but of the source's size with "latent upscale". `overlay_mask` (L, the source's size)
    is how much of the result shows. `box` is what "only masked" cut out; else `at` says where the source lies.
    `opaque` is the source without transparency. `uncut_mask` (L, the source's size): the mask before "middle" cut it.
    """

    source: Image.Image
    opaque: Image.Image
    working: Image.Image
    mask: Image.Image | None
    overlay_mask: Image.Image | None
    at: Placement
    box: Box | None = None
    uncut_mask: Image.Image | None = None


def plan(source: Image.Image, mask: Image.Image, options: InpaintOptions) -> InpaintPlan:
    """Prepare inpainting of `source` (RGB or RGBA) where `mask` (L) is above 0; mask is inverted and blurred here.

    "only masked" with an empty mask gives a plan without mask: the whole picture is drawn anew, as A1111 does.
    Raises ConfigError when sizes differ.
    """
    if mask.size != source.size:
        raise ConfigError(
            f"The mask has {_times(mask.size)} pixels, the picture {_times(source.size)}: make them equal."
        )
    wanted = ImageChops.invert(mask.convert("L")) if options.invert else mask.convert("L")
    soft = blur(wanted, options.blur, options.blur_y)
    if options.area == "whole picture":
        return _whole(source, soft, options)
    found = bounding_box(soft)
    if found is None:
        return plan_without_mask(source, options)
    return _only_masked(source, soft, found, options)


def plan_without_mask(source: Image.Image, options: InpaintOptions) -> InpaintPlan:
    """img2img: everything is drawn anew; of the options the size, `resize_mode` and `keep_size` count."""
    size = (options.width, options.height)
    opaque = _opaque(source, options)
    working = _resized_source(opaque, options)
    if options.keep_size:
        return InpaintPlan(source, opaque, working, None, None, placement(options.resize_mode, source.size, size))
    kept = resized(working, size)
    return InpaintPlan(kept, kept, working, None, None, placement(JUST, size, size))


def _whole(source: Image.Image, soft: Image.Image, options: InpaintOptions) -> InpaintPlan:
    size = (options.width, options.height)
    small = resize_picture(options.resize_mode, soft, size)
    picture = _opaque(source, options)
    working = _resized_source(picture, options)
    covered = soft if options.resize_mode == LATENT else small
    working = _content(working, covered, options)
    uncut = soft if options.resize_mode == MIDDLE else None
    if options.keep_size:
        at = placement(options.resize_mode, source.size, size)
        shown = _within(doubled(soft), at.visible)
        return InpaintPlan(source, picture, working, small, shown, at, uncut_mask=uncut)
    kept = resize_picture(options.resize_mode, picture, size)
    return InpaintPlan(kept, kept, working, small, doubled(small), placement(JUST, size, size), uncut_mask=uncut)


def _only_masked(source: Image.Image, soft: Image.Image, found: Box, options: InpaintOptions) -> InpaintPlan:
    size = (options.width, options.height)
    box = expanded(padded(found, options.padding, *source.size), size, *source.size)
    opaque = _opaque(source, options)
    working, small = (resized_and_filled(p.crop(box.corners), size) for p in (opaque, soft))
    at = placement(JUST, source.size, size)
    return InpaintPlan(source, opaque, _content(working, small, options), small, soft, at, box)


def _opaque(source: Image.Image, options: InpaintOptions) -> Image.Image:
    return on_white(source) if options.on_white else source.convert("RGB")


def _resized_source(picture: Image.Image, options: InpaintOptions) -> Image.Image:
    if options.resize_mode == LATENT:
        return picture
    return resize_picture(options.resize_mode, picture, (options.width, options.height))


def _content(working: Image.Image, mask: Image.Image, options: InpaintOptions) -> Image.Image:
    return working if options.content in ("original", "grey") else fill(working, mask)


def _within(mask: Image.Image, box: Box) -> Image.Image:
    result = Image.new("L", mask.size)
    if not box.empty:
        result.paste(mask.crop(box.corners), box.corners)
    return result


def paste(plan: InpaintPlan, drawn: Image.Image, shown: Image.Image | None = None) -> Image.Image:
    """The source with the drawn picture (RGB) in place of its masked part, in the source's size and mode.

    Pixels whose overlay mask is 0 keep their very bits, alpha included. `shown` (L, the drawn picture's size) takes
    the place of the plan's overlay mask: soft inpainting finds it out afterwards.
    """
    if plan.mask is None or plan.overlay_mask is None:
        return _drawn_anew(plan, drawn)
    mask = plan.overlay_mask if shown is None else _put_back(plan, shown, Image.new("L", plan.source.size))
    canvas = _put_back(plan, drawn, Image.new("RGBA", plan.source.size))
    laid = canvas.copy()
    laid.alpha_composite(cut_out(plan.opaque, mask).convert("RGBA"))
    blended = _without_a_line(plan.opaque, canvas.convert("RGB"), laid.convert("RGB"), mask)
    return _with_source_bits(plan.source, blended, mask)


def _without_a_line(below: Image.Image, above: Image.Image, laid: Image.Image, mask: Image.Image) -> Image.Image:
    """`laid` is A1111's blend, whose rounding is off by a level here and there. On the mask's rim, where both pictures
    nearly agree, that would show as a line, so there the blend is computed exactly."""
    old, new, rounded = (np.asarray(picture).astype(np.int32) for picture in (below, above, laid))
    shown = np.asarray(mask).astype(np.int32)[..., None]
    exact = (old * (255 - shown) + new * shown + 127) // 255
    near = (new == old) | ((shown <= RIM) & (np.abs(new - old) <= ALIKE))
    return Image.fromarray(np.where(near, exact, rounded).astype(np.uint8))


def _drawn_anew(plan: InpaintPlan, drawn: Image.Image) -> Image.Image:
    seen = plan.at.visible
    if (seen.width, seen.height) == plan.source.size:
        return taken_back(drawn, plan.at)
    return _put_back(plan, drawn, plan.opaque.copy())


def _put_back(plan: InpaintPlan, drawn: Image.Image, canvas: Image.Image) -> Image.Image:
    if plan.box is not None:
        canvas.paste(resized_and_cropped(drawn, (plan.box.width, plan.box.height)), plan.box.corners)
    elif not plan.at.visible.empty:
        canvas.paste(taken_back(drawn, plan.at), plan.at.visible.corners)
    return canvas


def _with_source_bits(source: Image.Image, result: Image.Image, mask: Image.Image) -> Image.Image:
    shown, old = np.asarray(mask), np.array(source)
    new = np.asarray(result)
    if source.mode == "RGBA":
        opacity = old[:, :, 3].astype(np.uint32)
        alpha = (opacity * (255 - shown.astype(np.uint32)) + 255 * shown.astype(np.uint32) + 127) // 255
        new = np.dstack([new, alpha.astype(np.uint8)])
    old[shown > 0] = new[shown > 0]
    return Image.fromarray(old)


def on_white(picture: Image.Image) -> Image.Image:
    """RGB, transparency over white."""
    if "A" not in picture.getbands():
        return picture.convert("RGB")
    own = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    white.paste(own, mask=own)
    return white.convert("RGB")


def picture_of(pixels: np.ndarray) -> Image.Image:
    """float [h, w, 3 or 4] in 0..1 -> RGB or RGBA, rounded."""
    return Image.fromarray(np.rint(np.asarray(pixels, np.float64).clip(0, 1) * 255).astype(np.uint8))


def mask_of(mask: np.ndarray) -> Image.Image:
    """float [h, w] in 0..1, 1 = repaint -> mode "L", rounded."""
    return picture_of(mask)


def array_of(picture: Image.Image) -> np.ndarray:
    """RGB, RGBA or L -> float32 [h, w, 3 or 4] or [h, w] in 0..1."""
    return np.asarray(picture, np.float32) / 255


def paste_array(
    plan: InpaintPlan, pixels: np.ndarray, drawn: np.ndarray, shown: Image.Image | None = None
) -> np.ndarray:
    """`paste` for floats: `pixels` [h, w, 3 or 4] is what the plan's source was made from, `drawn` [h', w', 3].

    Where nothing is repainted, the very floats of `pixels` stay. With `keep_size` off the result has the drawn size.
    """
    result = array_of(paste(plan, picture_of(drawn), shown))
    if result.shape != pixels.shape:
        return result
    same = (np.asarray(picture_of(pixels)) == np.rint(result * 255).astype(np.uint8)).all(axis=-1, keepdims=True)
    return np.where(same, np.asarray(pixels, np.float32), result)


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
