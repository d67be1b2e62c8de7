"""A1111's Lora extension matches every key of our files and shows them as LoRAs of the right family and hash."""

from __future__ import annotations

import pytest
from host_programs import FAMILIES, MADE_UP

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_is_matched(a1111, lora_files, family):
    files = lora_files(family)
    for name, answer in a1111.load(family, files).items():
        assert answer["unmatched"] == [], name
        assert answer["log"] == [], name
        assert answer["wrong_shape"] == [], name
        assert answer["modules"] == files[name].modules, name
        assert answer["largest_error"] < 1e-6, name


@pytest.mark.parametrize("family", FAMILIES)
def test_file_is_shown_as_what_it_is(a1111, lora_files, family):
    from lora_core.tensors import data_hash

    files = {"unet-te": lora_files(family)["unet-te"]}
    answer = a1111.load(family, files)["unet-te"]
    assert answer["version"] == {"sd1": "SD1", "sdxl": "SDXL"}[family]
    assert answer["alias"] == "unet-te"
    assert answer["hash"] == data_hash(files["unet-te"].path)


def test_a_key_that_no_model_has_is_noticed(a1111, control):
    answer = a1111.load("sd1", control)["control"]
    assert answer["unmatched"] == [MADE_UP]
    assert MADE_UP in answer["log"][0]
