"""Masks of training pictures: found by name, brought to the cells of the latents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lora_core.buckets import Fit, Size
from lora_core.errors import DatasetError, FileError
from lora_core.folders import normal
from lora_core.pictures import SUFFIXES, Pixels, content_hash, decode, fitted, read_bytes, resize

CELL = 8


@dataclass
class MaskFiles:
    """Finds the mask of a picture in a folder: the same path, or the same name, with any ending of a picture."""

    missing: list[str] = field(default_factory=list)
    _known: dict[str, dict[str, Path]] = field(default_factory=dict)

    def mask(self, folder: str, picture: Path, root: Path) -> Path | None:
        """The mask of a picture below `root`; None (and noted) where there is none. Raises DatasetError."""
        if not folder:
            return None
        if folder not in self._known:
            self._known[folder] = dict(self._read(folder))
        known = self._known[folder]
        path = picture.relative_to(root).with_suffix("").as_posix()
        found = known.get(normal(path)) or known.get(normal(picture.stem))
        if found is None:
            self.missing.append(picture.name)
        return found

    def _read(self, folder: str) -> Iterator[tuple[str, Path]]:
        if not os.path.isdir(folder):
            raise DatasetError(f"The folder with masks {folder} does not exist.")
        files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not files:
            raise DatasetError(f"The folder with masks {folder} holds no picture.")
        for path in reversed(files):
            yield normal(path.stem), path
        for path in files:
            yield normal(path.relative_to(folder).with_suffix("").as_posix()), path


def mask_pixels(data: bytes, size: Size) -> np.ndarray:
    """uint8 [h, w] of a mask file, brought to its picture's size (width, height): its red channel.

    Raises FileError.
    """
    return resize(np.ascontiguousarray(decode(data).rgb[:, :, 0]), size)


def cells(mask: np.ndarray, fit: Fit, flip: bool) -> np.ndarray:
    """A mask in its picture's size, uint8 [h, w], as the picture is fitted -> share of each latent cell, float32."""
    grey = np.repeat(mask[:, :, None], 3, axis=2)
    cut = fitted(Pixels(grey), fit).rgb[:, :, 0].astype(np.float32) / 255
    height, width = cut.shape[0] // CELL, cut.shape[1] // CELL
    small = cut[: height * CELL, : width * CELL].reshape(height, CELL, width, CELL).mean((1, 3))
    return np.ascontiguousarray(small[:, ::-1] if flip else small)


def read_mask(path: Path, size: Size, mark: str, name: str) -> np.ndarray:
    """`mask_pixels` of a file whose content is still that of `mark`. Raises DatasetError."""
    try:
        data = read_bytes(path)
        if content_hash(data) != mark:
            raise FileError("it was changed after it had been checked")
        return mask_pixels(data, size)
    except FileError as error:
        raise DatasetError(f"The mask {path.name} of {name}: {error}. Start again.") from error


def checked_mask(path: Path | None, size: Size) -> str:
    """The hash of a mask's content, "" without one. Raises FileError for one that does not decode or fit."""
    if path is None:
        return ""
    try:
        data = read_bytes(path)
        mask = decode(data).size
    except FileError as error:
        raise FileError(f"its mask {path.name}: {error}") from error
    if abs(mask[0] * size[1] - mask[1] * size[0]) > max(*mask, *size):
        raise FileError(f"its mask {path.name} is {mask[0]} x {mask[1]}, the picture {size[0]} x {size[1]}")
    return content_hash(data)
