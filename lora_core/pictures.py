"""Pictures from files that may be anything: rotated, transparent, 16-bit, CMYK, animated, truncated, or no pictures."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from lora_core.augment import Tint
from lora_core.buckets import Fit
from lora_core.errors import FileError

_COMMON = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
_RARE = {
    ".avif",
    ".heic",
    ".heif",
    ".jp2",
    ".j2k",
    ".jpx",
    ".tga",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".jxl",
    ".ico",
    ".qoi",
}
SUFFIXES = frozenset(_COMMON | _RARE)
MAX_PIXELS = 178_956_970
MAX_FILE_BYTES = 1 << 30
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "HEIF", "JPEG2000", "TGA", "PPM", "ICO")
_FORMATS += ("QOI", "JXL")
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
FILTERS = {name: getattr(Image.Resampling, name.upper()) for name in ("nearest", "bilinear", "bicubic", "lanczos")}
_SRGB_MARK = "srgb"


@dataclass(frozen=True)
class Pixels:
    """`rgb` uint8 [h, w, 3] composited on white; `alpha` uint8 [h, w] (255 = opaque) or None where all is opaque."""

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    frames: int = 1

    @property
    def size(self) -> tuple[int, int]:
        return self.rgb.shape[1], self.rgb.shape[0]


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes. Raises FileError whose text is a reason that fits behind "NAME: "."""
    try:
        size = os.stat(path).st_size
        if size > MAX_FILE_BYTES:
            raise FileError(f"it is {size / 2**30:.1f} GiB large; pictures may have {MAX_FILE_BYTES >> 30} GiB")
        if size == 0:
            raise FileError("it is empty")
        return Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"it cannot be read ({error.strerror or error})") from error


def content_hash(data: bytes) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read_pixels(path: str | os.PathLike[str]) -> Pixels:
    """Decode a picture file. Raises FileError whose text is a reason that fits behind "NAME: "."""
    return decode(read_bytes(path))


def decode(data: bytes) -> Pixels:
    """Decode a picture upright (EXIF), 8-bit, first frame only, transparency on white.

    Raises FileError for anything that is not a whole picture of at most `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise FileError(f"it has {width} x {height} pixels; at most {MAX_PIXELS / 1e6:.0f} million are read")
            frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
            image.seek(0)
            image.load()
            return _flattened(_upright(image), frames)
    except FileError:
        raise
    except Exception as error:  # decoders of hostile files raise anything
        raise FileError(fault_of(error, data)) from error


def fitted(pixels: Pixels, fit: Fit) -> Pixels:
    """The picture resized and cropped to its bucket."""
    left, top = fit.crop()
    width, height = fit.bucket
    window = (slice(top, top + height), slice(left, left + width))
    rgb = resize(pixels.rgb, fit.resized, fit.filter)[window]
    alpha = None if pixels.alpha is None else resize(pixels.alpha, fit.resized, fit.filter)[window]
    return Pixels(np.ascontiguousarray(rgb), alpha, pixels.frames)


def resize(pixels: np.ndarray, size: tuple[int, int], how: str = "auto") -> np.ndarray:
    """uint8 [h, w] or [h, w, c] -> uint8 of `size` (width, height). "auto": area averaging when both sides shrink,
    else Lanczos, as kohya's trainer chooses."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    if how in FILTERS:
        return np.array(Image.fromarray(pixels).resize(size, FILTERS[how]))
    if width >= size[0] and height >= size[1]:
        rows = _area_rows(pixels, size[1])
        both = _area_rows(np.ascontiguousarray(rows.swapaxes(0, 1)), size[0]).swapaxes(0, 1)
        return np.clip(np.rint(both), 0, 255).astype(np.uint8)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def tinted(rgb: np.ndarray, tint: Tint) -> np.ndarray:
    """uint8 [h, w, 3] with its hue turned and its gamma changed."""
    if tint.hue:
        hsv = np.array(Image.fromarray(rgb).convert("HSV"))
        hsv[:, :, 0] = (hsv[:, :, 0].astype(np.int16) + round(tint.hue / 180 * 256)) % 256
        rgb = np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
    if tint.gamma != 1:
        table = np.rint((np.arange(256) / 255) ** tint.gamma * 255).astype(np.uint8)
        rgb = table[rgb]
    return rgb


