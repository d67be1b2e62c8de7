"""Every sampler, schedule and kind of noise against latents that ComfyUI 0.3.64 and A1111 v1.10.1 made.

tests/data/sampling_hosts.safetensors is written by tools/record_sampling.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import sampling_cases
from safetensors.torch import load_file
from sampling_runs import difference, ours, tolerance

RECORDED = load_file(Path(__file__).parent / "data" / "sampling_hosts.safetensors")
CASES = [(host, case) for host in ("a1111", "comfyui") for case in getattr(sampling_cases, host)()]


@pytest.mark.parametrize(("host", "case"), CASES, ids=lambda value: getattr(value, "name", value))
def test_latents_equal_the_hosts(host: str, case: sampling_cases.Case) -> None:
    assert difference(ours(case, host), RECORDED[f"{host}/{case.name}"]) < tolerance(case, host)


def test_every_recorded_run_is_compared() -> None:
    assert {f"{host}/{case.name}" for host, case in CASES} == set(RECORDED)
