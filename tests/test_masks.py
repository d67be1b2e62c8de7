"""Masks: OpenCV's blur bit for bit, A1111's fill and rounding."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lora_core.geometry import Box, expanded, padded
from lora_core.masks import (
    blur,
    bounding_box,
    doubled,
    fill,
    gaussian_kernel,
    latent_mask,
    mask_from_alpha,
    mask_from_picture,
)

# cv2.GaussianBlur 5.0 in two passes, kernels 2 * int(2.5 sigma + .5) + 1, of the picture made by `spots`.
OPENCV = {
    1: {3: "0 0 1 10 54 124 166 166 124 54 10 1 0 0", 8: "0 0 0 0 1 1 2 2 1 1 1 4 19 32"},
    2: {3: "2 5 13 29 50 72 86 86 72 50 29 13 5 2", 8: "1 2 5 12 20 29 35 35 30 21 14 10 9 9"},
    4: {3: "22 24 26 29 33 36 38 39 37 34 30 27 24 23", 8: "21 22 24 27 31 34 36 36 35 32 29 26 24 23"},
}


def spots() -> Image.Image:
    pixels = np.zeros((9, 14), np.uint8)
    pixels[3:6, 5:9] = 255
    pixels[8, 13] = 200
    return Image.fromarray(pixels)


def square(size: tuple[int, int], box: Box) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box.corners)
    return mask


@pytest.mark.parametrize("sigma", list(OPENCV))
def test_blur_is_opencvs(sigma: int) -> None:
    blurred = np.asarray(blur(spots(), sigma))
    for row, values in OPENCV[sigma].items():
        assert blurred[row].tolist() == [int(v) for v in values.split()]


def test_blur_reaches_as_far_as_a1111s() -> None:
    """A1111 with a 64 px square at 96..159 and mask blur 4 changed exactly 86..169."""
    blurred = blur(square((256, 256), Box(96, 96, 160, 160)), 4)
    assert bounding_box(blurred) == Box(86, 86, 170, 170)
    assert blur(spots(), 0).tobytes() == spots().tobytes()


@pytest.mark.parametrize("sigma", [1, 4, 7.5, 64])
def test_kernels_sum_to_one(sigma: float) -> None:
    kernel = gaussian_kernel(sigma)
    assert sum(kernel) == 256
    assert kernel == kernel[::-1]
    assert len(kernel) == 2 * int(2.5 * sigma + 0.5) + 1


def test_masks_from_pictures() -> None:
    rgba = Image.new("RGBA", (4, 1), (255, 255, 255, 255))
    assert set(mask_from_picture(rgba).tobytes()) == {255}
    rgba.putalpha(Image.frombytes("L", (4, 1), bytes([0, 128, 129, 255])))
    assert list(mask_from_picture(rgba).tobytes()) == [0, 0, 255, 255]
    mask = mask_from_alpha(rgba)
    assert mask is not None
    assert list(mask.tobytes()) == [255, 127, 126, 0]
    assert mask_from_alpha(rgba.convert("RGB")) is None
    assert mask_from_picture(Image.new("RGB", (1, 1), (255, 0, 0))).tobytes() == bytes([76])


def test_doubled_stops_at_white() -> None:
    assert list(doubled(Image.frombytes("L", (3, 1), bytes([10, 127, 200]))).tobytes()) == [20, 254, 255]


def test_fill_takes_colours_from_around_the_hole() -> None:
    picture = Image.new("RGB", (64, 64), (10, 200, 30))
    mask = square((64, 64), Box(20, 20, 44, 44))
    picture.paste((255, 0, 255), (20, 20, 44, 44))
    filled = np.asarray(fill(picture, mask)).astype(int)
    assert np.abs(filled[32, 32] - [10, 200, 30]).max() <= 6
    assert (filled[:20] == [10, 200, 30]).all()


def test_latent_mask_is_rounded() -> None:
    mask = latent_mask(square((64, 64), Box(16, 8, 40, 34)), (8, 8))
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert mask[1:4, 2:5].all()
    assert mask.sum() == 9


def test_padding_stops_at_the_border() -> None:
    assert padded(Box(5, 6, 10, 12), 8, 100, 15) == Box(0, 0, 18, 15)


@pytest.mark.parametrize(
    ("box", "target", "size", "wanted"),
    [
        (Box(10, 10, 30, 20), (64, 64), (100, 100), Box(10, 5, 30, 25)),
        (Box(10, 10, 20, 30), (64, 64), (100, 100), Box(5, 10, 25, 30)),
        (Box(80, 0, 100, 4), (64, 64), (100, 100), Box(80, 0, 100, 20)),
        (Box(96, 40, 100, 60), (64, 64), (100, 100), Box(80, 40, 100, 60)),
        (Box(0, 0, 100, 10), (64, 64), (100, 50), Box(0, 0, 100, 50)),
        (Box(0, 10, 7, 13), (96, 64), (100, 100), Box(0, 10, 7, 14)),
    ],
)
def test_boxes_grow_to_the_target_ratio_inside_the_picture(
    box: Box, target: tuple[int, int], size: tuple[int, int], wanted: Box
) -> None:
    assert expanded(box, target, *size) == wanted
