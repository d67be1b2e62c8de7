"""Crops around what stands out, and around faces where a detector is at hand."""

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from lora_core.augment import Face
from lora_core.buckets import BucketRules
from lora_core.engine.cache import LatentCache
from lora_core.engine.dataset import open_dataset
from lora_core.engine.faces import MISSING
from lora_core.focus import Profile, best_start, focused, profile, with_faces
from lora_core.jobs import Subset, TrainJob
from lora_core.pictures import fitted, read_pixels
from lora_core.settings import from_json, replace_by_name, to_json


def scene(box, size=(300, 100), ground=90, seed=0):
    """A dull ground with a bright, detailed thing in `box` (left, top, right, bottom), uint8 [h, w, 3]."""
    rng = np.random.default_rng(seed)
    rgb = np.clip(ground + rng.normal(0, 2, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    left, top, right, bottom = box
    thing = rng.integers(0, 256, (bottom - top, right - left, 3))
    rgb[top:bottom, left:right] = np.stack([thing[:, :, 0], thing[:, :, 1] // 3, thing[:, :, 2] // 4], 2)
    return rgb


@pytest.mark.parametrize(("left", "expected"), [(0, 0), (20, 0), (130, 100), (180, 150), (260, 200)])
def test_the_crop_has_the_thing_in_its_middle(left, expected):
    fit = BucketRules((96, 96), enabled=False).fit((300, 100))
    found = focused(fit, profile(scene((left, 30, left + 40, 70))))
    assert found.crop()[1] == 0 and abs(found.crop()[0] - expected * 0.96) <= 8
    assert (found.resized, found.bucket) == (fit.resized, fit.bucket)


def test_tall_pictures_are_searched_from_top_to_bottom():
    rgb = scene((30, 150, 70, 190), size=(100, 240))
    fit = BucketRules((96, 96), enabled=False).fit((100, 240))
    left, top = focused(fit, profile(rgb)).crop()
    assert left == 0 and top > 110


@pytest.mark.parametrize("rgb", [np.full((80, 200, 3), 7, np.uint8), np.zeros((9, 200, 3), np.uint8)])
def test_a_flat_picture_stays_in_the_middle(rgb):
    fit = BucketRules((64, 64), enabled=False).fit((200, 80))
    assert focused(fit, profile(rgb)) == fit
    assert best_start(np.zeros(32, np.uint8), 200, 64) == 68 and best_start(np.ones(32, np.uint8), 64, 64) == 0


def test_the_best_start_is_the_best_of_all_by_hand():
    rng = np.random.default_rng(3)
    for _ in range(10):
        values = rng.integers(0, 256, 32).astype(np.uint8)
        pixels = np.repeat(values.astype(float), 5)
        start = best_start(values, 160, 64)

        def score(s, pixels=pixels):
            inside = [(v, abs(i + 0.5 - s - 32) / 32) for i, v in enumerate(pixels) if s <= i < s + 64]
            return sum(v * (1 - a * a / 2) for v, a in inside) / pixels.sum() - 0.05 * abs(s - 48) / 96

        assert score(start) == pytest.approx(max(map(score, range(97))), abs=0.01)


def test_profiles_are_texts_and_the_same_each_time():
    rgb = scene((10, 10, 40, 40))
    found = profile(rgb)
    assert Profile.of_text(found.text()) == found == profile(rgb.copy())
    with pytest.raises(ValueError):
        Profile.of_text("00" * 63)


def test_faces_count_more_than_all_detail():
    rgb = scene((0, 0, 100, 100))
    fit = BucketRules((96, 96), enabled=False).fit((300, 100))
    faces = [Face(250, 50, 30, 40)]
    found = focused(fit, with_faces(profile(rgb), faces, (300, 100)))
    assert focused(fit, profile(rgb)).crop()[0] < 12
    left = found.crop()[0] / 0.96
    assert left <= 235 and left + 100 >= 265


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(scene((240, 30, 290, 70), seed=1)).save(tmp_path / "right.png")
    Image.fromarray(scene((240, 30, 290, 70), seed=2)).save(tmp_path / "anna_30_50_20_20.png")
    Image.fromarray(scene((10, 10, 90, 90), (100, 100), seed=3)).save(tmp_path / "square.png")
    return tmp_path


def job_for(folder, subsets=(), **values):
    job = replace_by_name(TrainJob(), {"width": 64, "height": 64, "buckets": False, "folder": str(folder)} | values)
    data = to_json(job)
    data["dataset"]["subsets"] = [to_json(s) for s in subsets]
    return from_json(TrainJob, data)


def crops(dataset):
    return {p.path.stem: p.fit.crop()[0] for p in dataset.pictures}


def without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)


def test_a_job_crops_as_it_says(folder, monkeypatch, tmp_path):
    without_opencv(monkeypatch)
    assert crops(open_dataset(job_for(folder))) == {"anna_30_50_20_20": 64, "right": 64, "square": 0}
    detail = open_dataset(job_for(folder, focus="detail"))
    assert crops(detail) == {"anna_30_50_20_20": 128, "right": 128, "square": 0}
    faces = open_dataset(job_for(folder, focus="faces"))
    assert crops(faces) == {"anna_30_50_20_20": 0, "right": 128, "square": 0}
    assert faces.report.notes.count(MISSING) == 1 and MISSING not in detail.report.notes
    right = next(p for p in detail.pictures if p.path.stem == "right")
    whole = fitted(read_pixels(right.path), BucketRules((192, 64), enabled=False).fit((300, 100))).rgb
    assert (right.pixels().rgb == whole[:, 128:]).all()
    mixed = (Subset(str(folder), focus="detail"), Subset(str(folder), width=72))
    assert {
        p.fit.bucket[0]: p.fit.crop()[0] for p in open_dataset(job_for("", mixed)).pictures if "right" in p.name
    } == {
        64: 128,
        72: 72,
    }


def test_a_remembered_picture_is_cropped_alike_and_other_crops_have_other_latents(folder, tmp_path):
    known = tmp_path / "cache" / "pictures.json"
    job = job_for(folder, focus="detail")
    first, second = open_dataset(job, None, known), open_dataset(job, None, known)
    assert crops(first) == crops(second) == crops(open_dataset(job))
    cache = LatentCache("unused", "vae")
    keys = {
        focus: [cache.key(p, False) for p in open_dataset(job_for(folder, focus=focus)).pictures]
        for focus in ("middle", "detail")
    }
    assert [a == b for a, b in zip(keys["middle"], keys["detail"])] == [False, False, True]
    rows = json.loads(known.read_text())
    known.write_text(json.dumps({mark: row[:6] for mark, row in rows.items()}))
    assert crops(open_dataset(job, None, known)) == crops(first)


def test_a_detector_of_the_machine_is_used_and_remembered(folder, tmp_path, monkeypatch):
    calls = []

    class Cascade:
        def __init__(self, path):
            assert path.endswith(".xml")

        def empty(self):
            return False

        def detectMultiScale(self, grey, *rest):
            calls.append(grey.shape)
            return np.array([[100, 30, 40, 40]]) if grey.shape == (100, 300) else ()

    fake = types.SimpleNamespace(
        CascadeClassifier=Cascade, data=types.SimpleNamespace(haarcascades="x"), __version__="4"
    )
    monkeypatch.setitem(sys.modules, "cv2", fake)
    job, known = job_for(folder, focus="faces"), tmp_path / "cache" / "pictures.json"
    found = open_dataset(job, None, known)
    assert abs(crops(found)["right"] - (120 * 0.64 - 32)) <= 4 and crops(found)["anna_30_50_20_20"] == 0
    assert calls == [(64, 64), (100, 300)] and found.report.notes == ()
    assert crops(open_dataset(job, None, known)) == crops(found) and calls == [(64, 64), (100, 300), (64, 64)]


def test_a_focus_that_is_none_is_named():
    assert any("focus" in p for p in job_for("x", (Subset("a", focus="left"),)).problems())
    assert any("focus" in p for p in replace_by_name(TrainJob(), {"folder": "x", "focus": "left"}).problems())
