"""Decoding: every kind of picture file, right side up and in the right colours, and every kind of damage."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from lora_core.buckets import BucketRules
from lora_core.errors import FileError
from lora_core.pictures import MAX_PIXELS, decode, fitted, read_pixels, resize

RED, BLUE = (200, 30, 40), (20, 40, 220)


def scene(size=(48, 32), left=RED, right=BLUE) -> Image.Image:
    """Left half one colour, right half another."""
    image = Image.new("RGB", size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def data_of(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def close(colour, expected, tolerance=2) -> bool:
    return bool(np.all(np.abs(np.asarray(colour, int) - np.asarray(expected, int)) <= tolerance))


@pytest.mark.parametrize(
    "kind, options, tolerance",
    [
        ("PNG", {}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 4),
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("PPM", {}, 0),
        ("TGA", {}, 0),
        ("GIF", {}, 2),
        ("JPEG2000", {}, 2),
    ],
)
def test_formats(kind, options, tolerance):
    pixels = decode(data_of(scene(), kind, **options))
    assert pixels.size == (48, 32) and pixels.rgb.dtype == np.uint8 and pixels.alpha is None
    assert close(pixels.rgb[5, 5], RED, tolerance) and close(pixels.rgb[5, 40], BLUE, tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    """The stored pixels are what a camera held that way stores of the same scene."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene() if orientation == 1 else scene().transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "JPEG", "WEBP"):
        pixels = decode(data_of(stored, kind, exif=exif, quality=95))
        assert pixels.size == (48, 32), kind
        assert close(pixels.rgb[5, 5], RED, 12) and close(pixels.rgb[5, 40], BLUE, 12), kind


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_picture():
    pixels = decode(data_of(scene(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\x00\x01"))
    assert pixels.size == (48, 32)


def test_alpha_is_composited_on_white_and_kept():
    image = scene().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.array([0, 128, 255], np.uint8).repeat(16), (32, 1))))
    pixels = decode(data_of(image, "PNG"))
    assert close(pixels.rgb[0, 0], (255, 255, 255), 0) and close(pixels.rgb[0, 47], BLUE, 0)
    expected = [round((c * 128 + 255 * 127) / 255) for c in RED]
    assert close(pixels.rgb[0, 20], expected, 0)
    assert pixels.alpha is not None and pixels.alpha[0, ::16].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_opaque_alpha_channel_is_no_mask(mode):
    assert decode(data_of(scene().convert(mode), "PNG")).alpha is None


def test_a_fully_transparent_picture_is_a_fault():
    with pytest.raises(FileError, match="fully transparent"):
        decode(data_of(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), "PNG"))


def test_palette_with_and_without_transparency():
    image = scene().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    plain = decode(data_of(image, "PNG"))
    assert plain.alpha is None and close(plain.rgb[5, 5], RED)
    blue = int(np.asarray(image)[5, 40])
    cut = decode(data_of(image, "PNG", transparency=blue))
    assert close(cut.rgb[5, 40], (255, 255, 255), 0) and close(cut.rgb[5, 5], RED)
    assert cut.alpha is not None and cut.alpha[5, 40] == 0


