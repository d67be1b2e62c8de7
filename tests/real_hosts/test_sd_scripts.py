"""sd-scripts loads our files strictly: networks.lora.create_network_from_weights, then load_state_dict(strict=True).

Its own hash functions give the hashes that our files say.
"""

from __future__ import annotations

import pytest
from host_programs import FAMILIES, MADE_UP

pytestmark = [pytest.mark.real_host, pytest.mark.slow]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_module_is_loaded_strictly(sd_scripts, lora_files, family):
    files = lora_files(family)
    answers = sd_scripts.load(family, files)
    control = answers.pop("control")
    for name, answer in answers.items():
        assert answer["unmatched"] == [], name
        assert answer["modules"] == files[name].modules, name
        assert answer["info"] == "<All keys matched successfully>", name
        assert answer["largest_error"] < 1e-6, name
        assert answer["hashes"] == answer["computed_hashes"], name
    assert control["unmatched"] == [MADE_UP]
    assert MADE_UP in control["info"]
