"""Eight square pictures with captions: scikit-image's photographs where installed, else noise much like photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "brick", "grass", "gravel", "camera")


def write_pictures(folder: Path, size: int) -> None:
    """Write NAME.png (size x size) and NAME.txt for each name. The same size gives the same pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(NAMES):
        picture = photograph(name) or noise(place, size)
        square = min(picture.size)
        left, top = (picture.width - square) // 2, (picture.height - square) // 2
        cut = picture.crop((left, top, left + square, top + square)).resize((size, size), Image.Resampling.LANCZOS)
        cut.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a photo of {name}, sharp focus, daylight", "utf-8")


def photograph(name: str) -> Image.Image | None:
    """A sample that comes with scikit-image; None where it is not on the disk."""
    try:
        from skimage import data

        return Image.fromarray(getattr(data, name)()).convert("RGB")
    except (ImportError, OSError, ValueError):
        return None


def noise(seed: int, size: int) -> Image.Image:
    """Random phases with amplitudes 1/f, as photographs have; channels mostly alike."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    amplitude = 1 / np.maximum(frequency, 1 / size)
    planes = []
    for weight in (1.0, 0.3, 0.3, 0.3):
        phase = rng.uniform(0, 2 * np.pi, amplitude.shape)
        plane = np.fft.irfft2(amplitude * np.exp(1j * phase), (size, size))
        planes.append(weight * plane / plane.std())
    pixels = 128 + 45 * (planes[0][..., None] + np.stack(planes[1:], -1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
