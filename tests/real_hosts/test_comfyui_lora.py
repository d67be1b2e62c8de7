"""ComfyUI's LoraLoader node places every key of our files and adds alpha / rank * up @ down to the right weights."""

from __future__ import annotations

import pytest
from host_programs import FAMILIES, MADE_UP

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_is_placed(comfyui, lora_files, family):
    files = lora_files(family)
    answers = comfyui.load(family, files)
    control = answers.pop("control")
    for name, answer in answers.items():
        assert answer["unmatched"] == [], name
        assert answer["log"] == [], name
        assert answer["wrong_shape"] == [], name
        assert answer["modules"] == files[name].modules, name
        assert answer["largest_error"] < 1e-6, name
    assert control["unmatched"] == [MADE_UP]
    assert any(MADE_UP in line for line in control["log"])
