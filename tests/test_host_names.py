"""The names of samplers, schedules and modes in both hosts."""

from __future__ import annotations

import pytest

from lora_core import host_names as names
from lora_core.jobs import generate


def test_every_choice_of_a_job_has_its_names() -> None:
    assert tuple(names.SAMPLER) == generate.SAMPLERS
    assert tuple(names.SCHEDULE) == generate.SCHEDULERS
    assert tuple(names.RNG) == generate.NOISE_SOURCES
    assert tuple(names.EMPHASIS) == generate.EMPHASES
    assert tuple(names.RESIZE_MODE) == generate.RESIZE_MODES
    assert tuple(names.MASKED_CONTENT) == generate.MASKED_CONTENTS
    assert tuple(names.INPAINT_AREA) == generate.INPAINT_AREAS
    assert tuple(names.HIRES_UPSCALER) == generate.HIRES_UPSCALERS


def test_each_name_means_one_sampler() -> None:
    for sampler in names.SAMPLERS:
        assert {names.sampler_token(n) for n in (sampler.token, sampler.a1111, sampler.comfyui)} == {sampler.token}
    for schedule in names.SCHEDULES:
        assert {names.schedule_token(n) for n in (schedule.token, schedule.a1111)} == {schedule.token}
        assert not schedule.comfyui or names.schedule_token(schedule.comfyui) == schedule.token


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("DPM2 a Karras", ("dpm2_ancestral", "karras")),
        ("DPM++ 2M SDE Exponential", ("dpmpp_2m_sde", "exponential")),
        ("DPM++ 2M SGM Uniform", ("dpmpp_2m", "sgm_uniform")),
        ("Euler a", ("euler_ancestral", None)),
        ("euler_a", ("euler_ancestral", None)),
        ("k_euler_a", ("euler_ancestral", None)),
        ("DPM fast", (None, None)),
        ("uni_pc_bh2", (None, None)),
    ],
)
def test_old_combined_names(name: str, tokens: tuple[str | None, str | None]) -> None:
    assert names.combined_tokens(name) == tokens


@pytest.mark.parametrize(
    ("told", "before"),
    [
        (("DPM++ 2M", "Karras"), ("DPM++ 2M Karras", "")),
        (("DPM++ 2M", "Automatic"), ("DPM++ 2M Karras", "")),
        (("DPM++ 2M SDE", "Automatic"), ("DPM++ 2M SDE Exponential", "")),
        (("DPM++ 3M SDE", "Exponential"), ("DPM++ 3M SDE Exponential", "")),  # not ours
        (("Euler a", "Automatic"), ("Euler a", "")),
        (("Euler a", "Karras"), ("Euler a", "karras")),  # an option, with names of its own
        (("DPM++ 2M", "SGM Uniform"), ("DPM++ 2M", "")),
        (("Unheard", "Of"), ("Unheard", "")),
    ],
)
def test_names_for_a1111_before_its_list_of_schedules(told: tuple[str, str], before: tuple[str, str]) -> None:
    assert names.names_before_1_9(*told) == before
