"""Variants of pictures, several sizes, and pictures that teach what the base makes of them."""

import colorsys

import numpy as np
import pytest
from PIL import Image

from lora_core.augment import Face, Tint, drawn_tint, face_crop, face_of, face_range, random_crop
from lora_core.buckets import BucketRules, Fit
from lora_core.draws import Draws
from lora_core.engine.cache import LatentCache
from lora_core.engine.dataset import open_dataset
from lora_core.jobs import Subset, TrainJob
from lora_core.pictures import resize, tinted
from lora_core.settings import from_json, replace_by_name, to_json


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(1)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (96, 200, 3), np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def job_for(folder, subsets=(), **values):
    job = replace_by_name(TrainJob(), {"width": 64, "height": 64, "buckets": False, "folder": str(folder)} | values)
    data = to_json(job)
    data["dataset"]["subsets"] = [to_json(s) for s in subsets]
    return from_json(TrainJob, data)


def test_random_crops_are_inside_and_everywhere():
    fit = BucketRules((64, 64), enabled=False).fit((200, 64))
    places = [random_crop(fit, Draws("crop", i)).crop() for i in range(400)]
    assert {y for _, y in places} == {0} and min(places)[0] == 0 and max(places)[0] == 200 - 64
    assert abs(np.mean([x for x, _ in places]) - 68) < 6


def test_a_face_is_in_its_crop_at_the_size_asked_for():
    face = face_of("anna_300_200_80_60")
    assert face == Face(300, 200, 80, 60) and face_of("anna") is None and face_of("a_0_1_2_3") is None
    fit = Fit((800, 600), (341, 256), (256, 256))
    scales = []
    for i in range(100):
        found = face_crop(fit, face, (4.0, 6.0), False, Draws(i))
        scale = found.resized[0] / 800
        scales.append(256 / (80 * scale))
        left, top = found.crop()
        assert 0 <= left <= found.resized[0] - 256 and 0 <= top <= found.resized[1] - 256
        assert left < 300 * scale < left + 256 and top < 200 * scale < top + 256
    assert 3.95 < min(scales) < 4.3 and 5.6 < max(scales) < 6.05


def test_colours_change_in_a_third_of_the_draws():
    tints = [drawn_tint(Draws(i)) for i in range(3000)]
    hues = [t.hue for t in tints if t.hue]
    gammas = [t.gamma for t in tints if t.gamma != 1]
    assert 0.3 < (len(hues) + len(gammas)) / 3000 < 0.36 and 0.8 < len(hues) / len(gammas) < 1.25
    assert max(map(abs, hues)) <= 8 and min(gammas) >= 0.95 and max(gammas) <= 1.05


def test_hue_and_gamma_as_defined():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    turned = tinted(red, Tint(hue=8))[0, 0] / 255
    assert colorsys.rgb_to_hsv(*turned)[0] == pytest.approx(8 / 180, abs=0.003)
    grey = np.full((1, 1, 3), 100, np.uint8)
    assert tinted(grey, Tint(gamma=1.05))[0, 0, 0] == round((100 / 255) ** 1.05 * 255)
    assert (tinted(red, Tint()) == red).all()


@pytest.mark.parametrize("text", ["2", "3,2", "a,b", "0.5,2"])
def test_ranges_that_cannot_be_are_named(text):
    with pytest.raises(ValueError):
        face_range(text)
    assert any("face_crop" in p for p in replace_by_name(TrainJob(), {"face_crop": text}).problems())


def test_every_use_of_a_varying_picture_has_latents_and_its_own_crop(folder):
    dataset = open_dataset(job_for(folder, random_crop=True, color_shift=True, variants=3, flip=True, repeats=8))
    cache, seen = LatentCache("unused", "vae"), set()
    from lora_core.engine.cache import _variants

    kept = {cache.key(p, flip) for p, flip in _variants(dataset)}
    for epoch in range(3):
        for batch in dataset.epoch(epoch):
            for item in batch.items:
                picture = dataset.picture_of(item)
                assert cache.key(picture, item.flip) in kept
                seen.add((item.picture, item.variant, picture.fit.crop()))
    assert {variant for _, variant, _ in seen} == {1, 2, 3} and len({crop for *_, crop in seen}) > 4
    assert dataset.epoch(1) == open_dataset(dataset.job).epoch(1)
    one = next(p for p in dataset.pictures)
    left, top = one.varied(2).fit.crop()
    whole = resize(np.array(Image.open(one.path)), one.fit.resized)
    assert (tinted(whole[top : top + 64, left : left + 64], one.varied(2).tint) == one.varied(2).pixels().rgb).all()


def test_without_variation_nothing_changes(folder):
    dataset = open_dataset(job_for(folder))
    assert all(item.variant == 0 for batch in dataset.epoch(0) for item in batch.items)


@pytest.mark.parametrize("how", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_the_filter_is_pillows(folder, how):
    picture = open_dataset(job_for(folder, resize_filter=how, buckets=True, bucket_step=32, min_bucket=32)).pictures[0]
    image = Image.open(picture.path).resize(picture.fit.resized, getattr(Image.Resampling, how.upper()))
    left, top = picture.fit.crop()
    width, height = picture.fit.bucket
    assert (picture.pixels().rgb == np.array(image)[top : top + height, left : left + width]).all()


def test_a_folder_at_several_sizes_with_their_own_batches(folder):
    dataset = open_dataset(job_for(folder, more_sizes="64, 96", drop_copies=True, batch_size=2))
    assert sorted(p.fit.bucket for p in dataset.pictures) == [(64, 64)] * 3 + [(96, 96)] * 3
    assert dataset.report.duplicates == () and dataset.report.pictures == 6
    subsets = (Subset(str(folder)), Subset(str(folder), width=32, batch_size=3))
    dataset = open_dataset(job_for("", subsets, batch_size=1))
    sizes = sorted((batch.size, len(batch)) for batch in dataset.epoch(0))
    assert sizes == [((32, 32), 3)] + [((64, 64), 1)] * 3


@pytest.mark.parametrize("text", ["100", "many", "32", "64.5"])
def test_sizes_that_no_latent_fits_are_named(text):
    assert any("more_sizes" in p for p in replace_by_name(TrainJob(), {"more_sizes": text}).problems())
    assert any("100" in p for p in job_for("x", (Subset("a", width=100),)).problems())
