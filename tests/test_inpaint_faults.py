"""Inpainting with files and settings that do not fit: one sentence each, and nothing is written."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from lora_core.errors import ConfigError, FileError, LoomError
from lora_core.events import Event, Finished, Note
from lora_core.jobs.generate import Img2ImgJob, InpaintJob
from lora_core.run import run


def noise_png(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], len(mode)), np.uint8), mode).save(path)
    return path


def huge_png(path: Path, width: int, height: int) -> Path:
    """A PNG of many pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))
    return path


def job(folder: Path, **values: Any) -> InpaintJob:
    image, mask = noise_png(folder / "picture.png", (64, 48)), folder / "mask.png"
    Image.new("L", (64, 48), 255).save(mask)
    given = {"image": str(image), "mask": str(mask), "output_dir": str(folder / "out")}
    given |= {"base": str(tiny.checkpoint("sd15")), "dtype": "fp32", "device": "cpu", "width": 64, "height": 64}
    return InpaintJob(**given | {"steps": 2} | values)


def fault(work: Any, kind: type[LoomError]) -> str:
    with pytest.raises(kind) as caught:
        list(run(work))
    assert not list(Path(work.output_dir).glob("*"))
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_truncated_pictures(tmp_path: Path) -> None:
    good = noise_png(tmp_path / "good.png", (64, 48)).read_bytes()
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    for name in ("image", "mask"):
        text = fault(job(tmp_path, **{name: str(tmp_path / "cut.png")}), FileError)
        assert "cut.png cannot be read as a picture: the PNG file is damaged or cut off" in text


@pytest.mark.parametrize("size", [(20000, 15000), (100000, 100000)])
def test_enormous_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    huge = huge_png(tmp_path / "huge.png", *size)
    for name in ("image", "mask"):
        text = fault(job(tmp_path, **{name: str(huge)}), FileError)
        assert text == "huge.png cannot be read as a picture: it has too many pixels; at most 179 million are read."


def test_no_picture_no_alpha_another_size(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no picture")
    assert "words.png" in fault(job(tmp_path, image=str(tmp_path / "words.png")), FileError)
    assert "nowhere.png" in fault(job(tmp_path, image=str(tmp_path / "nowhere.png")), FileError)
    assert "no transparency" in fault(job(tmp_path, mask=""), ConfigError)
    other = noise_png(tmp_path / "other.png", (32, 48))
    text = fault(job(tmp_path, mask=str(other)), ConfigError)
    assert "32 x 48" in text
    assert "64 x 48" in text


def test_settings_that_are_none(tmp_path: Path) -> None:
    for values, words in (
        ({"sampler": "ddin"}, "ddin"),
        ({"masked_content": "nothing"}, "nothing"),
        ({"resize_mode": "stretch"}, "stretch"),
        ({"denoising_strength": 1.5}, "1.5"),
        ({"mask_blur": -1}, "-1"),
        ({"image": ""}, "image"),
    ):
        assert words in fault(job(tmp_path, **values), ConfigError)


def test_blank_masks_are_noted(tmp_path: Path) -> None:
    work = job(tmp_path)
    Image.new("L", (64, 48)).save(work.mask)
    events: list[Event] = list(run(work))
    assert [e.text for e in events if isinstance(e, Note)] == ["The mask is blank: nothing of the picture will change."]
    finished = events[-1]
    assert isinstance(finished, Finished)
    with Image.open(finished.outputs[0]) as drawn, Image.open(work.image) as source:
        assert drawn.tobytes() == source.tobytes()


def test_img2img_without_a_picture(tmp_path: Path) -> None:
    base = str(tiny.checkpoint("sd15"))
    assert "image" in fault(Img2ImgJob(base=base, output_dir=str(tmp_path / "out")), ConfigError)