def test_rgb_with_a_transparent_colour():
    pixels = decode(data_of(scene(), "PNG", transparency=BLUE))
    assert close(pixels.rgb[5, 40], (255, 255, 255), 0) and close(pixels.rgb[5, 5], RED, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    pixels = decode(data_of(Image.fromarray(np.tile(ramp, (8, 1))), kind))
    assert np.abs(pixels.rgb[0, :, 1].astype(int) - np.linspace(0, 255, 64)).max() <= 1


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_png():
    row = b"\0" + b"".join(struct.pack(">HHH", 200 * 257, 30 * 257, 40 * 257) for _ in range(8))
    assert close(decode(png(8, 4, 16, 2, row * 4)).rgb[1, 1], RED, 1)


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floating_point_tiff(top):
    values = np.linspace(0, top, 32, dtype=np.float32)
    pixels = decode(data_of(Image.fromarray(np.tile(values, (4, 1))), "TIFF"))
    assert np.abs(pixels.rgb[0, :, 0].astype(int) - np.linspace(0, 255, 32)).max() <= 1


def test_grey_bilevel_and_cmyk():
    assert close(decode(data_of(Image.new("L", (8, 8), 77), "PNG")).rgb[0, 0], (77, 77, 77), 0)
    assert close(decode(data_of(Image.new("1", (8, 8), 1), "PNG")).rgb[0, 0], (255, 255, 255), 0)
    cmyk = scene().convert("CMYK")
    for kind, tolerance in (("TIFF", 1), ("JPEG", 8)):
        assert close(decode(data_of(cmyk, kind)).rgb[5, 5], RED, tolerance), kind


def test_srgb_and_broken_profiles_leave_the_colours():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert close(decode(data_of(scene(), "PNG", icc_profile=srgb)).rgb[5, 5], RED, 0)
    assert close(decode(data_of(scene(), "PNG", icc_profile=b"nonsense")).rgb[5, 5], RED, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind):
    frames = [scene(), scene(left=BLUE, right=RED)]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(data_of(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert pixels.frames == 2 and close(pixels.rgb[5, 5], RED, 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_truncated_files_are_faults_with_a_reason(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = data_of(noise, kind)
    with pytest.raises(FileError, match=r"damaged or cut off|not a picture"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    "data, word",
    [(b"hello, I am a text", "not a picture"), (b"\0" * 500, "not a picture"), (b"\x89PNG\r\n\x1a\n", "damaged")],
)
def test_files_that_are_no_pictures(data, word):
    with pytest.raises(FileError, match=word):
        decode(data)


def test_postscript_is_never_run():
    """Pillow would hand EPS to Ghostscript."""
    with pytest.raises(FileError):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")


def test_a_bomb_is_refused_by_its_header():
    side = 40_000
    assert side * side > MAX_PIXELS
    with pytest.raises(FileError, match="pixels"):
        decode(png(side, side, 8, 2, b""))


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(FileError, match="empty"):
        read_pixels(tmp_path / "empty.png")
    with pytest.raises(FileError, match="cannot be read"):
        read_pixels(tmp_path / "missing.png")
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(FileError, match="GiB"):
        read_pixels(tmp_path / "huge.png")


def test_area_resize_averages_exactly():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (30, 45, 3), dtype=np.uint8)
    blocks = pixels.reshape(10, 3, 9, 5, 3).mean(axis=(1, 3))
    assert np.abs(resize(pixels, (9, 10)) - blocks).max() <= 0.5
    fine = pixels.repeat(2, axis=0).repeat(4, axis=1).reshape(20, 3, 36, 5, 3).mean(axis=(1, 3))
    assert np.abs(resize(pixels, (36, 20)) - fine).max() <= 0.501


def test_enlarging_is_pillows_lanczos():
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((60, 40), Image.Resampling.LANCZOS))
    assert np.array_equal(resize(pixels, (60, 40)), expected)


def test_fitting_cuts_the_centre_of_picture_and_alpha():
    image = Image.new("RGBA", (300, 100), (0, 0, 0, 200))
    image.paste((255, 0, 0, 255), (100, 0, 200, 100))
    fit = BucketRules((64, 64), 64, 128, 64).fit((300, 100))
    pixels = fitted(decode(data_of(image, "PNG")), fit)
    assert pixels.size == fit.bucket == (64, 64)
    assert (pixels.rgb[:, 2:-2] == (255, 0, 0)).all()
    assert pixels.alpha is not None and (pixels.alpha[:, 2:-2] == 255).all()


def swapped_profile() -> bytes:
    """An RGB profile whose red and blue primaries are exchanged, and that does not call itself sRGB."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {bytes(data[i : i + 4]): i for i in range(132, 132 + 12 * struct.unpack(">I", data[128:132])[0], 12)}
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB b", b"swap b")


def test_colours_of_another_profile_become_srgb():
    pixels = decode(data_of(scene(), "PNG", icc_profile=swapped_profile()))
    assert close(pixels.rgb[5, 5], RED[::-1], 3)
