"""IMAGE and MASK tensors of ComfyUI to and from pictures: the one place where axes and ranges change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lora_core.errors import ConfigError

from . import places

EMPTY = (64, 64)


def pictures_of(images: torch.Tensor) -> list[Image.Image]:
    """IMAGE [b, h, w, 3 or 4] in 0..1 -> RGB or RGBA pictures."""
    values = (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return [Image.fromarray(picture) for picture in values]


def masks_of(masks: torch.Tensor) -> list[Image.Image]:
    """MASK [b, h, w] or [h, w], 1 = repaint -> pictures of mode L, white = repaint."""
    values = (masks.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return [Image.fromarray(mask) for mask in values.reshape((-1, *values.shape[-2:]))]


def image_of(pictures: Iterable[Image.Image]) -> torch.Tensor:
    """Pictures -> IMAGE [b, h, w, 3]; those of another size than the first are fitted to it."""
    found = [picture.convert("RGB") for picture in pictures] or [Image.new("RGB", EMPTY, (128, 128, 128))]
    size = found[0].size
    arrays = [np.asarray(p if p.size == size else p.resize(size, Image.Resampling.LANCZOS)) for p in found]
    return torch.from_numpy(np.stack(arrays).astype(np.float32) / 255.0)  # [b, h, w, 3]


def mask_of(picture: Image.Image) -> torch.Tensor:
    """A picture of mode L -> MASK [1, h, w]."""
    return torch.from_numpy(np.asarray(picture.convert("L")).astype(np.float32) / 255.0)[None]


def read_picture(path: str | Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def first(images: torch.Tensor, what: str) -> torch.Tensor:
    """The only picture of a batch. Raises ConfigError for several."""
    if images.shape[0] != 1:
        raise ConfigError(
            f"{what} takes one picture; this batch has {images.shape[0]}: choose one with ImageFromBatch."
        )
    return images


def matched_mask(mask: torch.Tensor, picture: Image.Image) -> Image.Image:
    """The first mask as mode L; an empty one of another size (LoadImage gives 64 x 64 without alpha) is fitted.

    Raises ConfigError when sizes differ otherwise.
    """
    found = masks_of(mask)[0]
    if found.size == picture.size:
        return found
    if found.getextrema() == (0, 0):
        return Image.new("L", picture.size)
    raise ConfigError(
        f"The mask has {found.width} x {found.height} pixels, the picture {picture.width} x {picture.height}: "
        "scale one of them first."
    )


def kept_picture(picture: Image.Image) -> str:
    """The path of a temporary PNG with these pixels; the same pixels always have the same path."""
    digest = hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()[:24]
    path = places.temp_folder() / f"{digest}.png"
    if not path.exists():
        picture.save(path, compress_level=1)
    return str(path)
