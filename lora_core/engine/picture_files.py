"""Numbered picture files with the parameters that made them."""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_core.picture_text import exif_of

ENDINGS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
QUALITY = 80  # A1111's default for JPEG and WebP


def next_number(folder: Path, name: str) -> int:
    """One more than the highest number of the files name-00001.png (or .jpg, .webp) in the folder."""
    pattern = re.compile(rf"{re.escape(name)}-(\d+)\.({'|'.join(ENDINGS.values())})")
    taken = [int(m.group(1)) for path in folder.glob("*") if (m := pattern.fullmatch(path.name))]
    return max(taken, default=0) + 1


def save_picture(
    picture: Image.Image, folder: Path, name: str, parameters: str, kind: str = "png", lossless: bool = False
) -> Path:
    """Write `folder/name-00001.png` (the next free number) with the parameters as A1111 puts them there: a text chunk
    in PNG, EXIF's UserComment in JPEG and WebP. All or nothing. `lossless`: see `encoded`."""
    path = folder / f"{name}-{next_number(folder, name):05}.{ENDINGS[kind]}"
    write_whole(path, encoded(picture, parameters, kind, lossless))
    return path


def encoded(picture: Image.Image, parameters: str = "", kind: str = "png", lossless: bool = False) -> bytes:
    """The bytes of a picture file. `lossless`: WebP keeps every pixel, alpha and the colours below it, as PNG does."""
    data = io.BytesIO()
    if kind == "png":
        chunks = PngInfo()
        ascii_ = parameters.isascii()
        chunks.add_text("parameters", parameters) if ascii_ else chunks.add_itxt("parameters", parameters)
        picture.save(data, "PNG", pnginfo=chunks if parameters else None)
    else:
        exif = {"exif": exif_of(parameters)} if parameters else {}
        exact = {"lossless": True, "exact": True} if lossless and kind == "webp" else {"quality": QUALITY}
        (picture if "exact" in exact else picture.convert("RGB")).save(data, kind.upper(), **exact, **exif)
    return data.getvalue()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