def _area_rows(pixels: np.ndarray, count: int) -> np.ndarray:
    """Average rows [n, ...] into `count` rows; a source row counts by the share of it that is covered."""
    total = pixels.shape[0]
    if total == count:
        return pixels
    flat = pixels.reshape(total, -1)
    result = np.empty((count, flat.shape[1]), np.float32)
    scale = total / count
    for i in range(count):
        start, end = i * scale, (i + 1) * scale
        first, last = int(start), min(int(np.ceil(end - 1e-9)), total)
        weights = np.ones(last - first, np.float32)
        weights[0] -= start - first
        weights[-1] -= last - min(end, last)
        result[i] = (weights / weights.sum()) @ flat[first:last].astype(np.float32)
    return result.reshape(count, *pixels.shape[1:])


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) or image
    except Exception:  # broken EXIF must not cost the picture
        return image


def _flattened(image: Image.Image, frames: int) -> Pixels:
    if image.mode in _DEEP_MODES:
        grey = _eight_bit(np.asarray(image), image.mode)
        return Pixels(np.repeat(grey[:, :, None], 3, axis=2), None, frames)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = np.array(_to_rgba(image))
        alpha = rgba[:, :, 3]
        if not alpha.any():
            raise FileError("it is fully transparent")
        if alpha.min() < 255:
            return Pixels(_on_white(rgba), alpha.copy(), frames)
        return Pixels(np.ascontiguousarray(rgba[:, :, :3]), None, frames)
    return Pixels(np.array(_to_rgb(image)), None, frames)


def _to_rgba(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return image if image.mode == "RGBA" else image.convert("RGBA")


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """[h, w, 4] -> [h, w, 3]; 16-bit integers, rounded."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    mixed = rgba[:, :, :3] * alpha + (255 - alpha) * np.uint16(255)
    return ((mixed + np.uint16(127)) // np.uint16(255)).astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Colours as sRGB where the picture names another colour space, else by Pillow's own conversion."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "CMYK" or _SRGB_MARK not in ImageCms.getProfileDescription(source).casefold():
                found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
                return found or image.convert("RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey of 16 or 32 bits or floating point -> uint8, by the smallest usual white (1, 255, 65535) that holds it."""
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise FileError("it holds values that are not finite")
    top = float(wide.max(initial=0))
    if mode == "F":
        white = next((w for w in (1.0, 255.0, 65535.0) if top <= w), top)
    else:
        white = 65535.0 if top <= 65535 else 2.0**31 - 1
    return np.clip(np.rint(wide * (255.0 / white)), 0, 255).astype(np.uint8)


_HEADS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"RIFF", "WebP"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)


def fault_of(error: Exception, data: bytes) -> str:
    """Why a picture could not be decoded, as words that fit behind "NAME: "; `data`: the file's beginning at least."""
    kind = next((name for head, name in _HEADS if data.startswith(head)), "")
    if isinstance(error, Image.DecompressionBombError):
        return f"it has too many pixels; at most {MAX_PIXELS / 1e6:.0f} million are read"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if kind:
        return f"the {kind} file is damaged or cut off ({_brief(error)})"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif", b"ftypheif"):
        return "HEIC and AVIF pictures cannot be read by the installed Pillow: convert it to PNG or JPEG"
    return "it is not a picture, or of a kind that cannot be read"


def _brief(error: Any) -> str:
    text = " ".join(str(error).split())
    return (text[:117] + "...") if len(text) > 120 else text or type(error).__name__
