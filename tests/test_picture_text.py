"""Where programs hide a picture's parameters: PNG text, EXIF, comments, sidecars, lowest bits."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_core.errors import FileError
from lora_core.picture_text import exif_of, read_picture_text, user_comment

TEXT = "ein Käfer, 猫\nNegative prompt: bad\nSteps: 20, Sampler: Euler, Seed: 1"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize("way", ["text", "itxt", "ztxt", "packed itxt"])
def test_png_as_pillow_writes_it(tmp_path: Path, way: str) -> None:
    info = PngInfo()
    if way == "text":
        info.add_text("parameters", TEXT)  # becomes iTXt where Latin-1 does not do
    elif way == "ztxt":
        info.add_text("parameters", TEXT.replace("猫", ""), zip=True)
    else:
        info.add_itxt("parameters", TEXT, zip=way != "itxt")
    Image.new("RGB", (8, 9)).save(tmp_path / "a.png", pnginfo=info)
    found = read_picture_text(tmp_path / "a.png")
    assert found.texts["parameters"] == (TEXT.replace("猫", "") if way == "ztxt" else TEXT)
    assert (found.place, found.size) == ("PNG text", (8, 9))


def test_comfyuis_animated_png(tmp_path: Path) -> None:
    info = PngInfo()
    info.add(b"comf", b"prompt\0{}", after_idat=True)
    info.add(b"comf", b"workflow\0[]", after_idat=True)
    frames = [Image.new("RGB", (8, 9), (90 * i, 0, 0)) for i in range(2)]
    frames[0].save(tmp_path / "a.png", pnginfo=info, save_all=True, duration=166, append_images=frames[1:])
    assert dict(read_picture_text(tmp_path / "a.png").texts) == {"prompt": "{}", "workflow": "[]"}


def test_png_that_is_odd(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(chunk(b"tEXt", b"parameters\0" + TEXT.encode("utf-8"))))
    assert read_picture_text(path).texts["parameters"] == TEXT
    path.write_bytes(png(chunk(b"tEXt", "parameters\0Käfer".encode("latin-1"))))
    assert read_picture_text(path).texts["parameters"] == "Käfer"
    late = png(chunk(b"IDAT", b"x" * 100), chunk(b"tEXt", b"parameters\0behind the pixels"))
    path.write_bytes(late)
    assert read_picture_text(path).texts["parameters"] == "behind the pixels"
    path.write_bytes(late[:80])  # cut off before the text
    assert "parameters" not in read_picture_text(path).texts
    bomb = zlib.compress(bytes(100 << 20), 9)
    path.write_bytes(png(chunk(b"zTXt", b"parameters\0\0" + bomb), chunk(b"tEXt", b"prompt\0{}")))
    assert dict(read_picture_text(path).texts) == {"prompt": "{}"}


def test_a_300_megapixel_png_is_read_without_its_pixels(tmp_path: Path) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 15000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"tEXt", b"parameters\0big") + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    assert read_picture_text(tmp_path / "a.png").texts["parameters"] == "big"


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_exif_there_and_back(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (16, 8)).save(tmp_path / name, exif=exif_of(TEXT))
    found = read_picture_text(tmp_path / name)
    assert dict(found.texts) == {"parameters": TEXT}
    assert (found.place, found.size) == ("EXIF", (16, 8))


@pytest.mark.parametrize(
    "value",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-be"),
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + TEXT.encode("utf-16"),
        b"ASCII\0\0\0" + TEXT.encode("utf-8"),
        b"\0\0\0\0\0\0\0\0" + TEXT.encode("utf-8"),
        TEXT.encode("utf-8"),
        TEXT,
    ],
)
def test_user_comments_of_other_programs(value: object) -> None:
    assert user_comment(value) == TEXT


def test_comfyuis_webp(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110], exif[0x010F] = 'prompt:{"1": {}}', 'workflow:{"nodes": []}'
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif)
    assert dict(read_picture_text(tmp_path / "a.webp").texts) == {"prompt": '{"1": {}}', "workflow": '{"nodes": []}'}


def test_gif_comment_and_sidecar(tmp_path: Path) -> None:
    Image.new("P", (8, 8)).save(tmp_path / "a.gif", comment=b"Steps: 3")
    assert read_picture_text(tmp_path / "a.gif").texts["parameters"] == "Steps: 3"
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "b.txt").write_bytes(("\ufeff" + TEXT.replace("\n", "\r\n")).encode("utf-8"))
    found = read_picture_text(tmp_path / "b.png")
    assert found.texts["parameters"] == TEXT and found.place == "b.txt beside it"
    assert read_picture_text(tmp_path / "b.txt").texts["parameters"] == TEXT


def hide(text: str, name: str, mode: str) -> Image.Image:
    """An independent writer of hidden parameters, bit by bit."""
    data = gzip.compress(text.encode()) if name.endswith("comp") else text.encode()
    bits = "".join(f"{byte:08b}" for byte in name.encode()) + f"{len(data) * 8:032b}"
    bits += "".join(f"{byte:08b}" for byte in data)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, len(mode)), dtype=np.uint8), mode).copy()
    pixels = image.load()
    channels = range(3) if "rgb" in name else (3,)
    place = 0
    for x in range(image.width):
        for y in range(image.height):
            values = list(pixels[x, y])
            for c in channels:
                if place < len(bits):
                    values[c] = values[c] & 254 | int(bits[place])
                    place += 1
            pixels[x, y] = tuple(values)
    return image


@pytest.mark.parametrize(
    ("name", "mode"),
    [("stealth_pnginfo", "RGBA"), ("stealth_pngcomp", "RGBA"), ("stealth_rgbinfo", "RGB"), ("stealth_rgbcomp", "RGBA")],
)
def test_hidden_parameters(tmp_path: Path, name: str, mode: str) -> None:
    hide(TEXT, name, mode).save(tmp_path / "a.png")
    found = read_picture_text(tmp_path / "a.png")
    assert dict(found.texts) == {"parameters": TEXT} and found.place == "hidden in its pixels"


def test_nothing_there(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 2)).save(tmp_path / "a.png")
    assert dict(read_picture_text(tmp_path / "a.png").texts) == {}
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    for name in ("a.jpg", "missing.png"):
        with pytest.raises(FileError, match=name):
            read_picture_text(tmp_path / name)
