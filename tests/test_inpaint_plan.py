"""Pictures go in, and come out with only their masked part changed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lora_core.errors import ConfigError
from lora_core.inpaint_plan import InpaintOptions, paste, plan
from lora_core.masks import blur
from lora_core.resizing import comfyui_mode, resized_and_cropped, resized_and_filled

AREAS = ("whole picture", "only masked")


def noise(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], len(mode)), np.uint8), mode)


def smooth(size: tuple[int, int]) -> Image.Image:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.dstack([127 + 100 * np.sin(x / 9), 127 + 100 * np.cos(y / 11), 127 + 60 * np.sin((x + y) / 14)])
    return Image.fromarray(pixels.astype(np.uint8))


def hole(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(64, 64), (101, 75), (33, 250)])
def test_unmasked_pixels_keep_their_bits(area: str, mode: str, size: tuple[int, int]) -> None:
    source, mask = noise(size, mode), hole(size, (10, 20, 25, 41))
    made = plan(source, mask, InpaintOptions(64, 96, blur=2, area=area))
    result = paste(made, noise((64, 96), seed=1))
    old, new, shown = np.asarray(source), np.asarray(result), np.asarray(blur(mask, 2))
    assert (result.size, result.mode) == (source.size, source.mode)
    assert (new[shown == 0] == old[shown == 0]).all()
    assert (new[shown == 255] != old[shown == 255]).any(axis=-1).mean() > 0.95


@pytest.mark.parametrize("area", AREAS)
def test_twenty_rounds_leave_the_rest_alone(area: str) -> None:
    source, mask = noise((70, 50), "RGBA"), hole((70, 50), (30, 10, 50, 30))
    picture = source
    for seed in range(20):
        made = plan(picture, mask, InpaintOptions(64, 64, blur=3, area=area, padding=8))
        picture = paste(made, noise((64, 64), seed=seed))
    outside = np.asarray(blur(mask, 3)) == 0
    assert (np.asarray(picture)[outside] == np.asarray(source)[outside]).all()


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("box", [(40, 30, 80, 70), (0, 0, 30, 20), (100, 90, 128, 120), (60, 60, 61, 61)])
def test_an_identity_drawing_leaves_no_seam(area: str, box: tuple[int, int, int, int]) -> None:
    source = smooth((128, 120))
    made = plan(source, hole(source.size, box), InpaintOptions(128, 120, blur=4, area=area))
    change = np.abs(np.asarray(paste(made, made.working)).astype(int) - np.asarray(source))
    assert change.max() <= (2 if area == "whole picture" else 6)


def test_only_masked_draws_the_surroundings_enlarged() -> None:
    source = smooth((200, 160))
    made = plan(source, hole(source.size, (90, 70, 110, 90)), InpaintOptions(64, 64, blur=0, area=AREAS[1], padding=6))
    assert made.box is not None
    assert made.box.corners == (84, 64, 116, 96)
    assert made.working.size == (64, 64)
    wanted = source.crop(made.box.corners).resize((64, 64), Image.Resampling.LANCZOS)
    assert made.working.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("keep_size", [True, False])
def test_comfyui_takes_the_middle_of_odd_sides_as_it_is(keep_size: bool) -> None:
    source, mask = noise((79, 69)), hole((79, 69), (0, 0, 40, 69))
    mode = comfyui_mode("just resize", source.size, (72, 64))
    made = plan(source, mask, InpaintOptions(72, 64, blur=0, resize_mode=mode, keep_size=keep_size))
    middle = source.crop((3, 2, 75, 66))
    assert made.working.tobytes() == middle.tobytes()
    black = np.asarray(paste(made, Image.new("RGB", (72, 64))))
    if keep_size:
        black, around = black[2:66, 3:75], np.delete(black, slice(3, 75), axis=1)
        assert (around == np.delete(np.asarray(source), slice(3, 75), axis=1)).all()
    assert not black[:, :37].any()
    assert (black[:, 37:] == np.asarray(middle)[:, 37:]).all()


def test_other_sizes_and_modes_are_resized_in_comfyuis_arithmetic_too() -> None:
    assert comfyui_mode("crop and resize", (79, 69), (72, 64)) == "crop and resize"
    assert comfyui_mode("just resize", (80, 69), (72, 64)) == "just resize"
    assert comfyui_mode("just resize", (72, 64), (72, 64)) == "just resize"


def test_alpha_of_the_repainted_part_becomes_opaque() -> None:
    source = Image.new("RGBA", (64, 64), (1, 2, 3, 0))
    made = plan(source, hole((64, 64), (16, 16, 48, 48)), InpaintOptions(64, 64, blur=0))
    result = np.asarray(paste(made, Image.new("RGB", (64, 64), (9, 9, 9))))
    assert result[32, 32].tolist() == [9, 9, 9, 255]
    assert result[0, 0].tolist() == [1, 2, 3, 0]


def test_masked_content() -> None:
    source, mask = smooth((64, 64)), hole((64, 64), (20, 20, 40, 40))
    kept = plan(source, mask, InpaintOptions(64, 64, blur=0, content="original"))
    filled = plan(source, mask, InpaintOptions(64, 64, blur=0, content="fill"))
    assert kept.working.tobytes() == source.tobytes()
    changed = (np.asarray(filled.working) != np.asarray(source)).any(axis=-1)
    assert changed[20:40, 20:40].mean() > 0.9
    assert not changed[:20].any()


def test_a_blank_mask() -> None:
    source, mask = noise((64, 64)), Image.new("L", (64, 64))
    whole = plan(source, mask, InpaintOptions(64, 64))
    assert paste(whole, noise((64, 64), seed=1)).tobytes() == source.tobytes()
    masked = plan(source, mask, InpaintOptions(64, 64, area="only masked"))
    assert masked.mask is None
    assert paste(masked, noise((64, 64), seed=1)).tobytes() == noise((64, 64), seed=1).tobytes()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="32 x 64"):
        plan(noise((64, 64)), Image.new("L", (32, 64)), InpaintOptions(64, 64))


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (31, 64), (64, 64)])
def test_resizing_covers_the_target(size: tuple[int, int]) -> None:
    white = Image.new("RGB", size, (255, 255, 255))
    assert set(resized_and_filled(white, (64, 64)).tobytes()) == {255}
    assert resized_and_cropped(white, (64, 64)).size == (64, 64)
