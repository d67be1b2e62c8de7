"""A1111's Lora extension matches every key of our files and takes them for what they are: family, alias, hash."""

from __future__ import annotations

import pytest
from host_programs import COUNTS, FAMILIES, MADE_UP

from lora_core.tensors import data_hash

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_is_matched(a1111, lora_files, family):
    files = lora_files(family)
    answers = a1111.load(family, files)
    control = answers.pop("control")
    for name, answer in answers.items():
        assert answer["unmatched"] == [], name
        assert answer["log"] == [], name
        assert answer["wrong_shape"] == [], name
        assert answer["modules"] == files[name].modules, name
        assert answer["largest_error"] < 1e-6, name
        assert answer["version"] == {"sd1": "SD1", "sdxl": "SDXL"}[family], name
        assert answer["hash"] == answer["computed_hash"] == data_hash(files[name].path), name
    assert all(answers[case]["alias"] == case for case in COUNTS[family])
    assert control["unmatched"] == [MADE_UP]
    assert any(MADE_UP in line for line in control["log"])
