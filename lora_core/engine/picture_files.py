"""Numbered PNG files with the parameters that made them."""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def next_number(folder: Path, name: str) -> int:
    """One more than the highest number of the files name-00001.png in the folder."""
    pattern = re.compile(rf"{re.escape(name)}-(\d+)\.png")
    taken = [int(m.group(1)) for path in folder.glob("*.png") if (m := pattern.fullmatch(path.name))]
    return max(taken, default=0) + 1


def save_picture(picture: Image.Image, folder: Path, name: str, parameters: str) -> Path:
    """Write `folder/name-00001.png` (the next free number) with a text chunk `parameters`; all or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = PngInfo()
    chunks.add_itxt("parameters", parameters) if not parameters.isascii() else chunks.add_text("parameters", parameters)
    data = io.BytesIO()
    picture.save(data, "PNG", pnginfo=chunks)
    path = folder / f"{name}-{next_number(folder, name):05}.png"
    handle, temporary = tempfile.mkstemp(prefix=f".{name}", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.getvalue())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
