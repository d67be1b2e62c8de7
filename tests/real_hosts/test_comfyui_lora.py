"""ComfyUI's LoraLoader node places every key of our files and adds alpha / rank * up @ down to the right weights."""

from __future__ import annotations

import pytest
from host_programs import FAMILIES, MADE_UP

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_is_placed(comfyui, lora_files, family):
    files = lora_files(family)
    for name, answer in comfyui.load(family, files).items():
        assert answer["unmatched"] == [], name
        assert answer["log"] == [], name
        assert answer["wrong_shape"] == [], name
        assert answer["modules"] == files[name].modules, name
        assert answer["largest_error"] < 1e-6, name


def test_a_key_that_no_model_has_is_noticed(comfyui, control):
    answer = comfyui.load("sd1", control)["control"]
    assert answer["unmatched"] == [MADE_UP]
    assert MADE_UP in answer["log"][0]
