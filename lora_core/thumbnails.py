"""Small JPEG copies of pictures, for pages."""

from __future__ import annotations

import base64
import functools
import io
import os
from pathlib import Path

from PIL import Image

from lora_core.drawing import flatten
from lora_core.errors import FileError
from lora_core.picture_read import read_picture

SIZES = (16, 2048)
KEPT = 512


def thumbnail(path: str | Path, size: int = 256) -> bytes:
    """JPEG bytes of the picture, shrunk to fit `size` x `size`, never enlarged. Raises FileError."""
    size = min(SIZES[1], max(SIZES[0], size))
    try:
        changed = os.stat(path).st_mtime_ns
    except OSError as error:
        raise FileError(f"The picture {path} cannot be read: {error.strerror or error}.") from error
    return _made(str(path), size, changed)


@functools.lru_cache(maxsize=KEPT)
def _made(path: str, size: int, changed: int) -> bytes:
    picture = flatten(read_picture(path))
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()


def data_uri(path: str | Path, size: int = 256) -> str:
    """The thumbnail as text for an <img>'s src."""
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail(path, size)).decode("ascii")
