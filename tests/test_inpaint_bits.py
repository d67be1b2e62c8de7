"""What is not masked keeps its bits, however often; what is drawn leaves no seam."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lora_core.inpaint_plan import InpaintOptions, array_of, paste, paste_array, picture_of, plan
from lora_core.masks import blur
from lora_core.settings import from_json, to_json

AREAS = ("whole picture", "only masked")
MODES = ("just resize", "crop and resize", "resize and fill", "just resize (latent upscale)")
CONTENTS = ("fill", "original", "latent noise", "latent nothing", "grey")


def pixels(size: tuple[int, int], mode: str, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], len(mode)), np.uint8), mode)


@st.composite
def tasks(draw: st.DrawFn) -> tuple[Image.Image, Image.Image, InpaintOptions]:
    """A picture of any size, a mask with a few boxes and dots of any grey, and options."""
    size = draw(st.tuples(st.integers(9, 150), st.integers(9, 150)))
    mask = Image.new("L", size)
    for _ in range(draw(st.integers(0, 3))):
        left, top = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
        width, height = draw(st.integers(1, 60)), draw(st.integers(1, 60))
        mask.paste(draw(st.integers(0, 255)), (left, top, left + width, top + height))
    options = InpaintOptions(
        width=8 * draw(st.integers(2, 20)),
        height=8 * draw(st.integers(2, 20)),
        blur=draw(st.sampled_from([0, 1, 4, 11])),
        blur_y=draw(st.sampled_from([None, 0, 3])),
        invert=draw(st.booleans()),
        content=draw(st.sampled_from(CONTENTS)),
        area=draw(st.sampled_from(AREAS)),
        padding=draw(st.sampled_from([0, 5, 40])),
        resize_mode=draw(st.sampled_from(MODES)),
    )
    mode = draw(st.sampled_from(["RGB", "RGBA"]))
    return pixels(size, mode, draw(st.integers(0, 9))), mask, options


def shown(mask: Image.Image, options: InpaintOptions) -> np.ndarray:
    """Where the blurred mask is above 0."""
    turned = mask.point([255 - v for v in range(256)]) if options.invert else mask
    return np.asarray(blur(turned, options.blur, options.blur_y)) > 0


@settings(max_examples=60, deadline=None)
@given(tasks(), st.sampled_from([1, 1, 1, 20]))
def test_pixels_outside_the_mask_keep_their_bits(
    task: tuple[Image.Image, Image.Image, InpaintOptions], rounds: int
) -> None:
    source, mask, options = task
    inside = shown(mask, options)
    result = source
    for seed in range(rounds):
        made = plan(result, mask, options)
        result = paste(made, pixels((options.width, options.height), "RGB", 100 + seed))
    if options.area == "only masked" and not inside.any():
        return  # a blank mask: all is drawn anew
    assert (result.size, result.mode) == (source.size, source.mode)
    assert (np.asarray(result)[~inside] == np.asarray(source)[~inside]).all()
    assert made.working.mode == "RGB"
    assert made.mask is not None
    assert made.mask.size == (options.width, options.height)


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(96, 96), (75, 131), (131, 75)])
def test_the_drawing_lands_where_it_was_taken_from(area: str, mode: str, size: tuple[int, int]) -> None:
    """An identity drawing at twice the size shows the source again, to a few levels (A1111 crops to whole pixels)."""
    source, mask = smooth(size), Image.new("L", size)
    mask.paste(255, (25, 30, 50, 55))
    target = (2 * (size[0] // 8) * 8, 2 * (size[1] // 8) * 8)
    made = plan(source, mask, InpaintOptions(*target, blur=2, area=area, resize_mode=mode))
    drawn = made.working.resize(target, Image.Resampling.LANCZOS)
    change = np.abs(np.asarray(paste(made, drawn)).astype(int) - np.asarray(source))
    assert change.max() <= (4 if area == "whole picture" else 8)


def smooth(size: tuple[int, int]) -> Image.Image:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    waves = [127 + 100 * np.sin(x / 9 + y / 30), 127 + 100 * np.cos(y / 8 + x / 40), 127 + 90 * np.sin((x - y) / 13)]
    return Image.fromarray(np.dstack(waves).astype(np.uint8))


def border_gradient(picture: Image.Image, inside: np.ndarray) -> float:
    """The mean step between neighbours of which one is masked and the other is not."""
    values = np.asarray(picture.convert("RGB")).astype(float)
    across = np.abs(np.diff(values, axis=1))[inside[:, 1:] != inside[:, :-1]]
    down = np.abs(np.diff(values, axis=0))[inside[1:] != inside[:-1]]
    return float(np.concatenate([across, down]).mean())


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("target", [(64, 64), (192, 184), (256, 256), (512, 384)])
@pytest.mark.parametrize("box", [(40, 30, 130, 120), (0, 0, 60, 50), (150, 140, 192, 180), (90, 90, 91, 91)])
def test_no_seam(area: str, target: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    """Identity drawings, smaller and larger than the source: the border's gradient grows by 2 % at most."""
    source, mask = smooth((192, 184)), Image.new("L", (192, 184))
    mask.paste(255, box)
    made = plan(source, mask, InpaintOptions(*target, blur=4, area=area))
    result = paste(made, made.working)
    touched = np.asarray(blur(mask, 4)) > 0
    assert border_gradient(result, touched) <= 1.02 * border_gradient(source, touched)
    if area == "whole picture" and target == source.size:
        assert result.tobytes() == source.tobytes()


def test_a_shown_mask_replaces_the_plans() -> None:
    source, mask = pixels((50, 40), "RGBA", 0), Image.new("L", (50, 40), 255)
    made = plan(source, mask, InpaintOptions(64, 48, blur=0))
    assert paste(made, pixels((64, 48), "RGB", 1), Image.new("L", (64, 48))).tobytes() == source.tobytes()
    half = Image.new("L", (64, 48))
    half.paste(255, (0, 0, 32, 48))
    result = np.asarray(paste(made, pixels((64, 48), "RGB", 1), half))
    assert (result[:, 30:] == np.asarray(source)[:, 30:]).all()
    assert (result[:, :20] != np.asarray(source)[:, :20]).any(axis=-1).mean() > 0.9


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_floats_outside_the_mask_stay_the_very_floats(channels: str) -> None:
    rng = np.random.default_rng(3)
    image = rng.random((40, 50, len(channels)), np.float32)
    mask = np.zeros((40, 50), np.float32)
    mask[10:20, 10:30] = 1
    made = plan(picture_of(image), picture_of(mask), InpaintOptions(64, 48, blur=2))
    drawn = rng.random((48, 64, 3), np.float32)
    result = paste_array(made, image, drawn)
    outside = np.asarray(blur(picture_of(mask), 2)) == 0
    assert result.dtype == np.float32
    assert (result[outside] == image[outside]).all()
    assert np.abs(result[13:17, 15:25, :3] - image[13:17, 15:25, :3]).mean() > 0.1
    assert array_of(made.working).shape == (48, 64, 3)


def test_options_travel_through_json() -> None:
    options = InpaintOptions(64, 48, blur=2, blur_y=3, content="fill", keep_size=False)
    assert from_json(InpaintOptions, to_json(options)) == options


def test_a1111s_size_of_the_whole_picture() -> None:
    source, mask = pixels((50, 40), "RGBA", 0), Image.new("L", (50, 40))
    mask.paste(255, (10, 10, 20, 20))
    made = plan(source, mask, InpaintOptions(64, 48, keep_size=False))
    result = paste(made, pixels((64, 48), "RGB", 1))
    assert (result.size, result.mode) == ((64, 48), "RGB")
