"""Reading a picture whose own pixels are to be kept: upright, 8-bit, RGB or RGBA, nothing composited."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from lora_core.errors import FileError
from lora_core.pictures import MAX_PIXELS, fault_of, read_pixels

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F", "CMYK")
TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


def read_picture(path: str | Path) -> Image.Image:
    """An RGB or RGBA picture. Raises FileError for a file that is missing, damaged, too large or no picture."""
    name = Path(path).name
    if not Path(path).is_file():
        raise FileError(f"There is no picture {path}.")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise FileError(f"{name} has {image.width} x {image.height} pixels: too many to work on.")
            if image.mode not in DEEP:
                return _own_pixels(image)
    except FileError:
        raise
    except Exception as error:  # decoders of hostile files raise anything
        with open(path, "rb") as file:
            reason = fault_of(error, file.read(32))
        raise FileError(f"{name} cannot be read as a picture: {reason}.") from error
    try:
        return Image.fromarray(read_pixels(path).rgb)
    except FileError as error:
        raise FileError(f"{name} cannot be read as a picture: {error}.") from error


def _own_pixels(image: Image.Image) -> Image.Image:
    image.load()
    upright = ImageOps.exif_transpose(image) or image
    transparent = upright.mode in TRANSPARENT or "transparency" in upright.info
    return upright.convert("RGBA" if transparent else "RGB")
