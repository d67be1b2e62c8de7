"""What programs wrote into a picture about its making: PNG text, EXIF, a comment, a .txt beside it, hidden bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from lora_core.errors import FileError
from lora_core.png_read import MAX_TEXT, SIGNATURE, inflate, png_texts

EXIF_IFD, USER_COMMENT, MAKE, MODEL, DESCRIPTION = 0x8769, 0x9286, 0x010F, 0x0110, 0x010E
_GZIP = zlib.MAX_WBITS | 16
_HIDDEN_PIXELS = 64_000_000


@dataclass(frozen=True)
class PictureText:
    """Texts by key ("parameters", "prompt", "workflow", ...), where they were found, and the picture's size."""

    texts: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    size: tuple[int, int] = (0, 0)


def read_picture_text(path: str | Path) -> PictureText:
    """Read a picture's texts; none gives an empty PictureText. A .txt file is read as A1111's parameters.

    Raises FileError for a file that is missing or no picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"There is no file {path}.")
    if path.suffix.lower() == ".txt":
        return PictureText({"parameters": sidecar_text(path)}, "the text file")
    if is_png(path):
        with path.open("rb") as file:
            file.seek(len(SIGNATURE))
            texts, place = png_texts(file), "PNG text"
    else:
        texts, place = _other_texts(path)
    if _known(texts):
        return PictureText(texts, place, picture_size(path))
    sidecar = path.with_suffix(".txt")
    if sidecar.is_file():
        return PictureText({"parameters": sidecar_text(sidecar)}, f"{sidecar.name} beside it", picture_size(path))
    hidden = hidden_text(path)
    return PictureText({**texts, **hidden}, "hidden in its pixels" if hidden else place, picture_size(path))


def is_png(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def sidecar_text(path: Path) -> str:
    """The text of a .txt file. Raises FileError for one that is too large."""
    if path.stat().st_size > MAX_TEXT:
        raise FileError(f"{path.name} is too large to hold a picture's parameters.")
    return path.read_bytes().decode("utf-8-sig", "replace").replace("\r\n", "\n")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height from the file's header; (0, 0) where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # decoders of hostile files raise anything
        return 0, 0


def _known(texts: Mapping[str, str]) -> bool:
    return any(texts.get(key) for key in ("parameters", "prompt", "workflow", "Comment"))


def _other_texts(path: Path) -> tuple[dict[str, str], str]:
    try:
        with Image.open(path) as image:
            exif, comment = image.getexif(), image.info.get("comment")
            texts = exif_texts(exif)
    except Exception as error:  # decoders of hostile files raise anything
        raise FileError(f"{path.name} cannot be read as a picture: {error}.") from error
    if not texts and comment:
        text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
        return {"parameters": text}, "its comment"
    return texts, "EXIF"


def exif_texts(exif: Image.Exif) -> dict[str, str]:
    """A1111's UserComment as "parameters"; ComfyUI's "prompt:{...}" and "workflow:{...}" in Make, Model and others."""
    found: dict[str, str] = {}
    for tag, value in exif.items():
        key, colon, text = str(value).partition(":") if isinstance(value, str) else ("", "", "")
        if colon and key.casefold() in ("prompt", "workflow") and text.lstrip().startswith("{"):
            found[key.casefold()] = text
        elif tag == DESCRIPTION and "Steps:" in str(value):
            found["parameters"] = str(value)
    comment = user_comment(exif.get_ifd(EXIF_IFD).get(USER_COMMENT, b""))
    if comment.lstrip().startswith("{"):
        found.setdefault("prompt", comment)
    elif comment:
        found["parameters"] = comment
    return found


def user_comment(value: object) -> str:
    """The text of an EXIF UserComment: 8 bytes name its character set; UTF-16 of either order is recognised."""
    if isinstance(value, str):
        return value.strip("\0")
    data = bytes(value) if isinstance(value, (bytes, bytearray)) else b""
    head, body = data[:8], data[8:]
    if head.startswith(b"UNICODE"):
        text = body.decode("utf-16-le" if _little_endian(body) else "utf-16-be", "replace")
    else:
        known = head.rstrip(b"\0") in (b"", b"ASCII", b"JIS") and len(head) == 8
        text = (body if known else data).decode("utf-8", "replace")
    return text.strip("\0\ufeff")


def _little_endian(data: bytes) -> bool:
    """Whether UTF-16 text is in little-endian order: more of its zero bytes are the second of a pair."""
    return data[1::2].count(0) > data[0::2].count(0)


def exif_of(infotext: str) -> bytes:
    """EXIF with the infotext as UserComment, as A1111 writes it, for Pillow's `save(exif=...)`.

    Laid out by hand (EXIF 2.3, 4.6.2): Pillow stores bytes as another type, on which A1111's reader fails.
    """
    comment = b"UNICODE\0" + infotext.encode("utf-16-be")
    pointer = struct.pack(">HHLL", EXIF_IFD, 4, 1, 26)
    entry = struct.pack(">HHLL", USER_COMMENT, 7, len(comment), 44)
    tables = b"".join(struct.pack(">H", 1) + row + struct.pack(">L", 0) for row in (pointer, entry))
    return b"Exif\0\0MM\0*" + struct.pack(">L", 8) + tables + comment


def hidden_text(path: Path) -> dict[str, str]:
    """Parameters in the lowest bits of alpha, or of red, green and blue ("stealth" infotext), read column by column."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > _HIDDEN_PIXELS or image.format not in ("PNG", "WEBP"):
                return {}
            pixels = np.asarray(image.convert("RGBA") if image.mode != "RGBA" else image)
            opaque = image.mode != "RGBA"
    except Exception:  # decoders of hostile files raise anything
        return {}
    columns = pixels.swapaxes(0, 1)  # [h, w, 4] -> [w, h, 4]
    places = [] if opaque else [("png", columns[:, :, 3:])]
    for kind, channels in (*places, ("rgb", columns[:, :, :3])):
        text = _from_bits(channels, kind)
        if text:
            return {"parameters": text}
    return {}


def _from_bits(columns: np.ndarray, kind: str) -> str:
    """[w, h, channels] -> signature (15 letters), length in bits (32 bits), text: plain or gzipped."""
    per_column = columns.shape[1] * columns.shape[2]
    head = np.packbits(columns[: 152 // per_column + 1].reshape(-1)[:152] & 1).tobytes()
    if head[:15] not in (f"stealth_{kind}info".encode(), f"stealth_{kind}comp".encode()):
        return ""
    end = 152 + int.from_bytes(head[15:19], "big")
    if end > columns.size:
        return ""
    data = np.packbits(columns[: end // per_column + 1].reshape(-1)[152:end] & 1).tobytes()
    if head[:15].endswith(b"comp"):
        data = inflate(data, _GZIP) or b""
    return data.decode("utf-8", "replace")
