"""Grids, strips and charts are read back from their pixels."""

import math
import random

import pytest
from PIL import Image, ImageFont

from lora_core import drawing
from lora_core.chart import BLUE, GREEN, ORANGE, LossCurve, loss_chart, ticks
from lora_core.drawing import GridText, fitted, mask_overlay, picture_grid, strip, text_width, wrap
from lora_core.events import Loss, Note, Saved

RED, TEAL = (200, 10, 20), (0, 120, 130)


def count(picture: Image.Image, color: tuple[int, int, int]) -> int:
    return next((n for n, c in picture.getcolors(1 << 24) or [] if c == color), 0)


def box_of(picture: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    bands = [band.point([255 if v == c else 0 for v in range(256)]) for band, c in zip(picture.split(), color)]
    both = Image.composite(bands[0], Image.new("L", picture.size), bands[1])
    return Image.composite(both, Image.new("L", picture.size), bands[2]).getbbox()


def plain(color: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, color)


def test_every_picture_of_a_grid_is_there_in_reading_order() -> None:
    colors = [[(10 * (3 * r + c) + 60, 30, 200) for c in range(3)] for r in range(2)]
    grid = picture_grid(
        [[plain(c) for c in row] for row in colors], GridText(("a", "b", "c"), ("one", "two")), (64, 64)
    )
    boxes = [[box_of(grid, color) for color in row] for row in colors]
    assert all(box is not None and (box[2] - box[0], box[3] - box[1]) == (64, 64) for row in boxes for box in row)
    assert boxes[0][0][0] < boxes[0][1][0] < boxes[0][2][0] and boxes[0][0][1] < boxes[1][0][1]
    assert boxes[0][1][0] == boxes[1][1][0] and boxes[0][0][1] == boxes[0][2][1]


def test_captions_stay_clear_of_the_pictures() -> None:
    long = "a caption of many words that needs several lines " * 3
    grid = picture_grid([[plain(RED), plain(TEAL)]], GridText((long, "b"), (long,), long, long), (96, 96))
    assert count(grid, RED) == 64 * 64 and count(grid, TEAL) == 64 * 64


def test_a_missing_picture_leaves_its_place_empty() -> None:
    full = picture_grid([[plain(RED), plain(TEAL)]], cell=(64, 64))
    gap = picture_grid([[None, plain(TEAL)]], cell=(64, 64))
    assert gap.size == full.size and count(gap, RED) == 0
    assert box_of(gap, TEAL) == box_of(full, TEAL)


def test_empty_grid_and_empty_strip_are_pictures() -> None:
    assert picture_grid([]).width > 0
    assert strip([], [], "nothing").height > 0


@pytest.mark.parametrize("size, cell, expected", [((16, 16), (50, 60), (48, 48)), ((300, 100), (150, 150), (150, 50))])
def test_small_pictures_grow_by_whole_factors_and_large_ones_shrink(size, cell, expected) -> None:
    assert fitted(plain(RED, size), cell).size == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_any_mode_is_shown(mode: str) -> None:
    assert fitted(Image.new(mode, (8, 8)), (8, 8)).mode == "RGB"


def test_wrapped_lines_fit_and_lose_no_letter() -> None:
    text = "armin_vicerre, 1boy, solo, " + "x" * 90 + " smile"
    lines = wrap(text, 15, 120)
    assert all(text_width(line, 15) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_old_pillow_without_a_scalable_font_still_writes(monkeypatch) -> None:
    def bitmap_only(size: float | None = None) -> ImageFont.ImageFont:
        if size is not None:
            raise TypeError("load_default() takes no arguments")
        return ImageFont.load_default_imagefont()

    monkeypatch.setattr(drawing.ImageFont, "load_default", bitmap_only)
    drawing._font.cache_clear()
    try:
        mask = drawing.text_mask("loss ▼ 0.1", 30)
        assert mask.height > 30 and mask.getbbox() is not None
        assert picture_grid([[plain(RED)]], GridText(("日本",), ("é",), "t")).width > 0
    finally:
        drawing._font.cache_clear()


def test_mask_overlay_tints_only_the_white_part() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    shown = mask_overlay(plain(TEAL), mask)
    assert shown.getpixel((10, 10)) != TEAL and shown.getpixel((50, 10)) == TEAL


def curve(steps: int = 200) -> LossCurve:
    draw = random.Random(1)
    losses = [(s, 0.1 + draw.random() * 0.1) for s in range(1, steps + 1)]
    return LossCurve(losses, losses, [(s, 0.12 - s / 10_000) for s in range(0, steps + 1, 50)], (100, 200))


def test_the_chart_shows_average_held_out_and_saves() -> None:
    chart = loss_chart(curve())
    for color in (BLUE, ORANGE, GREEN):
        assert count(chart, color) > 50
    assert count(loss_chart(LossCurve(curve().losses, curve().averages)), ORANGE) == 0


def test_a_falling_held_out_loss_falls_on_the_chart() -> None:
    falling = loss_chart(LossCurve((), (), [(0, 0.2), (100, 0.1)]), size=(600, 400))
    x0, _, x1, _ = box_of(falling.crop((0, 110, 600, 400)), ORANGE)
    start = box_of(falling.crop((x0, 110, x0 + 12, 400)), ORANGE)
    end = box_of(falling.crop((x1 - 12, 110, x1, 400)), ORANGE)
    assert start[1] + 100 < end[1]


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1, 0.5)],
        [(1, 0.5), (2, 0.5)],
        [(1, math.nan), (2, 0.1)],
        [(0, None), (1, None)],
        [(1, 1e9), (2, 1e-9)],
        [(1, -2.0), (9, 0.0)],
    ],
)
def test_odd_curves_are_drawn(points) -> None:
    assert loss_chart(LossCurve(points, points, points, [s for s, _ in points])).size == (960, 460)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.087, 0.113), (0, 300), (1e-7, 3e-7), (-5, 5), (1e8, 3e9)])
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    step = found[1] - found[0]
    assert 2 <= len(found) <= 8 and low - step * 1e-6 <= found[0] and found[-1] <= high + step * 1e-6
    leading = step / 10 ** math.floor(math.log10(step * 1.0001))
    assert min(abs(leading - m) for m in (1, 2, 5)) < 1e-6


def test_a_curve_is_read_from_events() -> None:
    events = [
        Loss(0, None, None, 0.1, held_out=0.3),
        Loss(1, 0.5, 0.5, 0.1),
        Note("passed over"),
        Saved("a-000001.safetensors", "lora", 1),
        Saved("state", "state", 1),
    ]
    found = LossCurve.from_events(events)
    assert found.losses == [(1, 0.5)] and found.held_out == [(0, 0.3)] and found.saves == [1]
