"""Buckets against a table that kohya's own code produced (sd-scripts 48d368fa, `BucketManager.select_bucket`)."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.buckets import BucketRules, Fit
from lora_core.errors import ConfigError, DatasetError

GOLDEN = json.loads((Path(__file__).parent / "data" / "kohya_buckets.json").read_text("utf-8"))


def rules_of(config) -> BucketRules:
    if config == "off":
        return BucketRules((512, 320), enabled=False)
    area, shortest, longest, step, no_upscale = config
    return BucketRules(tuple(area), shortest, longest, step, no_upscale)


@pytest.mark.parametrize("table", GOLDEN, ids=lambda table: str(table["config"]))
def test_sizes_and_fits_equal_kohyas(table):
    rules = rules_of(table["config"])
    if table["sizes"] is not None:
        assert [list(size) for size in rules.sizes] == table["sizes"]
    for size, bucket, resized in table["rows"]:
        fit = rules.fit(tuple(size))
        assert (list(fit.bucket), list(fit.resized)) == (bucket, resized), size


sides = st.integers(16, 6000)


@given(
    sides, sides, st.sampled_from([(512, 512), (1024, 1024), (768, 512)]), st.sampled_from([8, 32, 64]), st.booleans()
)
def test_a_fit_covers_its_bucket_and_keeps_to_the_area(width, height, area_size, step, no_upscale):
    rules = BucketRules(area_size, 256, 2048, step, no_upscale)
    try:
        fit = rules.fit((width, height))
    except DatasetError:
        assert no_upscale and min(width, height) < 512
        return
    assert all(side % step == 0 and side > 0 for side in fit.bucket)
    rounded = sum(fit.resized) if no_upscale else 0  # kohya rounds the side before the other one follows from it
    assert fit.bucket[0] * fit.bucket[1] <= area_size[0] * area_size[1] + rounded
    assert all(r >= b for r, b in zip(fit.resized, fit.bucket))
    if no_upscale:
        assert fit.resized[0] <= width and fit.resized[1] <= height
    left, top = fit.crop()
    assert left + fit.crop(flip=True)[0] == fit.resized[0] - fit.bucket[0]
    assert 0 <= top <= fit.resized[1] - fit.bucket[1]


def test_crop_is_the_centre():
    fit = Fit((1000, 800), (1153, 922), (1152, 896))
    assert fit.crop() == (0, 13)
    assert fit.crop(flip=True) == (1, 13)


def test_a_training_size_above_the_longest_side_raises_it():
    assert BucketRules((1536, 1536), 256, 1024).fit((2000, 2000)).bucket == (1536, 1536)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"step": 20}, "multiple of 8"),
        ({"area_size": (64, 64), "step": 128}, "larger than the training size"),
        ({"shortest": 300}, "multiples of 8"),
        ({"shortest": 2048}, "not above the longest"),
        ({"enabled": False, "area_size": (500, 512)}, "multiples of 8 without buckets"),
    ],
)
def test_impossible_rules_are_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        BucketRules(**change)


def test_a_picture_too_small_for_no_upscale_is_refused_with_its_size():
    with pytest.raises(DatasetError, match="40 x 300"):
        BucketRules(no_upscale=True).fit((40, 300))


def test_a_picture_too_long_and_thin_is_refused_before_it_fills_the_memory():
    with pytest.raises(DatasetError, match="long and thin"):
        BucketRules().fit((60000, 4))
