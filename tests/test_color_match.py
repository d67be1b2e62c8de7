"""Colour correction: OpenCV's, scikit-image's and blendmodes' answers, recorded by tools/record_a1111_functions.py."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image
from recorded import a1111_functions, recorder

from lora_core.color_match import match_colors, match_histogram, with_luminosity
from lora_core.lab import lab_to_rgb, rgb_to_lab


def test_lab_is_opencvs() -> None:
    known, grid = a1111_functions(), recorder().grid()
    assert hashlib.sha256(rgb_to_lab(grid).tobytes()).hexdigest() == known["rgb_to_lab"]
    assert hashlib.sha256(lab_to_rgb(grid).tobytes()).hexdigest() == known["lab_to_rgb"]


def test_lab_of_known_colours() -> None:
    colors = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [128, 128, 128]]], np.uint8)
    assert rgb_to_lab(colors)[0].tolist() == [[255, 128, 128], [0, 128, 128], [136, 208, 195], [137, 128, 128]]
    assert np.abs(lab_to_rgb(rgb_to_lab(colors)).astype(int) - colors).max() <= 2


@pytest.mark.parametrize("seed", range(3))
def test_colours_are_matched_as_by_a1111(seed: int) -> None:
    drawn, target = (Image.fromarray(pixels) for pixels in recorder().pictures(seed))
    assert (np.asarray(match_colors(drawn, target)) == a1111_functions()[f"match_colors_{seed}"]).all()


def test_histograms_become_those_of_the_target() -> None:
    rng = np.random.default_rng(0)
    channel, target = rng.integers(0, 256, (50, 40), np.uint8), rng.integers(100, 120, (64, 64), np.uint8)
    matched = match_histogram(channel, target)
    assert matched.min() >= 100
    assert abs(float(matched.mean()) - float(target.mean())) < 1
    assert (match_histogram(target, target) == target).all()


def test_luminosity_stays_that_of_the_drawn_picture() -> None:
    rng = np.random.default_rng(1)
    colors, drawn = rng.integers(60, 200, (2, 16, 16, 3), np.uint8)
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(with_luminosity(colors, drawn) @ weights - drawn @ weights).max() <= 1.01
